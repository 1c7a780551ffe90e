"""The cuts at zero of a golden set, as the released code made them."""

from contextlib import AbstractContextManager

import torch
from borderline import Agrees, Look, Sides, on_sides, settle
from golden_sets import Golden
from tolerances import is_close, logits_are_close

from cavis.model import Cavis
from cavis.model.pixel_decoder import PixelFeatures
from cavis.model.segmenter import Segmenter

_known: dict[str, Sides] = {}


def as_released(stored: Golden, model: Cavis) -> AbstractContextManager[None]:
    """Let ``model`` see the set's clip from its first frame on, mask logits next to zero on the released side."""
    if stored.name not in _known:
        _known[stored.name] = settle(model.segmenter, features(stored, model.segmenter), agreement(stored))
    return on_sides(model.segmenter, _known[stored.name])


@torch.no_grad()
def features(stored: Golden, segmenter: Segmenter) -> PixelFeatures:
    """What the query decoder sees: stored, or made of the set's frames."""
    if "pixel_decoder.mask_features" in stored:
        levels = tuple(stored[f"pixel_decoder.multi_scale_{i}"] for i in range(3))
        return PixelFeatures(levels, stored["pixel_decoder.mask_features"])
    normal = segmenter.normalise(stored["frames_u8"].permute(0, 3, 1, 2))
    return segmenter.pixel_decoder(segmenter.backbone(normal))


def agreement(stored: Golden) -> Agrees:
    """Compares a frame with what the set has of it."""
    part = "decoder" if "decoder.pred_logits" in stored else "seg"
    masks = stored[f"{part}.pred_masks"][0].transpose(0, 1)
    queries = by_frame(stored[f"{part}.pred_embds_without_norm"])
    context = context_of(stored)

    def agrees(seen: Look, t: int) -> bool:
        return (
            is_close(seen.steps[-1][0], queries[t], queries.abs().max().item())
            and logits_are_close(seen.masks[0], masks[t])
            and (context is None or is_close(seen.context[0, :, 0], context[t], context.abs().max().item()))
        )

    return agrees


def context_of(stored: Golden) -> torch.Tensor | None:
    """The first channel of the context, [T Q]; all others are the same."""
    if "decoder.context_Qtilde" in stored:
        return stored["decoder.context_Qtilde"][..., 0].T
    return stored["seg.context_Qtilde__ch0"].T if "seg.context_Qtilde__ch0" in stored else None


def by_frame(x: torch.Tensor) -> torch.Tensor:
    """[1 C T Q] -> [T Q C]."""
    return x[0].permute(1, 2, 0)
