"""YouTube-VIS average precision and recall, number for number those of the released evaluation.

A prediction meets the annotated tracks of its own video and category. In the order of the scores it takes the
best-overlapping one that is still free and is right if there is one; the precision-recall curve over all videos is
averaged over 101 recalls, ten IoU thresholds and the categories. Crowds, and objects outside a size range, are
"ignored": meeting one counts neither for nor against.

Axes of the arrays: T thresholds, R recalls, K categories, A size ranges, M limits on the number of predictions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from cavis.evaluation.masks import TrackMasks, video_iou
from cavis.evaluation.matching import Groups, Matches, match
from cavis.records import Rle

THRESHOLDS: Float[np.ndarray, "T"] = np.linspace(0.5, 0.95, 10)
"""IoU from which a prediction is right."""
RECALLS: Float[np.ndarray, "R"] = np.linspace(0.0, 1.0, 101)
"""Recalls at which the precision is read."""
SIZE_RANGES: tuple[tuple[float, float], ...] = ((0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10))
"""All, small, medium, large: mean area in pixels, both ends included."""
LIMITS: tuple[int, ...] = (1, 10, 100)
"""How many predictions of one video and category count."""


@dataclass(frozen=True)
class GroundTruthTrack:
    """One annotated object."""

    video_id: int
    category_id: int
    masks: tuple[Rle | None, ...] = field(repr=False)
    """One entry a frame; None where the object is not annotated."""
    iscrowd: bool = False
    area: float | None = None
    """Mean of the annotated areas over the frames where they are not zero; None: measured from the masks."""


@dataclass(frozen=True)
class PredictedTrack:
    """One predicted object."""

    video_id: int
    category_id: int
    score: float
    masks: tuple[Rle | None, ...] = field(repr=False)
    """One entry a frame; None (or an empty mask) where the object is not seen."""


@dataclass(frozen=True)
class CategoryMetrics:
    """The numbers of one category; -1 where it has no object to find."""

    id: int
    name: str
    objects: int
    """Annotated objects that count (crowds do not)."""
    ap: float
    ap50: float
    ap75: float
    ar1: float
    ar10: float


@dataclass(frozen=True)
class VisMetrics:
    """Average precision and recall, fractions 0 ... 1; -1 where there is no object to find.

    ``ap...`` and ``ar_...`` allow 100 predictions a video and category, ``ar1`` and ``ar10`` as many as they say.
    The sizes are those of the YouTube-VIS evaluation: 128² and 256² pixels part small, medium and large.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_category: tuple[CategoryMetrics, ...]
    precision: Float[np.ndarray, "T R K A M"] = field(repr=False)
    recall: Float[np.ndarray, "T K A M"] = field(repr=False)


def average_precision(
    ground_truth: Sequence[GroundTruthTrack],
    predictions: Sequence[PredictedTrack],
    categories: Mapping[int, str] | None = None,
) -> VisMetrics:
    """Compare predicted with annotated tracks.

    ``categories`` maps the data set's category ids to names; None: the ids found in the ground truth. Predictions of
    other categories are left out. Where scores tie, the order of ``predictions`` decides, as in the released code.
    A ValueError where the masks of a video differ in number or size.
    """
    if categories is None:
        categories = {track.category_id: str(track.category_id) for track in ground_truth}
    ids = sorted(categories)
    cells = _cells(ground_truth, predictions, set(ids))
    groups = _pad(cells)
    matches = match(groups, THRESHOLDS)
    precision = np.full((len(THRESHOLDS), len(RECALLS), len(ids), len(SIZE_RANGES), len(LIMITS)), -1.0)
    recall = np.full((len(THRESHOLDS), len(ids), len(SIZE_RANGES), len(LIMITS)), -1.0)
    positives = np.zeros((len(ids), len(SIZE_RANGES)), dtype=np.int64)
    for k, category in enumerate(ids):
        rows = [row for row, cell in enumerate(cells) if cell.category_id == category]
        positives[k] = (~groups.truth_ignored[rows]).sum((0, 2))
        for m, limit in enumerate(LIMITS):
            ranked = _rank([cells[row] for row in rows], rows, matches, limit)
            precision[:, :, k, :, m], recall[:, k, :, m] = _curves(*ranked, positives[k])
    return _summarise({id_: categories[id_] for id_ in ids}, positives[:, 0], precision, recall)


