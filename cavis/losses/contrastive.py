"""Contrastive terms: the same instance alike across frames, different instances apart (Eq. 4, 8, 11).

One form serves all of them. With a·b the plain dot product, the second line of Eq. 4 is

    log(1 + Σ_p Σ_n exp(a·n - a·p)) = softplus( LSE_n(a·n) + LSE_p(-a·p) ),

so one Gram matrix and two masked log-sum-exps do the work of all the pairs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cavis.losses.totals import Total, alone


class Instances(NamedTuple):
    """Features of instances seen in frames, and who is who."""

    features: Float[Tensor, "M C"]
    identity: Int[Tensor, "M"]
    """Equal for the same object of the same clip."""
    frame: Int[Tensor, "M"]
    clip: Int[Tensor, "M"]
    """Pairs are made inside a clip only."""


class Contrast(NamedTuple):
    """The two numbers of one contrastive term."""

    loss: Float[Tensor, ""]
    """Eq. 4: summed over the anchors of an identity, averaged over the identities of the step."""
    cosine: Float[Tensor, ""]
    """Mean squared distance of cosines from 1 (same) and 0 (different); not in the paper."""


def contrast(instances: Instances, *, self_positive: bool = False, total: Total = alone) -> Contrast:
    """L_Emb of Eq. 4 over all anchors that have a positive and a negative.

    A positive is the same identity in another frame; with ``self_positive`` the anchor counts too, as released.
    """
    features, same, other = instances.features, *_pairs(instances, self_positive)
    anchors = (same.any(dim=1) & other.any(dim=1)).nonzero()[:, 0]
    identity = instances.identity[anchors]
    identities = total(features.new_tensor(float(len(identity.unique())))).clamp(min=1)
    if len(anchors) == 0:
        nothing = features.sum() * 0  # keeps every parameter in the graph
        return Contrast(nothing, nothing)
    same, other = same[anchors], other[anchors]
    gram = features[anchors] @ features.T
    attract = torch.where(same, -gram, -torch.inf).logsumexp(dim=1)
    repel = torch.where(other, gram, -torch.inf).logsumexp(dim=1)
    loss = F.softplus(attract + repel).sum()
    cosine = _cosine_regression(features, anchors, same, other, identity)
    return Contrast(loss / identities, cosine / identities)


def _pairs(instances: Instances, self_positive: bool) -> tuple[Bool[Tensor, "M M"], Bool[Tensor, "M M"]]:
    """Which pairs are positive, which negative."""
    clip = instances.clip[:, None] == instances.clip
    identity = instances.identity[:, None] == instances.identity
    same = clip & identity
    if not self_positive:
        same = same & (instances.frame[:, None] != instances.frame)
    return same, clip & ~identity


def _cosine_regression(
    features: Float[Tensor, "M C"],
    anchors: Int[Tensor, "A"],
    same: Bool[Tensor, "A M"],
    other: Bool[Tensor, "A M"],
    identity: Int[Tensor, "A"],
) -> Float[Tensor, ""]:
    """Mean over the pairs of an identity, then summed over identities."""
    unit = F.normalize(features, dim=-1)
    error = (unit[anchors] @ unit.T - same.float()).square() * (same | other)
    row = error.sum(dim=1) / (same | other).sum(dim=1)
    _, group, size = identity.unique(return_inverse=True, return_counts=True)
    return (row / size[group]).sum()


def prototypes(features: Float[Tensor, "T C h w"], weights: Float[Tensor, "T N h w"]) -> Float[Tensor, "T N C"]:
    """η of Eq. 11: the mean pixel feature of each object, ``weights`` saying how much each pixel belongs to it."""
    total = torch.einsum("tchw,tnhw->tnc", features, weights)
    return total / weights.sum(dim=(-2, -1)).clamp(min=1e-6)[..., None]


def track_contrast(references: Float[Tensor, "R Q C"], slots: Int[Tensor, "N"]) -> Contrast:
    """The released tracker's term: a track's query resembles itself in the neighbouring frames, and no other track.

    With one positive, Eq. 4 is the cross-entropy of the similarities to all slots.
    """
    losses, cosines = [], []
    unit = F.normalize(references, dim=-1)
    truth = F.one_hot(slots, references.shape[1]).to(references.dtype)
    for i in range(1, len(references)):
        for j in (i - 1, i + 1):
            if j < len(references) and len(slots):
                logits = references[i, slots] @ references[j].T
                losses.append(F.cross_entropy(logits, slots, reduction="none"))
                cosines.append((unit[i, slots] @ unit[j].T - truth).square().mean(dim=1))
    if not losses:
        nothing = references.sum() * 0
        return Contrast(nothing, nothing)
    return Contrast(torch.cat(losses).mean(), torch.cat(cosines).mean())
