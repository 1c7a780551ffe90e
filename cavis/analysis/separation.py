"""How well embeddings tell objects apart, measured in all their dimensions.

Rows are compared within their clip only, for that is where identities have to be told apart. With ``lookalikes`` they
are compared within clip *and* true category: how well are objects told apart that look the same? What is uncertain is
which clips were drawn, so intervals come from resampling whole clips (frames of one clip are no independent draws).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from sklearn.metrics import silhouette_samples

from cavis.analysis.collect import NOBODY, Layer, column, rows_where, unit_length, vectors

NEIGHBOURS = 5
RESAMPLES = 2000
FEWEST_CLIPS = 5
"""Resampling fewer clips than these says nothing."""


@dataclass(frozen=True)
class Measured:
    """A mean over clips, and the middle 95 % of what other draws of as many clips would have given."""

    value: float
    low: float | None
    high: float | None
    clips: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f} ({self.clips} clips)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.clips} clips)"


@dataclass(frozen=True)
class Separation:
    """How well the objects of some clips are told apart by one layer; clip by clip, NaN where nothing can be said."""

    layer: str
    clips: tuple[str, ...]
    silhouettes: Float[np.ndarray, "V"]
    purities: Float[np.ndarray, "V"]

    @property
    def silhouette(self) -> Measured:
        """Mean silhouette of the identities, -1 ... 1: 1 where each is a clump far from the others."""
        return mean_over_clips(self.silhouettes)

    @property
    def purity(self) -> Measured:
        """Share of a row's nearest neighbours that show the same object, 0 ... 1."""
        return mean_over_clips(self.purities)


def separation(
    table: pd.DataFrame, layer: Layer, *, k: int = NEIGHBOURS, gap: int = 0, lookalikes: bool = False
) -> Separation:
    """Silhouette and k-NN identity purity of every clip of an annotated table, by cosine.

    Rows that show no annotated object are left out. ``gap``: rows at most so many frames apart do not count as
    neighbours; a row never is its own. A clip counts where at least two identities are to be told apart.
    """
    if k < 1 or gap < 0:
        raise ValueError(f"expected at least 1 neighbour and a gap of at least 0 frames, got {k} and {gap}")
    clips = tuple(dict.fromkeys(column(table, "clip").tolist()))
    scores = np.full((len(clips), 2), np.nan)
    for place, clip in enumerate(clips):
        known = rows_where(table, (column(table, "clip") == clip) & (column(table, "identity") != NOBODY))
        kinds = column(known, "true_category")
        groups = [rows_where(known, kinds == kind) for kind in np.unique(kinds)] if lookalikes else [known]
        samples = [_samples(part, layer, k, gap) for part in groups if len(np.unique(column(part, "identity"))) > 1]
        for measure, rows in enumerate(zip(*samples, strict=True)):
            scores[place, measure] = _mean(np.concatenate(rows))
    return Separation(layer, clips, scores[:, 0], scores[:, 1])


def difference(first: Separation, second: Separation) -> tuple[Measured, Measured]:
    """By how much ``first`` is better than ``second``, clip by clip: in silhouette and in purity.

    Both are of the same clips, so the interval is that of the difference: narrower than those of the two values.
    """
    if first.clips != second.clips:
        raise ValueError(f"expected two separations of the same clips, got {len(first.clips)} and {len(second.clips)}")
    silhouettes, purities = first.silhouettes - second.silhouettes, first.purities - second.purities
    return mean_over_clips(silhouettes), mean_over_clips(purities)


def mean_over_clips(values: Float[np.ndarray, "V"], seed: int = 0) -> Measured:
    """Mean with its bootstrap interval; clips that are NaN do not count, and fewer than five have no interval."""
    known = values[np.isfinite(values)]
    if len(known) < FEWEST_CLIPS:
        return Measured(_mean(known), None, None, len(known))
    draws = np.random.default_rng(seed).integers(0, len(known), (RESAMPLES, len(known)))
    low, high = np.quantile(known[draws].mean(axis=1), (0.025, 0.975))
    return Measured(_mean(known), float(low), float(high), len(known))


def nearest(
    vectors: Float[np.ndarray, "N D"], k: int = NEIGHBOURS, allowed: Bool[np.ndarray, "N N"] | None = None
) -> tuple[Int[np.ndarray, "N k"], Float[np.ndarray, "N k"]]:
    """The ``k`` most similar other rows of each row, best first, and their cosine similarities.

    ``allowed``: which pairs count. Where there are fewer than ``k``, the rest is -1 and NaN.
    """
    unit = unit_length(vectors)
    likeness = unit @ unit.T
    forbidden = np.eye(len(unit), dtype=bool) if allowed is None else ~allowed | np.eye(len(unit), dtype=bool)
    likeness[forbidden] = -np.inf
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(likeness, order, axis=1)
    missing = np.isneginf(best)
    padding = ((0, 0), (0, k - order.shape[1]))
    numbers = np.pad(np.where(missing, -1, order), padding, constant_values=-1)
    return numbers, np.pad(np.where(missing, np.nan, best), padding, constant_values=np.nan)


def purity(
    vectors: Float[np.ndarray, "N D"],
    identities: Int[np.ndarray, "N"],
    k: int = NEIGHBOURS,
    allowed: Bool[np.ndarray, "N N"] | None = None,
) -> Float[np.ndarray, "N"]:
    """For each row the share of its ``k`` nearest rows that have its identity; NaN where it has no neighbour."""
    numbers, _ = nearest(vectors, k, allowed)
    there = numbers >= 0
    same = there & (identities[numbers] == identities[:, None])
    counts = there.sum(axis=1)
    return np.where(counts > 0, same.sum(axis=1) / np.maximum(counts, 1), np.nan)


def _samples(
    rows: pd.DataFrame, layer: Layer, k: int, gap: int
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Silhouette and purity of each row among some rows of one clip."""
    values, identities, frames = vectors(rows, layer), column(rows, "identity"), column(rows, "frame")
    apart = np.abs(frames[:, None] - frames) > gap if gap else None
    silhouettes = np.full(len(rows), np.nan)
    if len(np.unique(identities)) < len(rows):
        silhouettes[:] = silhouette_samples(values, identities, metric="cosine")
    return silhouettes, purity(values, identities, k, apart)


def _mean(values: Float[np.ndarray, "N"]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
