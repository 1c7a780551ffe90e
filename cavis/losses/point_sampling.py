"""Masks compared at points instead of pixels (PointRend's sampling)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Draw = Callable[[int, int], Tensor] | torch.Generator | None
"""Where points come from: a random stream (None: torch's own), or a function of how many lists of how many points.

The function returns [lists points 2], (x, y) in 0 ... 1. With fixed points a loss is a function of its inputs alone.
"""

Draws = Draw | tuple[Draw, ...]
"""One for all clips of a batch, or one for each: then a clip's points do not depend on the company it is in."""


def of_clip(draws: Draws, clip: int) -> Draw:
    """Where the points of one clip of a batch come from."""
    return draws[clip] if isinstance(draws, tuple) else draws


def of_clips(draws: Draws, counts: Sequence[int]) -> Draw:
    """Where the points of several clips come from whose lists follow each other, ``counts`` of each clip."""
    if not isinstance(draws, tuple):
        return draws
    sources = tuple(zip(draws, counts, strict=True))

    def draw(lists: int, points: int) -> Tensor:
        if lists != sum(counts):
            raise ValueError(f"expected to draw for {sum(counts)} masks of all clips at once, got {lists}")
        return torch.cat([_draw(source, count, points) for source, count in sources])

    return draw


def sample_at(maps: Float[Tensor, "B X h w"], points: Float[Tensor, "B P 2"]) -> Float[Tensor, "B X P"]:
    """Bilinear samples of ``maps`` at ``points`` (x, y in 0 ... 1; zero outside)."""
    return F.grid_sample(maps, 2 * points[:, None] - 1, align_corners=False)[:, :, 0]


def uniform_points(batch: int, points: int, like: Tensor, generator: Draw) -> Float[Tensor, "B P 2"]:
    """Random points in the unit square, or the given ones."""
    return _draw(generator, batch, points).to(like.device)


def _draw(source: Draw, lists: int, points: int) -> Tensor:
    return source(lists, points) if callable(source) else torch.rand(lists, points, 2, generator=source)


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