@dataclass(frozen=True)
class _Cell:
    """One video and one category: the predictions by descending score, and what they are compared with."""

    category_id: int
    scores: Float[np.ndarray, "D"]
    predicted_areas: Float[np.ndarray, "D"]
    truth_areas: Float[np.ndarray, "G"]
    truth_crowd: Bool[np.ndarray, "G"]
    iou: Float[np.ndarray, "D G"]


def _cells(
    ground_truth: Sequence[GroundTruthTrack], predictions: Sequence[PredictedTrack], category_ids: set[int]
) -> list[_Cell]:
    """Every video and category that has a track, by video id, then by category id."""
    videos: dict[int, tuple[list[GroundTruthTrack], list[PredictedTrack]]] = {}
    for truth in ground_truth:
        videos.setdefault(truth.video_id, ([], []))[0].append(truth)
    for prediction in predictions:
        videos.setdefault(prediction.video_id, ([], []))[1].append(prediction)
    cells: list[_Cell] = []
    for video_id in sorted(videos):
        try:
            cells.extend(_video_cells(*videos[video_id], category_ids))
        except ValueError as error:
            raise ValueError(f"video {video_id}: {error}") from error
    return cells


def _video_cells(
    truths: list[GroundTruthTrack], predictions: list[PredictedTrack], category_ids: set[int]
) -> list[_Cell]:
    truth_ids = np.array([track.category_id for track in truths], dtype=np.int64)
    predicted_ids = np.array([track.category_id for track in predictions], dtype=np.int64)
    kinds = np.unique(np.concatenate([truth_ids, predicted_ids]))
    truth_masks = TrackMasks.measure([track.masks for track in truths], np.searchsorted(kinds, truth_ids))
    predicted_masks = TrackMasks.measure([track.masks for track in predictions], np.searchsorted(kinds, predicted_ids))
    measured = truth_masks.mean_areas
    areas = np.array([m if track.area is None else track.area for track, m in zip(truths, measured, strict=True)])
    crowd = np.array([track.iscrowd for track in truths], dtype=bool)
    scores = np.array([track.score for track in predictions], dtype=np.float64)
    predicted_areas = predicted_masks.mean_areas
    iou = video_iou(predicted_masks, truth_masks, THRESHOLDS[0])  # a lower one never matches
    cells = []
    for category in sorted(category_ids.intersection(kinds.tolist())):
        g = np.flatnonzero(truth_ids == category)
        d = np.flatnonzero(predicted_ids == category)
        d = d[np.argsort(-scores[d], kind="stable")][: LIMITS[-1]]
        cells.append(_Cell(category, scores[d], predicted_areas[d], areas[g], crowd[g], iou[d[:, None], g]))
    return cells


def _pad(cells: Sequence[_Cell]) -> Groups:
    """Stack cells of different sizes; padding is ignored truth and predictions that are never reached."""
    predicted_counts = np.array([cell.iou.shape[0] for cell in cells], dtype=np.int64)
    truth_counts = np.array([cell.iou.shape[1] for cell in cells], dtype=np.int64)
    number, depth, width = len(cells), int(predicted_counts.max(initial=0)), int(truth_counts.max(initial=0))
    iou = np.zeros((number, depth, width))
    crowd = np.zeros((number, width), dtype=bool)
    truth_ignored = np.ones((number, len(SIZE_RANGES), width), dtype=bool)
    outside = np.ones((number, len(SIZE_RANGES), depth), dtype=bool)
    for v, cell in enumerate(cells):
        d, g = cell.iou.shape
        iou[v, :d, :g] = cell.iou
        crowd[v, :g] = cell.truth_crowd
        truth_ignored[v, :, :g] = _outside(cell.truth_areas) | cell.truth_crowd
        outside[v, :, :d] = _outside(cell.predicted_areas)
    return Groups(iou, crowd, truth_ignored, truth_counts, predicted_counts, outside)


