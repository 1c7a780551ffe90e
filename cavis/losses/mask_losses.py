"""Cross-entropy and dice between masks at sampled points: as a loss for matched pairs, as a cost for all pairs."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def mask_cross_entropy(logits: Float[Tensor, "M P"], truth: Float[Tensor, "M P"]) -> Float[Tensor, "M"]:
    """L_Bce of Eq. 2, one value a mask: the mean over its points."""
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=1)


def dice(logits: Float[Tensor, "M P"], truth: Float[Tensor, "M P"]) -> Float[Tensor, "M"]:
    """L_Dice of Eq. 2, one value a mask: 1 - (2⟨p, t⟩ + 1) / (Σp + Σt + 1)."""
    probability = logits.sigmoid()
    overlap = (probability * truth).sum(dim=1)
    return 1 - (2 * overlap + 1) / (probability.sum(dim=1) + truth.sum(dim=1) + 1)


def pairwise_mask_cross_entropy(
    logits: Float[Tensor, "*batch Q P"], truth: Float[Tensor, "*batch N P"]
) -> Float[Tensor, "*batch Q N"]:
    """:func:`mask_cross_entropy` of every query with every object, as one matrix product.

    BCE is softplus(x) - x t, so only the second part depends on the pair.
    """
    product = torch.einsum("...qp,...np->...qn", logits, truth)
    return (F.softplus(logits).sum(dim=-1)[..., None] - product) / logits.shape[-1]


def pairwise_dice(
    logits: Float[Tensor, "*batch Q P"], truth: Float[Tensor, "*batch N P"]
) -> Float[Tensor, "*batch Q N"]:
    """:func:`dice` of every query with every object."""
    probability = logits.sigmoid()
    overlap = torch.einsum("...qp,...np->...qn", probability, truth)
    size = probability.sum(dim=-1)[..., :, None] + truth.sum(dim=-1)[..., None, :]
    return 1 - (2 * overlap + 1) / (size + 1)
