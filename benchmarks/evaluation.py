"""How long YouTube-VIS average precision takes, ours beside TrackEval's on the same tracks.

Both begin with what their readers made of the files, run-length masks in memory, and end with the numbers. TrackEval
does what its own program for YouTube-VIS does: every class of every video is prepared and measured. Both use one
thread; what is compared is the time of the processor, so that other programs do not count.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import trackeval
from jaxtyping import Bool

from benchmarks.timing import interleaved
from cavis import rle
from cavis.evaluation.average_precision import GroundTruthTrack, PredictedTrack, average_precision
from cavis.records import Rle

Numbers = dict[str, float]

SIZES = {
    "AREA_RANGES": [[0, 128**2], [128**2, 256**2], [256**2, 1e5**2]],
    "AREA_RANGE_LABELS": ["small", "medium", "large"],
}


@dataclass(frozen=True)
class EvaluationSetting:
    """How much there is to evaluate."""

    videos: int
    predictions: int
    """Of each video."""
    frames: int
    objects: int = 4
    """Of each video."""
    categories: int = 40
    """As many as YouTube-VIS has."""
    height: int = 360
    width: int = 640
    repeats: int = 3


FULL = EvaluationSetting(videos=200, predictions=20, frames=40)
QUICK = EvaluationSetting(videos=200, predictions=20, frames=40, repeats=1)
"""What we promise is promised for this size: only the repetitions are fewer."""


class World(NamedTuple):
    """What is annotated, and what is predicted."""

    truths: list[GroundTruthTrack]
    predictions: list[PredictedTrack]
    categories: dict[int, str]


def steps(setting: EvaluationSetting) -> int:
    """How often :func:`measure` tells that something is done."""
    return 2 * (setting.repeats + 1)


def measure(setting: EvaluationSetting, tell: Callable[[str], None]) -> Numbers:
    """Seconds of both, how many times faster we are, and the average precision each of them finds."""
    world = random_world(setting)
    theirs = TrackEval(world)
    found: Numbers = {}
    work = {
        "ours": lambda: found.update({"ap.ours": average_precision(*world).ap}),
        "trackeval": lambda: found.update({"ap.trackeval": theirs.average_precision()["all"]}),
    }
    seconds = interleaved(work, setting.repeats, lambda who: tell(f"evaluated: {who}"), time.process_time)
    numbers = {f"seconds.{who}": value for who, value in seconds.items()} | found
    return {"speedup_over_trackeval": seconds["trackeval"] / seconds["ours"]} | numbers


def random_world(setting: EvaluationSetting, seed: int = 0) -> World:
    """Blobs that drift; predictions follow them more or less well, some with another label, some nothing at all.

    As in YouTube-VIS and OVIS, what is seen in one video is mostly of one kind: one or two categories.
    """
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for video in range(1, setting.videos + 1):
        blobs = [_Blob.random(rng, setting) for _ in range(setting.objects)]
        kinds = rng.integers(1, setting.categories + 1, 2)
        labels = rng.choice(kinds, setting.objects).tolist()
        for blob, label in zip(blobs, labels, strict=True):
            truths.append(GroundTruthTrack(video, label, blob.masks(setting)))
        for n in range(setting.predictions):
            followed = n % setting.objects
            loose = rng.random() * 0.3
            shape = blobs[followed].near(loose, rng) if n < 3 * setting.objects else _Blob.random(rng, setting)
            label = labels[followed] if rng.random() < 0.8 else int(rng.choice(kinds))
            predictions.append(PredictedTrack(video, label, float(rng.random()), shape.masks(setting)))
    return World(truths, predictions, {number: f"c{number}" for number in range(1, setting.categories + 1)})


class _Blob(NamedTuple):
    """An ellipse with a wavy outline; lengths in frame heights."""

    x: float
    y: float
    radius: float
    stretch: float
    phase: float
    dx: float
    dy: float
    hidden: int
    """The frame around which it is not seen."""

    @classmethod
    def random(cls, rng: np.random.Generator, setting: EvaluationSetting) -> "_Blob":
        aspect = setting.width / setting.height
        place = rng.random(2) * (aspect, 1)
        shape = (rng.uniform(0.08, 0.3), rng.uniform(0.6, 1.6), rng.uniform(0, 6.3))
        return cls(*place.tolist(), *shape, *rng.uniform(-0.01, 0.01, 2).tolist(), int(rng.integers(setting.frames)))

    def near(self, loose: float, rng: np.random.Generator) -> "_Blob":
        """A blob that is off by a share of the radius."""
        shift = rng.normal(size=3) * loose * self.radius
        return self._replace(x=self.x + shift[0], y=self.y + shift[1], radius=self.radius + shift[2] / 3)

    def masks(self, setting: EvaluationSetting) -> tuple[Rle | None, ...]:
        return tuple(self._mask(t, setting) for t in range(setting.frames))

    def _mask(self, t: int, setting: EvaluationSetting) -> Rle | None:
        if abs(t - self.hidden) < 2:
            return None
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        reach = self.radius * (1 + 0.15 * np.sin(5 * angle + self.phase + 0.2 * t))
        x = self.x + t * self.dx + reach * np.cos(angle) / self.stretch
        y = self.y + t * self.dy + reach * np.sin(angle)
        outline = np.stack([x, y], axis=1).ravel() * setting.height
        return rle.from_json([outline.tolist()], setting.height, setting.width)


class TrackEval:
    """TrackEval's YouTube-VIS evaluation of the same tracks, its reader done."""

    def __init__(self, world: World, first_id: int = 1) -> None:
        self._first_id = first_id
        with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
            _write(Path(folder), world)
            self._data: Any = trackeval.datasets.YouTubeVIS(
                {
                    "GT_FOLDER": f"{folder}/gt_",
                    "TRACKERS_FOLDER": f"{folder}/trackers_",
                    "SPLIT_TO_EVAL": "test",
                    "PRINT_CONFIG": False,
                }
            )
            settings = SIZES | {"USE_TIME_RANGES": False, "MAX_DETECTIONS": 100, "PRINT_CONFIG": False}
            self._metric: Any = trackeval.metrics.TrackMAP(settings)

    def average_precision(self) -> Numbers:
        """``all``, ``small``, ``medium`` and ``large``; -1 where there is no object to find."""
        self._data.global_tid_counter = self._first_id
        trackers, videos, names = self._data.get_eval_info()
        results: dict[str, dict[str, Any]] = {name: {} for name in names}
        for video in videos:
            raw = self._data.get_raw_seq_data(trackers[0], video)
            for name in names:
                results[name][video] = self._metric.eval_sequence(self._data.get_preprocessed_seq_data(raw, name))
        classes = {name: self._metric.combine_sequences(result) for name, result in results.items()}
        combined = self._metric.combine_classes_class_averaged(classes)
        labels = {"all": "all"} | {label: label for label in SIZES["AREA_RANGE_LABELS"]}
        return {label: _mean(combined[f"AP_{label}"]) for label in labels}


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else -1.0


