"""The class loss of clips in which some classes are not annotated."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def without_unknown(
    logits: Float[Tensor, "B T Q K1"], wanted: Int[Tensor, "B T Q"], unknown: Sequence[Int[Tensor, "_"]]
) -> Float[Tensor, "B T Q K1"]:
    """Class logits for a cross-entropy with ``wanted`` that learns nothing of a clip's unknown labels.

    ``wanted`` is K where a query is to say "no object"; ``unknown[b]`` are the labels whose objects may be in clip b
    without being annotated. Their logits leave the softmax, so they get no gradient. A query that is to say "no
    object", but whose best class is unknown, may see such an object: all but its "no object" leaves, so its loss is 0
    without a gradient, and the weights the losses are averaged with stay the same. What is wanted never leaves.
    """
    if not any(len(labels) for labels in unknown):
        return logits
    no_object = logits.shape[-1] - 1
    leaves = torch.zeros_like(logits, dtype=torch.bool)
    for b, labels in enumerate(unknown):
        leaves[b, ..., labels] = True
    best = logits[..., :no_object].argmax(dim=-1, keepdim=True)
    undecided = (wanted == no_object) & leaves.gather(-1, best)[..., 0]
    leaves = (leaves | undecided[..., None]).scatter(-1, wanted[..., None], False)
    return logits.masked_fill(leaves, -torch.inf)
