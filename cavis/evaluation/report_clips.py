"""The clips a predictor did worst on, drawn: what is annotated beside what was predicted."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cavis import rle
from cavis.data.ytvis_json import YtvisDataset
from cavis.evaluation.average_precision import GroundTruthTrack, PredictedTrack, average_precision
from cavis.evaluation.masks import TrackMasks, video_iou
from cavis.evaluation.run import truths_of
from cavis.records import Rle
from cavis.visualization.overlay import DrawnTrack, OverlayStyle, draw
from cavis.visualization.palette import LENGTH, colour

_GREY = 96
"""Brightness where there are no frames on disk."""
_WIDTH = 320
"""Of the pictures, in pixels."""


@dataclass(frozen=True)
class ClipPicture:
    """One frame of a clip twice."""

    frame: int
    truth: str = field(repr=False)
    """PNG as a data URI."""
    predicted: str = field(repr=False)


@dataclass(frozen=True)
class WorstClip:
    """One clip and how it went."""

    video_id: int
    name: str
    ap: float
    """Average precision of this clip alone, over the categories annotated in it; 0 ... 1."""
    objects: int
    pictures: tuple[ClipPicture, ...]


def worst_clips(
    dataset: YtvisDataset, predictions: Sequence[PredictedTrack], clips: int, frames: int, min_score: float
) -> tuple[WorstClip, ...]:
    """Draw ``frames`` frames of the ``clips`` clips of lowest average precision, the worst first.

    Categories that nobody looked for in a clip do not count, and clips without an annotated object that counts are left
    out. Predictions are drawn that score at least ``min_score``; those that overlap an annotated object of their
    category by half or more have its colour.
    """
    of_video: dict[int, list[PredictedTrack]] = {}
    for one in predictions:
        of_video.setdefault(one.video_id, []).append(one)
    rated = []
    for index, video in enumerate(dataset.videos):
        ap = average_precision(truths_of(video), of_video.get(video.id, []), dataset.categories).ap
        if ap >= 0:
            rated.append((ap, index))
    drawn = []
    for ap, index in sorted(rated)[:clips]:
        shown = [one for one in of_video.get(dataset.videos[index].id, []) if one.score >= min_score]
        drawn.append(_draw_clip(dataset, index, ap, shown, frames))
    return tuple(drawn)


def _draw_clip(
    dataset: YtvisDataset, index: int, ap: float, predictions: Sequence[PredictedTrack], frames: int
) -> WorstClip:
    video = dataset.videos[index]
    truths = truths_of(video)
    ranked = sorted(predictions, key=lambda one: -one.score)
    names = [dataset.categories[one.category_id].replace("_", " ") for one in truths]
    labels = [f"{dataset.categories.get(p.category_id, '?').replace('_', ' ')} · {p.score:.2f}" for p in ranked]
    numbers = _colours(truths, ranked)
    pictures = []
    for t in np.unique(np.linspace(0, len(video) - 1, frames).round().astype(int)).tolist():
        picture = _frame(dataset, index, t)
        annotated = [_drawn(one.masks[t], n, names[n]) for n, one in enumerate(truths)]
        found = [_drawn(one.masks[t], numbers[n], labels[n]) for n, one in enumerate(ranked)]
        sides = (_uri(draw(picture, [one for one in side if one], OverlayStyle())) for side in (annotated, found))
        pictures.append(ClipPicture(t, *sides))
    objects = sum(not one.iscrowd for one in truths)
    return WorstClip(video.id, video.name, ap, objects, tuple(pictures))


def _colours(truths: Sequence[GroundTruthTrack], predictions: Sequence[PredictedTrack]) -> list[int]:
    """The number of the annotated track each prediction overlaps by half or more, or a number of its own."""
    sides = [TrackMasks.measure([one.masks for one in side]) for side in (predictions, truths)]
    overlap = video_iou(sides[0], sides[1])
    for d, one in enumerate(predictions):
        overlap[d] *= [one.category_id == truth.category_id for truth in truths]
    own = [LENGTH - 1 - d for d in range(len(predictions))]
    return [int(row.argmax()) if row.max(initial=0) >= 0.5 else own[d] for d, row in enumerate(overlap)]


def _drawn(mask: Rle | None, number: int, label: str) -> DrawnTrack | None:
    if mask is None:
        return None
    left, top, width, height = (int(side) for side in rle.box(mask))
    if width == 0 or height == 0:
        return None
    area = (left, top, left + width, top + height)
    return DrawnTrack(rle.decode(mask)[top : area[3], left : area[2]], area, colour(number), label)


def _frame(dataset: YtvisDataset, index: int, t: int) -> UInt8[np.ndarray, "H W 3"]:
    if dataset.images is None:
        video = dataset.videos[index]
        return np.full((video.height, video.width, 3), _GREY, dtype=np.uint8)
    with dataset.source(index) as source:
        return source[t]


def _uri(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    image = Image.fromarray(picture)
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, max(1, round(image.height * _WIDTH / image.width))))
    stream = BytesIO()
    image.save(stream, "PNG")
    return f"data:image/png;base64,{b64encode(stream.getvalue()).decode('ascii')}"
