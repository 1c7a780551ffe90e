"""Run a predictor over a data set and measure what it finds."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from cavis import rle
from cavis.categories import plain_name
from cavis.data import fields
from cavis.data.run_lengths import check_runs
from cavis.data.segmentations import read_mask
from cavis.data.ytvis_json import Video, YtvisDataset
from cavis.evaluation.average_precision import (
    CategoryMetrics,
    GroundTruthTrack,
    PredictedTrack,
    VisMetrics,
    average_precision,
)
from cavis.records import Rle, VideoResult
from cavis.video import VideoSource

Predict = Callable[[VideoSource], VideoResult]


@dataclass(frozen=True)
class Evaluation:
    """What a predictor reached on a data set."""

    metrics: VisMetrics | None
    """None where the data set has no annotations: only the results can be written then."""
    predictions: tuple[PredictedTrack, ...] = field(repr=False)
    unmatched: tuple[str, ...] = ()
    """Categories of the model whose name the data set does not know: their predictions were left out."""

    @property
    def per_category(self) -> tuple[CategoryMetrics, ...]:
        """One row for each category of the data set, in the order of the ids."""
        return () if self.metrics is None else self.metrics.per_category


def evaluate(
    dataset: YtvisDataset,
    predict: Predict,
    top_k: int = 10,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Predict every video and compare with its annotations.

    ``top_k`` predictions count for each video (10 for YouTube-VIS, 20 for OVIS). A label is matched with the
    data set's category of the same name, whatever its capitals and underscores. ``progress`` is told the number of
    videos done. A ValueError if a result has another length or size than its video.
    """
    predictions: list[PredictedTrack] = []
    unmatched: dict[str, None] = {}
    for index in range(len(dataset)):
        found, unknown = predict_video(dataset, index, predict, top_k)
        predictions.extend(found)
        unmatched.update(dict.fromkeys(unknown))
        if progress is not None:
            progress(index + 1)
    return measure(dataset, predictions, tuple(unmatched))


def predict_video(
    dataset: YtvisDataset, index: int, predict: Predict, top_k: int
) -> tuple[tuple[PredictedTrack, ...], tuple[str, ...]]:
    """The ``top_k`` best predictions of one video, and the categories of the model that the data set does not know.

    A ValueError if the result has another length or size than the video.
    """
    video = dataset.videos[index]
    with dataset.source(index) as source:
        result = predict(source)
    _check_result(video, result)
    category_ids = match_categories(result.categories, dataset.categories)
    unknown = tuple(name for name, id_ in zip(result.categories, category_ids, strict=True) if id_ is None)
    return tuple(islice(_predicted(video, result, category_ids), top_k)), unknown


def measure(dataset: YtvisDataset, predictions: Iterable[PredictedTrack], unmatched: Sequence[str] = ()) -> Evaluation:
    """Compare predictions with the annotations of their data set, where it has any.

    Predictions of categories that nobody looked for in their video count neither for nor against, and are left out.
    """
    videos = {video.id: video for video in dataset.videos}
    kept = tuple(one for one in predictions if videos[one.video_id].counts(one.category_id))
    return Evaluation(_measure(dataset, kept), kept, tuple(unmatched))


def ground_truth(dataset: YtvisDataset) -> list[GroundTruthTrack]:
    """The annotated tracks of a data set, crowds included, of all categories that were looked for in their video."""
    return [one for video in dataset.videos for one in truths_of(video)]


def truths_of(video: Video) -> list[GroundTruthTrack]:
    """The annotated tracks of one video, crowds included, of all categories that were looked for in it."""
    return [
        GroundTruthTrack(video.id, one.category_id, one.masks, one.iscrowd, one.mean_area)
        for one in video.annotations
        if video.counts(one.category_id)
    ]


def match_categories(names: Iterable[str], categories: Mapping[int, str]) -> tuple[int | None, ...]:
    """The id of the category of the same name for each name; None where there is none.

    Names are compared without regard to capitals, spaces, hyphens and underscores (``Giant_panda``, ``giant panda``).
    """
    ids = {plain_name(name): id_ for id_, name in categories.items()}
    return tuple(ids.get(plain_name(name)) for name in names)


