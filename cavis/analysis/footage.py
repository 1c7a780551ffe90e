"""Clips to analyse: video files, folders of frames, annotated data sets, the twins' world."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from cavis.data.annotated import AnnotatedVideos
from cavis.data.faults import DataError
from cavis.data.layouts import recognise
from cavis.data.opening import open_annotated
from cavis.data.synthetic import CATEGORIES, TwinsClip, TwinsConfig, clip_seed
from cavis.video import VideoError, VideoSource, clips_at, open_video

_FPS = 10.0


class Truth(NamedTuple):
    """What is annotated in one frame; ids belong to the same object in all frames of the clip."""

    ids: tuple[int, ...]
    categories: tuple[str, ...]
    masks: Bool[np.ndarray, "N H W"]


@dataclass(frozen=True)
class Footage:
    """A clip that can be opened, and what is annotated in it."""

    name: str
    """Unique among the clips of one analysis."""
    open: Callable[[], VideoSource]
    """Its frames, to be read from the first one; close them (a context manager)."""
    truth: Callable[[int], Truth] | None = None
    """What is annotated in a frame; None where nothing is known of the clip."""


class TwinsSource(VideoSource):
    """A clip of the twins' world as frames to read."""

    def __init__(self, clip: TwinsClip) -> None:
        self._clip = clip
        self.height, self.width = clip.config.height, clip.config.width
        self.timestamps = np.arange(len(clip)) / _FPS

    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._clip.render(index)[0]


def twins(clips: int, seed: int = 0, config: TwinsConfig = TwinsConfig()) -> list[Footage]:  # noqa: B008 - frozen
    """Clips of the twins' world with their annotations: those that ``synthesize`` writes for the same seed.

    Ids are the objects' places in the clip. With ``companions=False`` in ``config`` they are the same clips, without
    the companions. A ValueError for fewer than one clip.
    """
    if clips < 1:
        raise ValueError(f"expected at least 1 clip, got {clips}")
    return [_twins_footage(TwinsClip(clip_seed(seed, index), config), f"twins {index}") for index in range(clips)]


def open_footage(path: str | Path) -> list[Footage]:
    """The clips at a path: one for a video file or a folder of frames, all of a folder of such or of an annotated set.

    What a folder is, its content tells. A ValueError (DataError, VideoError) says why a path cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"expected a video file, a folder of frames or an annotated data set, got no {path}")
    if path.is_dir() or path.suffix in (".json", ".txt"):
        try:
            recognise(path)
        except DataError:
            if not path.is_dir() or any(path.glob("*.json")):  # what looks like annotations is no folder of clips
                raise
            try:
                clips = clips_at(path)
            except VideoError:
                clips = {}
            if not clips:
                raise
            return [Footage(name, partial(open_video, clip)) for name, clip in clips.items()]
        else:
            return of_dataset(open_annotated(path), path.name)
    return [Footage(path.name, lambda: open_video(path))]


def of_dataset(dataset: AnnotatedVideos, name: str = "video") -> list[Footage]:
    """All videos of an annotated data set; ``name`` begins the names of the clips."""
    return [_annotated_footage(dataset, index, f"{name} {index}") for index in range(len(dataset))]


def _annotated_footage(dataset: AnnotatedVideos, index: int, name: str) -> Footage:
    def truth(frame: int) -> Truth:
        targets = dataset.clip(index, [frame]).targets
        categories = tuple(dataset.names[label] for label in targets.labels.tolist())
        return Truth(tuple(targets.ids.tolist()), categories, targets.masks[:, 0].numpy())

    return Footage(name, lambda: dataset.source(index), truth)


def _twins_footage(clip: TwinsClip, name: str) -> Footage:
    categories = tuple(CATEGORIES[label] for label in clip.labels)

    def truth(frame: int) -> Truth:
        return Truth(tuple(range(len(categories))), categories, clip.render(frame)[1])

    return Footage(name, lambda: TwinsSource(clip), truth)
