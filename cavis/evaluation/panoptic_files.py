"""Panoptic videos on disk, as VIPSeg has them: a json of segments, and a PNG a frame whose colours are segment ids.

The id of a pixel is R + 256 G + 65536 B; 0 is void. Ground truth is ``<file>.json`` beside a folder of
``<video>/<frame>.png``; results are a folder with ``pred.json`` and ``pan_pred/<video>/<frame>.png``.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32
from PIL import Image

from cavis.evaluation import segmentation_tracking_quality as tracking_quality
from cavis.evaluation import video_panoptic_quality as panoptic_quality
from cavis.evaluation.panoptic_overlap import PanopticCategory, PanopticFrame, PanopticSegment, measure_overlap
from cavis.evaluation.segmentation_tracking_quality import StqCounts, StqMetrics
from cavis.evaluation.video_panoptic_quality import TubeCounts, VpqMetrics


@dataclass(frozen=True)
class PanopticVideo:
    """One video; its frames are read one at a time, and only when asked for."""

    name: str
    frames: tuple[tuple[Path, tuple[PanopticSegment, ...]], ...] = field(repr=False)
    """The PNG of each frame and what is listed in it."""

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[PanopticFrame]:
        """The frames in order; a ValueError that names the file if one cannot be read."""
        for path, segments in self.frames:
            yield PanopticFrame(read_ids(path), segments)


@dataclass(frozen=True)
class PanopticDataset:
    """The annotations of some videos."""

    path: Path
    """The annotation file."""
    categories: tuple[PanopticCategory, ...]
    """In ascending order of the ids."""
    videos: tuple[PanopticVideo, ...] = field(repr=False)


@dataclass(frozen=True)
class VideoQuality:
    """What a prediction reached on one video."""

    name: str
    vpq: float
    stq: StqMetrics


@dataclass(frozen=True)
class PanopticMetrics:
    """What a prediction reached on a panoptic data set, in fractions."""

    vpq: VpqMetrics
    stq: StqMetrics
    per_video: tuple[VideoQuality, ...] = field(repr=False)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the categories, as in semantic segmentation."""
        return self.stq.mean_iou


