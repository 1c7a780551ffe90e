"""Video panoptic quality (VPQ; Kim et al., 2020), number for number that of the evaluation released with VIPSeg.

A window of k frames slides over a video. In each window an annotated and a predicted tube of one category belong
together if their IoU exceeds 1/2, not counting pixels that nobody annotated. The quality of a category is the mean IoU
of what belongs together, lowered by what is left over on either side.

Where that evaluation breaks off: a window length with nothing to count (all videos are shorter) is left out of the
means, and an IoU above 1 (the annotated area is less than the pixels) counts as 1.

Axes: W window lengths, K categories, n windows of one length, G annotated and P predicted segments of a video.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from cavis.evaluation.panoptic_overlap import ABSENT, PanopticCategory, VideoOverlap

WINDOWS = (1, 2, 4, 6, 8)
"""Lengths of the windows in frames."""


@dataclass(frozen=True)
class TubeCounts:
    """What became of the tubes of any number of videos; counts of several videos are added with ``+``."""

    iou: Float[np.ndarray, "W K"]
    """Sum over the pairs that belong together."""
    matched: Int[np.ndarray, "W K"]
    """Number of those pairs (true positives)."""
    spurious: Int[np.ndarray, "W K"]
    """Predicted tubes left over (false positives)."""
    missed: Int[np.ndarray, "W K"]
    """Annotated tubes left over (false negatives)."""

    @classmethod
    def nothing(cls, categories: int) -> "TubeCounts":
        """Before the first video."""
        shape = (len(WINDOWS), categories)
        return cls(np.zeros(shape), *np.zeros((3, *shape), dtype=np.int64))

    def __add__(self, other: "TubeCounts") -> "TubeCounts":
        return TubeCounts(
            self.iou + other.iou,
            self.matched + other.matched,
            self.spurious + other.spurious,
            self.missed + other.missed,
        )


class Quality(NamedTuple):
    """Panoptic quality and its two factors, fractions 0 ... 1."""

    pq: float
    sq: float
    """Segmentation quality: mean IoU of the tubes that belong together."""
    rq: float
    """Recognition quality: the F1 score of finding them."""


class CategoryQuality(NamedTuple):
    """One category in windows of one length; all zeros where there is neither truth nor prediction."""

    category: PanopticCategory
    quality: Quality
    matched: int
    spurious: int
    missed: int

    @property
    def counts(self) -> bool:
        """Whether the category enters the means."""
        return self.matched + self.spurious + self.missed > 0


class WindowQuality(NamedTuple):
    """Windows of one length: means over the categories that are annotated or predicted in any of them.

    Without such a category (among things, or stuff) they are nan.
    """

    frames: int
    all: Quality
    things: Quality
    stuff: Quality
    per_category: tuple[CategoryQuality, ...]


@dataclass(frozen=True)
class VpqMetrics:
    """Video panoptic quality, fractions 0 ... 1: means over the lengths of window that are not nan; nan if all are."""

    vpq: float
    vpq_things: float
    vpq_stuff: float
    windows: tuple[WindowQuality, ...]


def count_tubes(overlap: VideoOverlap, categories: Sequence[PanopticCategory]) -> TubeCounts:
    """Compare the tubes of one video in all its windows; a length beyond the video's contributes nothing.

    A prediction more than half of which lies on void, or on crowds of its category, is left out; crowds are never
    missed. Pixels of an annotated segment that its window does not list are no void. A ValueError for a category that
    is not listed.
    """
    labels = {category.id: k for k, category in enumerate(categories)} | {ABSENT: ABSENT}
    truth = _labelled(overlap.truth_categories, labels)
    predicted = _labelled(overlap.predicted_categories, labels)
    counts = TubeCounts.nothing(len(categories))
    for w, length in enumerate(WINDOWS):
        if length <= len(overlap.shared):
            _count_windows(_tubes(overlap, truth, predicted, length), TubeCounts(*(one[w] for one in _arrays(counts))))
    return counts


def summarise(counts: TubeCounts, categories: Sequence[PanopticCategory]) -> VpqMetrics:
    """Quality from what has been counted; ``categories`` as given to :func:`count_tubes`."""
    windows = []
    for w, length in enumerate(WINDOWS):
        rows = tuple(
            _category_quality(category, *(one[w, k].item() for one in _arrays(counts)))
            for k, category in enumerate(categories)
        )
        things = [row for row in rows if row.category.isthing]
        stuff = [row for row in rows if not row.category.isthing]
        windows.append(WindowQuality(length, _mean(rows), _mean(things), _mean(stuff), rows))
    return VpqMetrics(
        vpq=_mean_pq([window.all for window in windows]),
        vpq_things=_mean_pq([window.things for window in windows]),
        vpq_stuff=_mean_pq([window.stuff for window in windows]),
        windows=tuple(windows),
    )


class _Tubes(NamedTuple):
    """The tubes of all windows of one length; labels are -1 where the window does not have the segment."""

    shared: Int[np.ndarray, "n G P"]
    on_void: Int[np.ndarray, "n P"]
    truth_areas: Int[np.ndarray, "n G"]
    truth_labels: Int[np.ndarray, "n G"]
    truth_crowd: Bool[np.ndarray, "n G"]
    predicted_areas: Int[np.ndarray, "n P"]
    predicted_labels: Int[np.ndarray, "n P"]


def _tubes(
    overlap: VideoOverlap, truth: Int[np.ndarray, "F G"], predicted: Int[np.ndarray, "F P"], length: int
) -> _Tubes:
    shared = _window_sums(overlap.shared, length)
    # What a tube is (its category, whether it is a crowd) is said by the first of the window's frames that lists it.
    first = _first_listed(truth != ABSENT, length)
    return _Tubes(
        shared=shared[:, 1:, 1:],
        on_void=shared[:, 0, 1:],
        truth_areas=_window_sums(overlap.truth_areas, length),
        truth_labels=np.take_along_axis(truth, first, 0),
        truth_crowd=np.take_along_axis(overlap.truth_crowd, first, 0),
        predicted_areas=shared[:, :, 1:].sum(1),
        predicted_labels=np.take_along_axis(predicted, _first_listed(predicted != ABSENT, length), 0),
    )


def _count_windows(tubes: _Tubes, counts: TubeCounts) -> None:
    """Add what becomes of the tubes to the counts (of one length)."""
    truth, predicted = tubes.truth_labels, tubes.predicted_labels
    same = (truth[:, :, None] == predicted[:, None]) & (truth != ABSENT)[:, :, None]
    crowd = tubes.truth_crowd & (truth != ABSENT)
    union = (tubes.predicted_areas - tubes.on_void)[:, None] + tubes.truth_areas[:, :, None] - tubes.shared
    iou = np.minimum(tubes.shared / np.maximum(union, 1), 1)
    pairs = same & ~crowd[:, :, None] & (iou > 0.5)
    n, g, _ = np.nonzero(pairs)
    np.add.at(counts.iou, truth[n, g], iou[pairs])
    np.add.at(counts.matched, truth[n, g], 1)
    missed = (truth != ABSENT) & ~crowd & ~pairs.any(2)
    np.add.at(counts.missed, truth[missed], 1)
    excused = tubes.on_void + (tubes.shared * (same & crowd[:, :, None])).sum(1)
    left = (predicted != ABSENT) & ~pairs.any(1)
    spurious = left & (excused / np.maximum(tubes.predicted_areas, 1) <= 0.5)
    np.add.at(counts.spurious, predicted[spurious], 1)


def _window_sums(values: Int[np.ndarray, "F ..."], length: int) -> Int[np.ndarray, "n ..."]:
    total = np.concatenate([np.zeros_like(values[:1]), values.cumsum(0)])
    return total[length:] - total[:-length]


def _first_listed(listed: Bool[np.ndarray, "F N"], length: int) -> Int[np.ndarray, "n N"]:
    """The first frame of each window in which a segment is listed (the window's first one where it never is)."""
    windows = sliding_window_view(listed, length, axis=0)
    return windows.argmax(-1) + np.arange(len(windows))[:, None]


def _labelled(categories: Int[np.ndarray, "F N"], labels: dict[int, int]) -> Int[np.ndarray, "F N"]:
    values, where = np.unique(categories, return_inverse=True)
    unknown = [value for value in values.tolist() if value not in labels]
    if unknown:
        raise ValueError(f"expected a category of the data set, got {unknown[0]}")
    return np.array([labels[value] for value in values.tolist()], dtype=np.int64)[where].reshape(categories.shape)


def _category_quality(
    category: PanopticCategory, iou: float, matched: int, spurious: int, missed: int
) -> CategoryQuality:
    weight = matched + (spurious + missed) / 2
    quality = Quality(iou / weight, iou / max(matched, 1), matched / weight) if weight else Quality(0.0, 0.0, 0.0)
    return CategoryQuality(category, quality, matched, spurious, missed)


def _mean(rows: Sequence[CategoryQuality]) -> Quality:
    counted = [row.quality for row in rows if row.counts]
    return Quality(*np.mean(counted, axis=0).tolist()) if counted else Quality(math.nan, math.nan, math.nan)


def _mean_pq(qualities: Sequence[Quality]) -> float:
    counted = [quality.pq for quality in qualities if not math.isnan(quality.pq)]
    return float(np.mean(counted)) if counted else math.nan


def _arrays(counts: TubeCounts) -> tuple[np.ndarray, ...]:
    return counts.iou, counts.matched, counts.spurious, counts.missed