def metrics_json(metrics: VisMetrics) -> dict[str, float]:
    """The headline numbers, as fractions."""
    return {
        "AP": metrics.ap,
        "AP50": metrics.ap50,
        "AP75": metrics.ap75,
        "AR1": metrics.ar1,
        "AR10": metrics.ar10,
    }


def results_json(predictions: Iterable[PredictedTrack]) -> list[dict[str, Any]]:
    """Predictions as the entries of a YouTube-VIS ``results.json``, which the servers of hidden annotations accept."""
    return [
        {
            "video_id": one.video_id,
            "category_id": one.category_id,
            "score": one.score,
            "segmentations": [None if mask is None else rle.to_json(mask) for mask in one.masks],
        }
        for one in predictions
    ]


def read_results(path: str | Path, dataset: YtvisDataset) -> list[PredictedTrack]:
    """Read a ``results.json`` for the videos of a data set; ValueErrors name the entry that does not fit."""
    path = Path(path)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected a json file, got something else ({error})") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of predictions, got {type(entries).__name__}")
    return predictions_from_json(entries, dataset, str(path))


def predictions_from_json(entries: Sequence[Any], dataset: YtvisDataset, where: str) -> list[PredictedTrack]:
    """What :func:`results_json` made of predictions; ValueErrors name ``where`` and the entry that does not fit."""
    videos = {video.id: video for video in dataset.videos}
    predictions = []
    for index, entry in enumerate(entries):
        try:
            predictions.append(_read_prediction(entry, videos))
        except ValueError as error:
            raise ValueError(f"{where}: prediction {index}: {error}") from error
    return predictions


def evaluate_results(dataset: YtvisDataset, predictions: Iterable[PredictedTrack]) -> VisMetrics:
    """Measure predictions made elsewhere; a ValueError for a data set without annotations."""
    metrics = measure(dataset, predictions).metrics
    if metrics is None:
        raise ValueError(f"expected a data set with annotations to compare with, got {dataset.path}, which has none")
    return metrics


def _measure(dataset: YtvisDataset, predictions: Sequence[PredictedTrack]) -> VisMetrics | None:
    if not dataset.annotated:
        return None
    return average_precision(ground_truth(dataset), predictions, dataset.categories)


def _predicted(video: Video, result: VideoResult, category_ids: tuple[int | None, ...]) -> Iterator[PredictedTrack]:
    """All predictions whose category the data set knows, and was looked for in the video, best first."""
    for track, label, score in result.predictions(len(result.tracks) * len(result.categories)):
        category_id = category_ids[label]
        if category_id is not None and video.counts(category_id):
            yield PredictedTrack(video.id, category_id, score, track.masks)


def _check_result(video: Video, result: VideoResult) -> None:
    if len(result) != len(video):
        raise ValueError(f"video {video.id}: expected a result of {len(video)} frames, got {len(result)}")
    if (result.height, result.width) != (video.height, video.width):
        expected, got = f"{video.height} x {video.width}", f"{result.height} x {result.width}"
        raise ValueError(f"video {video.id}: expected masks of {expected} pixels, got {got}")


def _read_prediction(value: Any, videos: Mapping[int, Video]) -> PredictedTrack:
    entry = fields.record(value)
    number = fields.whole(entry, "video_id")
    if (video := videos.get(number)) is None:
        raise ValueError(f"expected a video of the data set, got video {number}")
    segmentations = fields.listed(entry, "segmentations")
    if len(segmentations) != len(video):
        raise ValueError(f"expected segmentations for {len(video)} frames, got {len(segmentations)}")
    masks = tuple(_read_mask(one, t, video) for t, one in enumerate(segmentations))
    check_runs(masks)
    return PredictedTrack(video.id, fields.whole(entry, "category_id"), _read_score(entry), masks)


def _read_mask(segmentation: Any, t: int, video: Video) -> Rle | None:
    try:
        return read_mask(segmentation, video.height, video.width)
    except ValueError as error:
        raise ValueError(f"frame {t}: {error}") from error


def _read_score(entry: dict[str, Any]) -> float:
    score = fields.present(entry, "score")
    if not fields.is_number(score) or abs(score) > sys.float_info.max:
        raise ValueError(f"expected a finite number as score, got {str(score)[:60]}")
    return float(score)
