"""Coverage: how well the best of the predicted tracks covers each annotated object, whatever its category and score.

Average best overlap (ABO; Uijlings et al., "Selective Search for Object Recognition", IJCV 2013) with whole tracks for
boxes. Average precision asks whether objects are found, named and ranked; this asks only whether they are found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cavis.evaluation.average_precision import GroundTruthTrack, PredictedTrack
from cavis.evaluation.masks import TrackMasks, video_iou
from cavis.evaluation.tracking import by_video

FOUND = 0.5
"""Overlap from which an object counts as found."""


class CategoryCoverage(NamedTuple):
    """How well the objects of one category are covered."""

    id: int
    name: str
    objects: int
    """Annotated tracks that have a pixel (crowds do not count)."""
    abo: float
    """Mean over the objects of the overlap with the track that covers each best, 0 ... 1; -1 without objects."""
    recall50: float
    """Share of the objects whose best overlap is 0.5 or more; -1 without objects."""


@dataclass(frozen=True)
class Coverage:
    """How well objects are covered."""

    abo: float
    """Mean of the categories that have objects; -1 if none has."""
    recall50: float
    per_category: tuple[CategoryCoverage, ...]


def coverage(
    ground_truth: Sequence[GroundTruthTrack],
    predictions: Sequence[PredictedTrack],
    categories: Mapping[int, str] | None = None,
) -> Coverage:
    """Compare each annotated track with all predicted ones of its video, of any category and score.

    Overlap is the IoU over all frames of the video. A prediction may cover several objects. ``categories`` maps the
    data set's category ids to names; None: the ids found in the ground truth. A ValueError where the masks of a video
    differ in number or size.
    """
    if categories is None:
        categories = {track.category_id: str(track.category_id) for track in ground_truth}
    objects = [track for track in ground_truth if track.category_id in categories and not track.iscrowd]
    overlaps: dict[int, list[float]] = {id_: [] for id_ in categories}
    for video_id, truths, found in by_video(objects, predictions):
        for truth, best in zip(truths, _best_overlaps(video_id, truths, found), strict=True):
            if best is not None:
                overlaps[truth.category_id].append(best)
    rows = tuple(_row(id_, categories[id_], overlaps[id_]) for id_ in sorted(categories))
    counted = [row for row in rows if row.objects]
    return Coverage(_mean([row.abo for row in counted]), _mean([row.recall50 for row in counted]), rows)


def _best_overlaps(
    video_id: int, truths: Sequence[GroundTruthTrack], predictions: Sequence[PredictedTrack]
) -> list[float | None]:
    """Of each object the largest overlap; None for an object without a pixel."""
    tracks = list(dict.fromkeys(one.masks for one in predictions))  # a track is predicted once a category
    try:
        truth, found = TrackMasks.measure([one.masks for one in truths]), TrackMasks.measure(tracks)
        best = video_iou(found, truth).max(axis=0, initial=0.0).tolist()
    except ValueError as error:
        raise ValueError(f"video {video_id}: {error}") from error
    return [one if pixels else None for one, pixels in zip(best, truth.areas.sum(1).tolist(), strict=True)]


def _row(id_: int, name: str, overlaps: Sequence[float]) -> CategoryCoverage:
    found = [float(overlap >= FOUND) for overlap in overlaps]
    return CategoryCoverage(id_, name, len(overlaps), _mean(overlaps), _mean(found))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else -1.0
