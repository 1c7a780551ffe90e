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
MEDIUM, LARGE = 0.02, 0.1
"""Shares of the frame from which an object (its mean area where it is seen) is of medium and of large size.

Shares, not pixels as for average precision: what can be outlined depends on what is left at a model's input size.
"""


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
    abo_small: float
    """ABO of the objects below 2 % of the frame; -1 without any."""
    abo_medium: float
    """From 2 % to 10 %."""
    abo_large: float
    """From 10 %."""


class Cover(NamedTuple):
    """How one object is covered."""

    overlap: float
    """With the track that covers it best."""
    size: float
    """Share of the frame, 0 ... 1."""


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
    covers: dict[int, list[Cover]] = {id_: [] for id_ in categories}
    for video_id, truths, found in by_video(objects, predictions):
        for truth, cover in zip(truths, _covers(video_id, truths, found), strict=True):
            if cover is not None:
                covers[truth.category_id].append(cover)
    rows = tuple(_row(id_, categories[id_], covers[id_]) for id_ in sorted(categories))
    counted = [row for row in rows if row.objects]
    return Coverage(_mean([row.abo for row in counted]), _mean([row.recall50 for row in counted]), rows)


def _covers(
    video_id: int, truths: Sequence[GroundTruthTrack], predictions: Sequence[PredictedTrack]
) -> list[Cover | None]:
    """How each object is covered; None for one without a pixel."""
    tracks = list(dict.fromkeys(one.masks for one in predictions))  # a track is predicted once a category
    try:
        truth, found = TrackMasks.measure([one.masks for one in truths]), TrackMasks.measure(tracks)
        best = video_iou(found, truth).max(axis=0, initial=0.0)
    except ValueError as error:
        raise ValueError(f"video {video_id}: {error}") from error
    height, width = truth.size or (1, 1)
    seen = [areas[areas > 0] for areas in truth.areas]
    return [
        Cover(overlap, areas.mean() / (height * width)) if len(areas) else None
        for overlap, areas in zip(best.tolist(), seen, strict=True)
    ]


def _row(id_: int, name: str, covers: Sequence[Cover]) -> CategoryCoverage:
    overlaps = [cover.overlap for cover in covers]
    return CategoryCoverage(
        id_,
        name,
        len(covers),
        _mean(overlaps),
        _mean([overlap >= FOUND for overlap in overlaps]),
        _mean([cover.overlap for cover in covers if cover.size < MEDIUM]),
        _mean([cover.overlap for cover in covers if MEDIUM <= cover.size < LARGE]),
        _mean([cover.overlap for cover in covers if cover.size >= LARGE]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else -1.0
