"""What all predictors share: three tasks, progress, and the way to stop."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float

from cavis.checkpoints.hub import ReadyModel
from cavis.inference.panoptic import PanopticResult, panoptic
from cavis.inference.second_pass import FirstPass, RgbFrame, instances, video_result
from cavis.inference.semantic import SemanticResult, semantic
from cavis.records import VideoResult


class Cancelled(Exception):  # noqa: N818 - a decision, not an error
    """The caller asked the work to stop."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    stage: Literal["track", "encode"]
    done: int
    """Frames finished in this stage."""
    total: int | None
    frame: RgbFrame
    """The last frame finished."""
    live: Callable[[], VideoResult]
    """Draws up its tracks as they look at this point (one frame; without tracks in the second stage)."""


Watch = Callable[[Progress], None]
Times = Float[np.ndarray, "T"]


def check(stop: threading.Event | None) -> None:
    """Raise :class:`Cancelled` if ``stop`` is set."""
    if stop is not None and stop.is_set():
        raise Cancelled


class Predictor(ABC):
    """Runs a model over whole videos, in two passes; a subclass knows the first one.

    Every ``run`` takes the frames of a video and optionally their ``timestamps`` (those of the source are used else, or
    one frame a second); ``watch`` is called after every frame of both passes; a set ``stop`` raises :class:`Cancelled`.
    ``min_score`` and ``min_visible_share`` of the panoptic task are those of ``ready.inference``.
    """

    def __init__(self, ready: ReadyModel, *, top_k: int | None = None, window: int | None = None) -> None:
        self.ready = ready
        self.top_k = top_k or ready.inference.top_k
        self.window = window or ready.inference.window

    @abstractmethod
    def first_pass(
        self,
        source: Iterable[RgbFrame],
        timestamps: Times | None = None,
        *,
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> AbstractContextManager[FirstPass]:
        """Run the network over the video; what it leaves for the second pass is gone when the context ends."""

    def run(
        self,
        source: Iterable[RgbFrame],
        timestamps: Times | None = None,
        *,
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> VideoResult:
        """Track a whole video, by the model's own task.

        The tracks of a panoptic model are its segments, those of a semantic model the classes it sees.
        """
        match self.ready.inference.task:
            case "panoptic":
                return self.run_panoptic(source, timestamps, watch=watch, stop=stop).as_video()
            case "semantic":
                return self.run_semantic(source, timestamps, watch=watch, stop=stop).as_video()
        return self.run_instances(source, timestamps, watch=watch, stop=stop)

    def run_instances(
        self,
        source: Iterable[RgbFrame],
        timestamps: Times | None = None,
        *,
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> VideoResult:
        """Track the instances of a whole video (VIS): of the ``top_k`` most probable (track, class) pairs."""
        with self.first_pass(source, timestamps, watch=watch, stop=stop) as first:
            rule = replace(self.ready.inference, top_k=self.top_k)
            return instances(first, rule, encoded(first, watch, stop))

    def run_panoptic(
        self,
        source: Iterable[RgbFrame],
        timestamps: Times | None = None,
        *,
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> PanopticResult:
        """Divide every frame of a video among things and stuff (VPS)."""
        with self.first_pass(source, timestamps, watch=watch, stop=stop) as first:
            rule = self.ready.inference
            return panoptic(first, rule.min_score, rule.min_visible_share, encoded(first, watch, stop))

    def run_semantic(
        self,
        source: Iterable[RgbFrame],
        timestamps: Times | None = None,
        *,
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> SemanticResult:
        """Name the class of every pixel of a video (VSS)."""
        with self.first_pass(source, timestamps, watch=watch, stop=stop) as first:
            return semantic(first, encoded(first, watch, stop))


def encoded(first: FirstPass, watch: Watch | None, stop: threading.Event | None) -> Iterator[int]:
    """The frame numbers of the second pass; between two of them it may be stopped, and is reported."""
    empty = partial(video_result, first.about, (), first.sizes.frame, np.zeros(1))
    for t in range(first.kept.frames):
        check(stop)
        yield t
        if watch is not None:
            watch(Progress("encode", t + 1, first.kept.frames, first.frame, empty))
