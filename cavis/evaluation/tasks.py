"""How each kind of data set is evaluated: what is looked for in a video, and what is made of all that was found.

============ =============== ============================================================ ====================
data set     model           files beside metrics.json                                    measures
============ =============== ============================================================ ====================
YouTube-VIS  instance        results.json, report.html, categories.csv                    AP, AR, ABO, HOTA, IDF1
VIPSeg       panoptic        pred.json, pan_pred/<video>/<frame>.png, categories.csv      VPQ, STQ
VSPW         semantic        semantic/<video>/<frame>.png, categories.csv                 mIoU
============ =============== ============================================================ ====================

What was found in a video is plain json (see :mod:`cavis.evaluation.shards`); pictures are written at once.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from cavis.checkpoints.files import write_atomically
from cavis.data.panoptic_maps import MappedDataset, MappedVideo, read_labels
from cavis.data.ytvis_json import YtvisDataset
from cavis.evaluation.average_precision import PredictedTrack
from cavis.evaluation.coverage import Coverage, coverage
from cavis.evaluation.panoptic_files import (
    PanopticMetrics,
    evaluate_panoptic,
    open_panoptic,
    open_panoptic_results,
    panoptic_json,
)
from cavis.evaluation.report import csv_text, write_report
from cavis.evaluation.run import (
    Predict,
    ground_truth,
    match_categories,
    measure,
    metrics_json,
    predict_video,
    predictions_from_json,
    results_json,
)
from cavis.evaluation.segmentation_tracking_quality import StqCounts, semantic_counts, stq
from cavis.evaluation.shards import write_text
from cavis.evaluation.tracking import TrackingMetrics, tracking_metrics
from cavis.inference.export import discard_pictures, write_panoptic, write_panoptic_list, write_semantic
from cavis.inference.panoptic import PanopticResult
from cavis.inference.semantic import SemanticResult
from cavis.video import VideoSource

Found = Callable[[int], Any]
"""What was found in the video of an index."""
UNKNOWN = 255
"""The value of pixels in semantic results whose category the data set does not know."""


class Outcome(NamedTuple):
    """What an evaluation came to."""

    numbers: dict[str, float] | None
    """Fractions, and numbers of switches; -1 where there is nothing to measure. None: the annotations are hidden."""
    table: list[list[str]]
    """A header and rows to show; empty without numbers."""
    unmatched: tuple[str, ...]
    """Categories of the model whose name the data set does not know: left out."""


class EvaluationTask(Protocol):
    """One kind of evaluation; everything is written into the folder ``out``."""

    @property
    def files(self) -> tuple[str, ...]:
        """What it writes into the folder, metrics.json apart."""
        ...

    def predict(self, index: int) -> Any:
        """Look at one video; what was found, as json."""
        ...

    def finish(self, found: Found) -> Outcome:
        """Write the files of the whole data set, and measure."""
        ...


@dataclass(frozen=True)
class InstanceTask:
    """YouTube-VIS, OVIS, your own: average precision, HOTA, a report."""

    dataset: YtvisDataset
    run: Predict
    top_k: int
    out: Path
    files = ("results.json", "report.html", "categories.csv")

    def predict(self, index: int) -> Any:
        """The best predictions, as entries of results.json."""
        predictions, unmatched = predict_video(self.dataset, index, self.run, self.top_k)
        return {"predictions": results_json(predictions), "unmatched": unmatched}

    def finish(self, found: Found) -> Outcome:
        """Write results.json and, where there are annotations, measure and report."""
        videos = range(len(self.dataset))
        write_atomically(self.out / "results.json", lambda path: _write_results(path, found, len(videos)))
        unmatched = _unmatched(found, len(videos))
        if not self.dataset.annotated:
            return Outcome(None, [], unmatched)
        predictions: list[PredictedTrack] = []
        for index in videos:
            where = f"video {self.dataset.videos[index].id}"
            predictions += predictions_from_json(found(index)["predictions"], self.dataset, where)
        evaluation = measure(self.dataset, predictions, unmatched)
        assert evaluation.metrics is not None
        truth, kept, names = ground_truth(self.dataset), evaluation.predictions, self.dataset.categories
        covered, tracking = coverage(truth, kept, names), tracking_metrics(truth, kept, names)
        write_report(self.out, self.dataset, evaluation, covered, tracking)
        table = [["category", "AP", "AP50", "ABO"]]
        for one, cover in zip(evaluation.per_category, covered.per_category, strict=True):
            table.append([one.name, _shown(one.ap), _shown(one.ap50), _shown(cover.abo)])
        numbers = metrics_json(evaluation.metrics) | coverage_json(covered) | tracking_json(tracking)
        return Outcome(numbers, table, unmatched)


@dataclass(frozen=True)
class PanopticTask:
    """VIPSeg: video panoptic quality, segmentation and tracking quality."""

    dataset: MappedDataset
    run: Callable[[VideoSource], PanopticResult]
    out: Path
    files = ("pred.json", "pan_pred", "categories.csv")

    def predict(self, index: int) -> Any:
        """Write the pictures of a video; its entry of pred.json."""
        video = self.dataset.videos[index]
        with self.dataset.source(index) as source:
            result = self.run(source)
        _check_size(video, result)
        ids = match_categories(result.categories, dict(zip(self.dataset.category_ids, self.dataset.names, strict=True)))
        unmatched = [name for name, id_ in zip(result.categories, ids, strict=True) if id_ is None]
        known = [one for one in result.segments if ids[one.track.label] is not None]
        numbered = tuple(replace(one, track=replace(one.track, id=n)) for n, one in enumerate(known, start=1))
        frames = [Path(name).stem for name in video.maps]
        discard_pictures(self.out / "pan_pred", str(video.id))  # of a run that was stopped
        entry = write_panoptic(
            self.out, replace(result, segments=numbered), str(video.id), frames, [id_ or 0 for id_ in ids]
        )
        return {"entry": entry, "unmatched": unmatched}

    def finish(self, found: Found) -> Outcome:
        """Write pred.json and, where there are maps to compare with, measure."""
        videos = range(len(self.dataset))
        write_panoptic_list(self.out / "pred.json", [found(index)["entry"] for index in videos])
        unmatched = _unmatched(found, len(videos))
        if self.dataset.maps is None:
            return Outcome(None, [], unmatched)
        everything = open_panoptic(self.dataset.path, self.dataset.maps)
        wanted = {str(video.id) for video in self.dataset.videos}
        truth = replace(everything, videos=tuple(video for video in everything.videos if video.name in wanted))
        metrics = evaluate_panoptic(truth, open_panoptic_results(self.out, truth))
        _write_table(self.out / "categories.csv", _panoptic_rows(metrics))
        table = [["frames", "VPQ", "things", "stuff"]]
        for window in metrics.vpq.windows:
            qualities = (window.all.pq, window.things.pq, window.stuff.pq)
            table.append([str(window.frames), *(_shown(value) for value in qualities)])
        return Outcome({name: _or_minus_one(v) for name, v in panoptic_json(metrics).items()}, table, unmatched)


@dataclass(frozen=True)
class SemanticTask:
    """VSPW: mean IoU."""

    dataset: MappedDataset
    run: Callable[[VideoSource], SemanticResult]
    out: Path
    files = ("semantic", "categories.csv")

    def predict(self, index: int) -> Any:
        """Write the pictures of a video: category ids, 255 for categories that the data set does not know."""
        video = self.dataset.videos[index]
        with self.dataset.source(index) as source:
            result = self.run(source)
        _check_size(video, result)
        ids = match_categories(result.categories, dict(zip(self.dataset.category_ids, self.dataset.names, strict=True)))
        frames = [Path(name).stem for name in video.file_names]
        discard_pictures(self.out / "semantic", video.name)  # of a run that was stopped
        known = [UNKNOWN if id_ is None else id_ for id_ in ids]
        write_semantic(self.out / "semantic", result, video.name, frames, known)
        unmatched = [name for name, id_ in zip(result.categories, ids, strict=True) if id_ is None]
        return {"unmatched": unmatched}

    def finish(self, found: Found) -> Outcome:
        """Measure the pictures of the videos that are annotated."""
        unmatched = _unmatched(found, len(self.dataset))
        annotated = [index for index, video in enumerate(self.dataset.videos) if video.maps]
        if not annotated:
            return Outcome(None, [], unmatched)
        metrics = stq(sum(map(self._counts, annotated), start=StqCounts.nothing(len(self.dataset.names))))
        rows = list(zip(self.dataset.category_ids, self.dataset.names, metrics.iou, strict=True))
        table = [[str(id_), name, "" if math.isnan(iou) else f"{iou:.4f}"] for id_, name, iou in rows]
        _write_table(self.out / "categories.csv", [["id", "name", "iou"], *table])
        shown = [["category", "IoU"], *([name, _shown(iou)] for _, name, iou in rows)]
        return Outcome({"mIoU": _or_minus_one(metrics.mean_iou)}, shown, unmatched)

    def _counts(self, index: int) -> StqCounts:
        """Compare the pictures of a video with its masks; a ValueError that names the file if one cannot be read."""
        video, number = self.dataset.videos[index], len(self.dataset.names)
        annotated, predicted = np.full((2, 256), number)  # labels by value
        annotated[video.segments.ids] = video.segments.labels
        predicted[list(self.dataset.category_ids)] = np.arange(number)
        counts = StqCounts.nothing(number)
        for t, name in enumerate(video.file_names):
            picture = self.out / "semantic" / video.name / f"{Path(name).stem}.png"
            found = predicted[read_labels(picture, video, t)]
            counts += semantic_counts(annotated[self.dataset.id_map(index, t)], found, number)
        return counts


def coverage_json(metrics: Coverage) -> dict[str, float]:
    """The headline numbers of coverage: means over the categories."""
    return {"ABO": metrics.abo, "recall50": metrics.recall50}


def tracking_json(metrics: TrackingMetrics) -> dict[str, float]:
    """The headline numbers of tracking, over all categories: fractions and a number of switches; -1 without objects."""
    if not metrics.objects:
        return {"HOTA": -1.0, "AssA": -1.0, "IDF1": -1.0, "identity_switches": -1}
    scores = metrics.combined
    return {
        "HOTA": scores.hota,
        "AssA": scores.assa,
        "IDF1": scores.idf1,
        "identity_switches": scores.identity_switches,
    }


def _check_size(video: MappedVideo, result: PanopticResult | SemanticResult) -> None:
    expected, got = (len(video), video.height, video.width), (len(result), result.height, result.width)
    if expected != got:
        words = ("{} frames of {} x {} pixels".format(*side) for side in (expected, got))
        raise ValueError(f"video {video.id}: expected a result of {next(words)}, got {next(words)}")


def _unmatched(found: Found, videos: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for index in range(videos) for name in found(index)["unmatched"]))


def _write_results(path: Path, found: Found, videos: int) -> None:
    """The predictions of all videos as one list, only one video's in memory at a time."""
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, entry in enumerate(_entries(found, videos)):
            file.write(", " if number else "")
            file.write(json.dumps(entry))
        file.write("]")


def _entries(found: Found, videos: int) -> Iterator[Any]:
    for index in range(videos):
        yield from found(index)["predictions"]


def _panoptic_rows(metrics: PanopticMetrics) -> list[list[str]]:
    """One row for each category: VPQ as the mean over the windows, and IoU; empty where there is nothing."""
    rows = [["id", "name", "isthing", "vpq", "iou"]]
    for k, first in enumerate(metrics.vpq.windows[0].per_category):
        windows = [window.per_category[k] for window in metrics.vpq.windows]
        counted = [one.quality.pq for one in windows if one.counts]
        vpq, iou = f"{np.mean(counted):.4f}" if counted else "", metrics.stq.iou[k]
        category = first.category
        known = [str(category.id), category.name, str(int(category.isthing))]
        rows.append([*known, vpq, "" if math.isnan(iou) else f"{iou:.4f}"])
    return rows


def _write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    write_text(path, csv_text(rows))


def _shown(value: float) -> str:
    return f"{value:.3f}" if value >= 0 else "-"


def _or_minus_one(value: float) -> float:
    return -1.0 if math.isnan(value) else value
