"""Segmentation and tracking quality (STQ; Weber et al., 2021), number for number that of the released evaluation.

STQ is the geometric mean of two qualities: of association (AQ: how well each annotated thing is covered by one and the
same prediction) and of segmentation (SQ: the mean IoU of the classes, which is also the mIoU of semantic data sets).

Axes: K categories (K1 = K + 1: the void comes last), F frames, G annotated and P predicted segments of a video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from cavis.evaluation.panoptic_overlap import ABSENT, PanopticCategory, VideoOverlap


@dataclass(frozen=True)
class StqCounts:
    """What was found in any number of videos; counts of several videos are added with ``+``."""

    confusion: Int[np.ndarray, "K1 K1"]
    """Pixels by annotated (rows) and predicted category; the last one is the void."""
    association: float = 0.0
    """Sum over the annotated tubes of how well each is followed, 0 ... 1."""
    tubes: int = 0
    """How many annotated tubes there are."""

    @classmethod
    def nothing(cls, categories: int) -> "StqCounts":
        """Before the first video."""
        return cls(np.zeros((categories + 1, categories + 1), dtype=np.int64))

    def __add__(self, other: "StqCounts") -> "StqCounts":
        return StqCounts(
            self.confusion + other.confusion, self.association + other.association, self.tubes + other.tubes
        )


class StqMetrics(NamedTuple):
    """Fractions 0 ... 1."""

    stq: float
    aq: float
    """0 where there is no thing to follow."""
    sq: float
    """Mean IoU of the categories; predicting nothing at all where something is annotated counts as one of them."""
    iou: tuple[float, ...]
    """IoU of each category; nan where it is neither annotated nor predicted."""

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the categories alone, as in semantic segmentation; nan if there is none."""
        return _mean_of(np.array(self.iou))


def count_stq(overlap: VideoOverlap, categories: Sequence[PanopticCategory]) -> StqCounts:
    """Count the pixels of one video.

    Only things are associated. As in the released evaluation, the segment that a video's annotations list first counts
    as a crowd if it is a thing: it is not followed, and predictions are not blamed for its pixels. A ValueError for a
    category that is not listed.
    """
    t, g, p = np.nonzero(overlap.shared)
    pixels = overlap.shared[t, g, p]
    truth = _labels(overlap.truth_categories, categories)[t, g]
    predicted = _labels(overlap.predicted_categories, categories)[t, p]
    confusion = StqCounts.nothing(len(categories)).confusion
    np.add.at(confusion, (truth, predicted), pixels)
    thing = np.array([category.isthing for category in categories] + [False])
    first = thing[truth] & (g == 1)
    followed, following = thing[truth] & ~first, thing[predicted] & ~first
    # A segment that changes its category becomes another tube.
    tube, other = g * len(thing) + truth, p * len(thing) + predicted
    return StqCounts(confusion, *_association(tube, other, pixels, followed, following))


def stq(counts: StqCounts) -> StqMetrics:
    """Quality from what has been counted."""
    aq = counts.association / max(counts.tubes, 1)
    iou = class_iou(counts.confusion)
    sq = _mean_of(iou)
    return StqMetrics(float(np.sqrt(aq * sq)), aq, sq, tuple(iou[:-1].tolist()))


def class_iou(confusion: Int[np.ndarray, "K1 K1"]) -> Float[np.ndarray, "K1"]:
    """IoU of each category, pixels that are not annotated left out; nan for what is neither annotated nor predicted.

    The last one is 0, or nan where nothing annotated was left without a prediction.
    """
    counted = confusion.copy()
    counted[-1] = 0
    both = counted.diagonal()
    either = counted.sum(0) + counted.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def semantic_counts(
    truth: Integer[np.ndarray, "H W"], predicted: Integer[np.ndarray, "H W"], categories: int
) -> StqCounts:
    """Count the pixels of one frame of a semantic data set such as VSPW: ``stq(counts).mean_iou`` is its mIoU.

    Labels are 0 ... categories - 1, and any other number (VSPW: 255) for pixels without one. A ValueError if the
    sizes differ.
    """
    if truth.shape != predicted.shape:
        expected, got = (f"{side.shape[0]} x {side.shape[1]}" for side in (truth, predicted))
        raise ValueError(f"expected a prediction of {expected} pixels, got {got}")
    labels = [
        np.where((side >= 0) & (side < categories), side, categories).astype(np.int64) for side in (truth, predicted)
    ]
    size = categories + 1
    confusion = np.bincount((labels[0] * size + labels[1]).ravel(), minlength=size**2).reshape(size, size)
    return StqCounts(confusion)


def _association(
    tube: Int[np.ndarray, "n"],
    other: Int[np.ndarray, "n"],
    pixels: Int[np.ndarray, "n"],
    followed: Bool[np.ndarray, "n"],
    following: Bool[np.ndarray, "n"],
) -> tuple[float, int]:
    """Over all annotated tubes: the sum of how well each is followed, and their number."""
    size = np.bincount(tube[followed], pixels[followed], minlength=int(tube.max(initial=0)) + 1)
    other_size = np.bincount(other[following], pixels[following], minlength=int(other.max(initial=0)) + 1)
    both = followed & following
    pairs, where = np.unique(np.stack([tube[both], other[both]]), axis=1, return_inverse=True)
    shared = np.bincount(where.ravel(), pixels[both], minlength=pairs.shape[1])
    first, second = size[pairs[0]], other_size[pairs[1]]
    return float((shared**2 / (first + second - shared) / first).sum()), int(np.count_nonzero(size))


def _labels(table: Int[np.ndarray, "F N"], categories: Sequence[PanopticCategory]) -> Int[np.ndarray, "F N1"]:
    """The index of each segment's category in each frame; the void comes first, and its index last."""
    void = len(categories)
    indices = {category.id: k for k, category in enumerate(categories)} | {ABSENT: void}
    unknown = [value for value in np.unique(table).tolist() if value not in indices]
    if unknown:
        raise ValueError(f"expected a category of the data set, got {unknown[0]}")
    rows = [[void, *(indices[value] for value in row)] for row in table.tolist()]
    return np.array(rows, dtype=np.int64).reshape(len(table), table.shape[1] + 1)


def _mean_of(values: Float[np.ndarray, "n"]) -> float:
    """Mean of what is defined; nan if nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
