"""The segmenter S (Eq. 5): every frame on its own, into instances, masks and context-aware features."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from cavis.model.context import ContextPooling
from cavis.model.layers import Mlp
from cavis.model.pixel_decoder import PixelDecoder
from cavis.model.query_decoder import QueryDecoder
from cavis.records import FramePrediction, LayerPrediction

Colours = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and deviation of red, green and blue, 0 ... 255."""
STRIDE = 32
"""Images are padded to a multiple of the coarsest stride."""


class Segmenter(nn.Module):
    """Backbone, pixel decoder, query decoder, and the context branch (Eq. 6, 7) on top of them.

    Without ``context_mlp`` (a model without context) the core features stand alone. ``colours`` are those the backbone
    was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        pixel_decoder: PixelDecoder,
        query_decoder: QueryDecoder,
        context_pooling: ContextPooling,
        context_mlp: Mlp | None,
        colours: Colours,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.query_decoder = query_decoder
        self.context_pooling = context_pooling
        self.context_mlp = context_mlp
        mean, std = (torch.tensor(values) for values in colours)
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("std", std[:, None, None], persistent=False)

    def forward(self, images: Shaped[Tensor, "B T 3 H W"]) -> FramePrediction:
        """Segment frames (RGB, 0 ... 255); masks cover the image padded right and below to a multiple of 32."""
        batch, frames = images.shape[:2]
        maps = self.backbone(self.normalise(images.flatten(0, 1)))
        with torch.autocast(images.device.type, enabled=False):  # sampling places need full precision
            features = self.pixel_decoder(tuple(x.float() for x in maps))
        steps = self.query_decoder(features)
        heads = self.query_decoder.heads
        queries, mask_features = steps[-1], features.mask_features
        core = heads.norm(queries)
        mask_logits = heads.masks(core, mask_features)
        context = self.context_pooling(mask_logits, mask_features).to(core.dtype)
        embedding = self.embed(core, context)

        def by_clip(x: Float[Tensor, "BT *rest"]) -> Float[Tensor, "B T *rest"]:
            return x.unflatten(0, (batch, frames))

        earlier = steps[:-1] if self.training else ()
        return FramePrediction(
            class_logits=by_clip(heads.classify(core)),
            mask_logits=by_clip(mask_logits),
            queries=by_clip(queries),
            core=by_clip(core),
            context=by_clip(context),
            context_embedding=by_clip(embedding),
            context_aware=by_clip(core if self.context_mlp is None else torch.cat((core, embedding), dim=-1)),
            mask_features=by_clip(mask_features),
            auxiliary=tuple(self._auxiliary(by_clip(x), by_clip(mask_features)) for x in earlier),
        )

    def embed(
        self, core: Float[Tensor, "*batch Q C"], context: Float[Tensor, "*batch Q C"]
    ) -> Float[Tensor, "*batch Q C"]:
        """Q = MLP(Concat(Q̂, Q̃)) (Eq. 7)."""
        return core if self.context_mlp is None else self.context_mlp(torch.cat((core, context), dim=-1))

    def normalise(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H2 W2"]:
        """Subtract the mean, divide by the deviation, pad with zeros (the mean colour) to a multiple of 32."""
        height, width = images.shape[-2:]
        normal = (images.float() - self.mean) / self.std
        return F.pad(normal, (0, -width % STRIDE, 0, -height % STRIDE))

    def _auxiliary(self, slots: Float[Tensor, "B T Q C"], features: Float[Tensor, "B T C h w"]) -> LayerPrediction:
        return self.query_decoder.heads.predict(slots, features)