def _write(folder: Path, world: World) -> None:
    """The world as files of YouTube-VIS, in the folders TrackEval looks for."""
    truth_folder, tracker_folder = folder / "gt_youtube_vis_test", folder / "trackers_youtube_vis_test" / "it" / "data"
    truth_folder.mkdir(parents=True)
    tracker_folder.mkdir(parents=True)
    everyone = chain(world.truths, world.predictions)
    videos = {track.video_id: len(track.masks) for track in everyone}
    content = {
        "videos": [
            {"id": video, "file_names": [f"v{video}/{t}.jpg" for t in range(frames)]}
            for video, frames in sorted(videos.items())
        ],
        "categories": [{"id": id_, "name": name} for id_, name in world.categories.items()],
        "annotations": [_annotation(number, track) for number, track in enumerate(world.truths, start=1)],
    }
    (truth_folder / "truth.json").write_text(json.dumps(content), encoding="utf-8")
    results = [
        {
            "video_id": track.video_id,
            "category_id": track.category_id,
            "score": track.score,
            "segmentations": [None if mask is None else rle.to_json(mask) for mask in track.masks],
        }
        for track in world.predictions
    ]
    (tracker_folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def _annotation(number: int, track: GroundTruthTrack) -> dict[str, Any]:
    sizes: Sequence[Rle] = [mask for mask in track.masks if mask is not None]
    return {
        "id": number,
        "video_id": track.video_id,
        "category_id": track.category_id,
        "iscrowd": int(track.iscrowd),
        "height": sizes[0].height if sizes else 1,
        "width": sizes[0].width if sizes else 1,
        "areas": [None if mask is None else rle.area(mask) for mask in track.masks],
        "segmentations": [None if mask is None else _run_lengths(rle.decode(mask)) for mask in track.masks],
    }


def _run_lengths(pixels: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """Not compressed, the only form TrackEval reads annotations in."""
    column = np.concatenate([[False], pixels.ravel(order="F")])
    edges = np.flatnonzero(column[1:] != column[:-1])
    lengths = np.diff(np.concatenate([[0], edges, [pixels.size]]))
    return {"size": list(pixels.shape), "counts": lengths.tolist()}
