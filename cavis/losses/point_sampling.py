"""Masks compared at points instead of pixels (PointRend's sampling)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Draw = Callable[[int, int], Tensor] | torch.Generator | None
"""Where points come from: a random stream (None: torch's own), or a function of how many lists of how many points.

The function returns [lists points 2], (x, y) in 0 ... 1. With fixed points a loss is a function of its inputs alone.
"""


def sample_at(maps: Float[Tensor, "B X h w"], points: Float[Tensor, "B P 2"]) -> Float[Tensor, "B X P"]:
    """Bilinear samples of ``maps`` at ``points`` (x, y in 0 ... 1; zero outside)."""
    return F.grid_sample(maps, 2 * points[:, None] - 1, align_corners=False)[:, :, 0]


def uniform_points(batch: int, points: int, like: Tensor, generator: Draw) -> Float[Tensor, "B P 2"]:
    """Random points in the unit square, or the given ones."""
    if callable(generator):
        return generator(batch, points).to(like.device)
    return torch.rand(batch, points, 2, generator=generator).to(like.device)


@torch.no_grad()
def uncertain_points(
    logits: Float[Tensor, "M 1 h w"],
    points: int,
    *,
    oversample: float,
    importance: float,
    generator: Draw,
) -> Float[Tensor, "M P 2"]:
    """Points where the masks are least sure of themselves, and some anywhere.

    Of ``oversample * points`` random candidates the ``importance`` share with the smallest ``|logit|`` is kept; the
    rest of the ``points`` are fresh random ones.
    """
    candidates = uniform_points(len(logits), int(points * oversample), logits, generator)
    certainty = sample_at(logits, candidates)[:, 0].abs()
    wanted = int(importance * points)
    chosen = certainty.topk(wanted, dim=1, largest=False).indices
    kept = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat((kept, uniform_points(len(logits), points - wanted, logits, generator)), dim=1)
