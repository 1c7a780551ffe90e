"""The class loss of clips in which some classes are not annotated."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

DUPLICATE = 0.5
"""Overlap with an annotated object from which a mask is another one of that object."""


def without_unknown(
    logits: Float[Tensor, "B T Q K1"],
    wanted: Int[Tensor, "B T Q"],
    unknown: Sequence[Int[Tensor, "_"]],
    known: Bool[Tensor, "B T Q"],
) -> Float[Tensor, "B T Q K1"]:
    """Class logits for a cross-entropy with ``wanted`` that learns nothing of what was not annotated.

    ``wanted`` is K where a query is to say "no object"; ``unknown[b]`` are the labels whose objects may be in clip b
    without being annotated; ``known`` are the queries whose mask is that of an annotated object. Those, and matched
    queries, learn from all classes: what their object is has been said. Of the others the logits of unknown labels
    leave the softmax, so they get no gradient; and one whose best class is unknown may see an object that nobody
    annotated: all but its "no object" leaves, so its loss is 0 without a gradient, and the weights the losses are
    averaged with stay the same.
    """
    no_object = logits.shape[-1] - 1
    leaves = torch.zeros_like(logits, dtype=torch.bool)
    for b, labels in enumerate(unknown):
        leaves[b, ..., labels] = True
    best = logits[..., :no_object].argmax(dim=-1, keepdim=True)
    undecided = leaves.gather(-1, best)
    leaves |= undecided
    leaves[..., no_object] = False
    leaves &= (~known & (wanted == no_object))[..., None]
    return logits.masked_fill(leaves, -torch.inf)


@torch.no_grad()
def on_annotated(mask_logits: Float[Tensor, "T Q h w"], masks: Float[Tensor, "T N H2 W2"]) -> Bool[Tensor, "T Q"]:
    """Which queries' masks overlap an annotated object of their frame by half or more (IoU), seen at stride 4."""
    if masks.shape[1] == 0:
        return mask_logits.new_zeros(mask_logits.shape[:2], dtype=torch.bool)
    found, truth = (mask_logits > 0).flatten(2).float(), masks[..., 2::4, 2::4].flatten(2)
    shared = found @ truth.mT
    either = found.sum(-1)[..., None] + truth.sum(-1)[:, None] - shared
    return (shared / either.clamp(min=1) >= DUPLICATE).any(dim=-1)
