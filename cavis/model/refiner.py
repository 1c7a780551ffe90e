"""The temporal refiner (offline): a whole video's tracks, looked at together.

The paper takes it over from DVIS. It sees the tracker's embeddings of all frames and lets every track look through
time, the tracks of a frame at each other, and each frame once more at what the segmenter saw there. What it returns is
small; masks are made from it frame by frame, by :meth:`Refiner.masks`, so that those of a video never exist together.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cavis.model.layers import CrossAttention, FeedForward, Heads, SelfAttention, init_transformer
from cavis.records import ClipPrediction, FramePrediction, LayerPrediction

CHUNK = 1024
"""Slots that pass a sub-layer together; it bounds the working memory of long videos and changes no result."""


@dataclass(frozen=True)
class RefinedTracks:
    """The tracks of a video after the refiner; slot ``q`` is one track over all frames."""

    class_logits: Float[Tensor, "B T Q K1"]
    """The same in every frame: there is one class a track."""
    embeddings: Float[Tensor, "B T Q C"]
    """After the final norm; with a frame's mask features they make its masks."""
    auxiliary: tuple["RefinedTracks", ...] = ()
    """The same heads on the earlier layers, first layer first; filled in training only."""


class TemporalConvolution(nn.Module):
    """LayerNorm(x + convolutions over five, then three frames, with a ReLU between); ends are continued."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(hidden, hidden, 5, padding="same", padding_mode="replicate")
        self.narrow = nn.Conv1d(hidden, hidden, 3, padding="same", padding_mode="replicate")
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
        """Let each frame see its neighbours."""
        return self.norm(x + self.narrow(F.relu(self.wide(x.transpose(1, 2)))).transpose(1, 2))


class RefinerBlock(nn.Module):
    """Attention and convolution over time, attention among tracks, cross-attention, feed-forward; post-norm."""

    def __init__(self, hidden: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.time_attention = SelfAttention(hidden, heads)
        self.convolution = TemporalConvolution(hidden)
        self.self_attention = SelfAttention(hidden, heads)
        self.cross = CrossAttention(hidden, heads)
        self.feedforward = FeedForward(hidden, feedforward)
        for part in (self.time_attention, self.self_attention, self.cross, self.feedforward):
            init_transformer(part)

    def forward(self, x: Float[Tensor, "B T Q C"], queries: Float[Tensor, "B T Q C"]) -> Float[Tensor, "B T Q C"]:
        """One layer; ``queries`` are what the segmenter saw in each frame, in any order."""
        batch = x.shape[0]
        tracks = in_chunks(self.through_time, x.transpose(1, 2).flatten(0, 1))
        frames = tracks.unflatten(0, (batch, -1)).transpose(1, 2).flatten(0, 1)
        return in_chunks(self.within_frames, frames, queries.flatten(0, 1)).unflatten(0, (batch, -1))

    def through_time(self, tracks: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
        """Each track on its own: all of its frames at once."""
        return self.convolution(self.time_attention(tracks))

    def within_frames(self, x: Float[Tensor, "N Q C"], queries: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q C"]:
        """Each frame on its own: all of its tracks at once, then what the segmenter saw."""
        x = self.self_attention(x)
        return self.feedforward(self.cross(x, x, self.cross.attention.project(queries, queries)))


class Refiner(nn.Module):
    """Six blocks over a whole video, with class and mask heads of their own."""

    def __init__(self, *, hidden: int, heads: int, layers: int, feedforward: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RefinerBlock(hidden, heads, feedforward) for _ in range(layers))
        self.heads = Heads(hidden, num_classes)
        self.importance = nn.Linear(hidden, 1)

    def forward(self, embeddings: Float[Tensor, "B T Q C"], queries: Float[Tensor, "B T Q C"]) -> RefinedTracks:
        """Refine the tracks of whole videos.

        ``embeddings`` are the tracker's, after its final norm; ``queries`` are the segmenter's, before its final norm
        and in its own order. Every layer is read in training, only the last one otherwise.
        """
        layers: list[RefinedTracks] = []
        x = embeddings
        for i, block in enumerate(cast("Iterable[RefinerBlock]", self.blocks), start=1):
            x = block(x, queries)
            if self.training or i == len(self.blocks):
                layers.append(self._read(x))
        return replace(layers[-1], auxiliary=tuple(layers[:-1]))

    def masks(
        self, embeddings: Float[Tensor, "*batch Q C"], features: Float[Tensor, "*batch C h w"]
    ) -> Float[Tensor, "*batch Q h w"]:
        """Mask logits of some refined tracks on the grid of ``features``: of one frame, or of a short clip."""
        return self.heads.masks(embeddings, features)

    def predict(self, tracks: ClipPrediction, frames: FramePrediction) -> ClipPrediction:
        """Refine a short clip whose masks may all exist at once, as in training."""
        refined = self(tracks.embeddings, frames.queries)
        layers = [
            LayerPrediction(layer.class_logits, self.masks(layer.embeddings, frames.mask_features))
            for layer in (*refined.auxiliary, refined)
        ]
        return replace(
            tracks,
            class_logits=layers[-1].class_logits,
            mask_logits=layers[-1].mask_logits,
            embeddings=refined.embeddings,
            auxiliary=tuple(layers[:-1]),
        )

    def pool(self, embeddings: Float[Tensor, "B T Q C"]) -> Float[Tensor, "B Q C"]:
        """One embedding a track: the mean over its frames, weighted by a learned importance (softmax over time)."""
        return (self.importance(embeddings).softmax(dim=1) * embeddings).sum(dim=1)

    def _read(self, slots: Float[Tensor, "B T Q C"]) -> RefinedTracks:
        embeddings = self.heads.norm(slots)
        logits = self.heads.classify(self.pool(embeddings))
        return RefinedTracks(logits[:, None].expand(-1, slots.shape[1], -1, -1), embeddings)


def in_chunks(layer: Callable[..., Tensor], *inputs: Float[Tensor, "N L C"]) -> Float[Tensor, "N L C"]:
    """Apply a layer that treats each of N sequences on its own to a few of them at a time."""
    size = max(1, CHUNK // inputs[0].shape[1])
    if len(inputs[0]) <= size:
        return layer(*inputs)
    parts = zip(*(x.split(size) for x in inputs), strict=True)
    if torch.is_grad_enabled():
        return torch.cat([layer(*part) for part in parts])
    whole = torch.empty_like(inputs[0], memory_format=torch.contiguous_format)
    for place, part in zip(whole.split(size), parts, strict=True):  # never the results and their copy at once
        place.copy_(layer(*part))
    return whole