def _outside(areas: Float[np.ndarray, "N"]) -> Bool[np.ndarray, "A N"]:
    low, high = np.array(SIZE_RANGES, dtype=np.float64).T[:, :, None]
    return (areas < low) | (areas > high)


def _rank(
    cells: Sequence[_Cell], rows: Sequence[int], matches: Matches, limit: int
) -> tuple[Bool[np.ndarray, "A T D"], Bool[np.ndarray, "A T D"]]:
    """Right and wrong predictions of one category, over all videos by descending score (stable)."""
    counts = [min(limit, len(cell.scores)) for cell in cells]
    shape = (*matches.correct.shape[1:3], 0)
    correct = [matches.correct[row, ..., :count] for row, count in zip(rows, counts, strict=True)]
    ignored = [matches.ignored[row, ..., :count] for row, count in zip(rows, counts, strict=True)]
    scores = np.concatenate([np.zeros(0), *(cell.scores[:count] for cell, count in zip(cells, counts, strict=True))])
    order = np.argsort(-scores, kind="stable")
    hit = np.concatenate([np.zeros(shape, dtype=bool), *correct], axis=-1)[..., order]
    counted = ~np.concatenate([np.zeros(shape, dtype=bool), *ignored], axis=-1)[..., order]
    return hit & counted, ~hit & counted


def _curves(
    right: Bool[np.ndarray, "A T D"], wrong: Bool[np.ndarray, "A T D"], positives: Int[np.ndarray, "A"]
) -> tuple[Float[np.ndarray, "T R A"], Float[np.ndarray, "T A"]]:
    """Precision at each recall, and the highest recall; -1 in a size range without an object to find."""
    ranges, thresholds, number = right.shape
    precision = np.full((thresholds, len(RECALLS), ranges), -1.0)
    recall = np.full((thresholds, ranges), -1.0)
    true, false = right.cumsum(-1), wrong.cumsum(-1)
    share = true / (true + false + np.spacing(1))
    envelope = np.maximum.accumulate(share[..., ::-1], axis=-1)[..., ::-1]
    # Beyond the highest recall reached, the precision is 0.
    envelope = np.concatenate([envelope, np.zeros((ranges, thresholds, 1))], axis=-1)
    for a in np.flatnonzero(positives):
        reached = true[a] / positives[a]
        recall[:, a] = reached[:, -1] if number else 0.0
        for t in range(thresholds):
            precision[t, :, a] = envelope[a, t, np.searchsorted(reached[t], RECALLS, side="left")]
    return precision, recall


def _summarise(
    categories: Mapping[int, str],
    objects: Int[np.ndarray, "K"],
    precision: Float[np.ndarray, "T R K A M"],
    recall: Float[np.ndarray, "T K A M"],
) -> VisMetrics:
    half, three_quarters = 0, 5  # where THRESHOLDS is .50 and .75
    table = tuple(
        CategoryMetrics(
            id=id_,
            name=name,
            objects=int(objects[k]),
            ap=_mean(precision[:, :, k, 0, -1]),
            ap50=_mean(precision[half, :, k, 0, -1]),
            ap75=_mean(precision[three_quarters, :, k, 0, -1]),
            ar1=_mean(recall[:, k, 0, 0]),
            ar10=_mean(recall[:, k, 0, 1]),
        )
        for k, (id_, name) in enumerate(categories.items())
    )
    return VisMetrics(
        ap=_mean(precision[..., 0, -1]),
        ap50=_mean(precision[half, ..., 0, -1]),
        ap75=_mean(precision[three_quarters, ..., 0, -1]),
        ap_small=_mean(precision[..., 1, -1]),
        ap_medium=_mean(precision[..., 2, -1]),
        ap_large=_mean(precision[..., 3, -1]),
        ar1=_mean(recall[..., 0, 0]),
        ar10=_mean(recall[..., 0, 1]),
        ar100=_mean(recall[..., 0, 2]),
        ar_small=_mean(recall[..., 1, -1]),
        ar_medium=_mean(recall[..., 2, -1]),
        ar_large=_mean(recall[..., 3, -1]),
        per_category=table,
        precision=precision,
        recall=recall,
    )


def _mean(values: Float[np.ndarray, "..."]) -> float:
    """Mean of what is defined (-1 is not); -1 if nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