def open_panoptic(file: str | Path, images: str | Path) -> PanopticDataset:
    """Open an annotation file and the folder of its PNGs; ValueErrors name the file, the video and the frame."""
    file, images = Path(file), Path(images)
    content = _load(file, ("annotations", "categories"))
    try:
        categories = tuple(
            PanopticCategory(int(one["id"]), str(one.get("name", one["id"])), bool(one["isthing"]))
            for one in sorted(content["categories"], key=lambda one: one["id"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: categories: expected an id and isthing for each, got {error!r}") from error
    return PanopticDataset(file, categories, tuple(_videos(file, content, images, categories).values()))


def open_panoptic_results(folder: str | Path, dataset: PanopticDataset) -> tuple[PanopticVideo, ...]:
    """Open predictions (``pred.json``, ``pan_pred/``) for the videos of a data set, in its order.

    A ValueError for a video that is missing or has another number of frames; other videos are left out.
    """
    folder = Path(folder)
    file = folder / "pred.json"
    found = _videos(file, _load(file, ("annotations",)), folder / "pan_pred", dataset.categories)
    for video in dataset.videos:
        if video.name not in found:
            raise ValueError(f"{file}: expected a prediction of video {video.name}, got none")
        if len(found[video.name]) != len(video):
            got = len(found[video.name])
            raise ValueError(f"{file}: video {video.name}: expected {len(video)} frames, got {got}")
    return tuple(found[video.name] for video in dataset.videos)


def evaluate_panoptic(
    dataset: PanopticDataset,
    predictions: tuple[PanopticVideo, ...],
    progress: Callable[[int], None] | None = None,
) -> PanopticMetrics:
    """VPQ, STQ and mean IoU of predictions as :func:`open_panoptic_results` returns them.

    One video is looked at at a time, frame by frame; ``progress`` is told the number of videos done. ValueErrors name
    the video and the frame.
    """
    tubes, pixels = TubeCounts.nothing(len(dataset.categories)), StqCounts.nothing(len(dataset.categories))
    rows = []
    for number, (truth, predicted) in enumerate(zip(dataset.videos, predictions, strict=True), start=1):
        try:
            overlap = measure_overlap(truth, predicted)
        except ValueError as error:
            raise ValueError(f"video {truth.name}: {error}") from error
        video_tubes = panoptic_quality.count_tubes(overlap, dataset.categories)
        video_pixels = tracking_quality.count_stq(overlap, dataset.categories)
        tubes, pixels = tubes + video_tubes, pixels + video_pixels
        vpq = panoptic_quality.summarise(video_tubes, dataset.categories).vpq
        rows.append(VideoQuality(truth.name, vpq, tracking_quality.stq(video_pixels)))
        if progress is not None:
            progress(number)
    vpq = panoptic_quality.summarise(tubes, dataset.categories)
    return PanopticMetrics(vpq, tracking_quality.stq(pixels), tuple(rows))


def panoptic_json(metrics: PanopticMetrics) -> dict[str, float]:
    """The headline numbers, as fractions; nan where there is nothing to measure."""
    windows = {f"VPQ{window.frames}": window.all.pq for window in metrics.vpq.windows}
    headline = {"VPQ": metrics.vpq.vpq, "VPQ_things": metrics.vpq.vpq_things, "VPQ_stuff": metrics.vpq.vpq_stuff}
    return headline | windows | {"STQ": metrics.stq.stq, "AQ": metrics.stq.aq, "SQ": metrics.stq.sq}


def read_ids(path: str | Path) -> Int32[np.ndarray, "H W"]:
    """The segment of each pixel of a PNG; a ValueError that names the file if it is not a readable colour picture."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise ValueError(f"{path}: expected a PNG in colour whose colours are ids, got mode {image.mode}")
            colours = np.asarray(image.convert("RGB"))
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "something else"
        raise ValueError(f"{path}: expected a PNG of segment ids, got {reason}") from error
    ids = colours[..., 2].astype(np.int32)
    for channel in (1, 0):
        ids <<= 8
        ids |= colours[..., channel]
    return ids


def _load(file: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: expected a json file, got {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{file}: expected a json file, got something else ({error})") from error
    lists = content if isinstance(content, dict) else {}
    missing = [name for name in needed if not isinstance(lists.get(name), list)]
    if missing:
        raise ValueError(f'{file}: expected a list of "{missing[0]}", got none')
    return content


def _videos(
    file: Path, content: dict[str, Any], images: Path, categories: tuple[PanopticCategory, ...]
) -> dict[str, PanopticVideo]:
    known = {category.id for category in categories}
    videos: dict[str, PanopticVideo] = {}
    for number, entry in enumerate(content["annotations"]):
        if not isinstance(entry, dict) or "video_id" not in entry or not isinstance(entry.get("annotations"), list):
            raise ValueError(f'{file}: annotation {number}: expected a "video_id" and its "annotations", got neither')
        name = str(entry["video_id"])
        if name in videos:
            raise ValueError(f"{file}: video {name}: expected one list of frames, got two")
        if not entry["annotations"]:
            raise ValueError(f"{file}: video {name}: expected at least one frame, got none")
        frames = []
        for t, frame in enumerate(entry["annotations"]):
            try:
                frames.append((images / name / str(frame["file_name"]), _segments(frame, known)))
            except (KeyError, TypeError, ValueError) as error:
                why = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"{file}: video {name}, frame {t}: {why}") from error
        videos[name] = PanopticVideo(name, tuple(frames))
    return videos


def _segments(frame: dict[str, Any], known: set[int]) -> tuple[PanopticSegment, ...]:
    segments = []
    for one in frame["segments_info"]:
        category, area = int(one["category_id"]), one.get("area")
        if category not in known:
            raise ValueError(f"segment {one['id']}: expected a category of the data set, got {category}")
        area = None if area is None else int(area)
        segments.append(PanopticSegment(int(one["id"]), category, bool(one.get("iscrowd", 0)), area))
    return tuple(segments)
