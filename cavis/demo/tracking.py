"""The work on one clip, from the upload to the files, in a thread that is watched and can be stopped."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from cavis.demo.exports import draw_video
from cavis.demo.jobs import Job
from cavis.demo.limits import DemoLimits, Part
from cavis.demo.models import NOT_HERE, ModelError, Models
from cavis.demo.pace import STAGES, Pace, Stage
from cavis.demo.viewer import View
from cavis.inference.predictor import Cancelled, Predictor, Progress
from cavis.records import VideoResult
from cavis.video import VideoCancelledError, VideoError, sanitize
from cavis.visualization.overlay import render_frame

_PREVIEW_SECONDS = 0.5
_PATIENCE = 0.3
"""Seconds after which a run that waits for another looks whether it is still wanted."""


@dataclass(frozen=True)
class Update:
    """How far the work is."""

    stage: Stage
    done: int
    total: int
    """Frames."""
    fraction: float
    """Of the whole work, judged by time, 0 ... 1."""
    remaining: float
    """Seconds until all stages are done."""
    rate: float
    """Frames per second in this stage; 0 while unknown."""
    preview: UInt8[np.ndarray, "H W 3"] | None = None
    """The last frame as it looks so far; None where there is no new one."""


class Watcher:
    """Where the work says how far it is, and where it learns that it is to stop."""

    def __init__(self, stages: tuple[Stage, ...], frames: int, pace: Pace, seconds: float, stop: threading.Event):
        self.stop = stop
        self._stages, self._total, self._pace = stages, frames, pace
        self._begun, self._limit = time.monotonic(), seconds
        self._lock = threading.Lock()
        self._preview: UInt8[np.ndarray, "H W 3"] | None = None
        self._shown = 0.0
        self._enter(stages[0])

    def _enter(self, stage: Stage) -> None:
        self._stage: Stage = stage
        self._entered, self._done = time.monotonic(), 0

    def begin(self, pace: Pace) -> None:
        """The work's turn has come: from now on its time counts, and teaches ``pace``."""
        with self._lock:
            self._pace, self._begun = pace, time.monotonic()
            self._enter(self._stage)

    def check(self) -> None:
        """Cancelled if the work is to stop."""
        if self.stop.is_set():
            raise Cancelled

    def report(self, stage: Stage, done: int, total: int | None = None) -> None:
        """``done`` frames of a stage are finished; Cancelled if it is enough, VideoError if it took too long."""
        self.check()
        if time.monotonic() - self._begun > self._limit:
            raise VideoError(
                f"This took longer than the {self._limit / 60:.0f} minutes one run may take; choose a shorter part."
            )
        with self._lock:
            if stage != self._stage:
                self._leave(complete=True)
                self._enter(stage)
            self._done, self._total = done, total or self._total

    def finish(self, complete: bool) -> None:
        """The work has ended; ``complete``: with all of its frames."""
        with self._lock:
            self._leave(complete)

    def _leave(self, complete: bool) -> None:
        frames = self._done or (self._total if complete else 0)
        self._pace.learn(self._stage, frames, time.monotonic() - self._entered)

    def wants_preview(self) -> bool:
        """Whether it is time for another picture."""
        return time.monotonic() - self._shown > _PREVIEW_SECONDS

    def show(self, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """Hand over a picture."""
        with self._lock:
            self._preview, self._shown = picture, time.monotonic()

    def update(self) -> Update:
        """How far the work is now."""
        with self._lock:
            now = time.monotonic()
            rate = self._done / (now - self._entered) if self._done else 0.0
            later = self._stages[self._stages.index(self._stage) + 1 :]
            here = (
                (self._total - self._done) / rate
                if rate
                else max(0.0, self._pace.estimate(self._total, (self._stage,)) - (now - self._entered))
            )
            remaining = here + self._pace.estimate(self._total, later)
            elapsed = now - self._begun
            preview, self._preview = self._preview, None
            fraction = elapsed / (elapsed + remaining) if elapsed + remaining > 0 else 0.0
            return Update(self._stage, self._done, self._total, fraction, remaining, rate, preview)


def follow(work: Callable[[], None], watcher: Watcher, interval: float = 0.3) -> Iterator[Update]:
    """Do ``work`` in a thread and tell every ``interval`` seconds how far it is; what it raises is raised here.

    Closing the iterator tells the work to stop and does not wait until it has: gradio closes it where it serves all
    visitors. What work that was stopped raises is a :class:`Cancelled` without a past, which would keep its memory.
    """
    failures: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised again where somebody listens
            failures.append(Cancelled() if watcher.stop.is_set() else error)
        finally:
            watcher.finish(complete=not failures)
            ended.set()

    thread = threading.Thread(target=run, name="cavis-demo-work", daemon=True)
    thread.start()
    try:
        while not ended.wait(interval):
            yield watcher.update()
    finally:
        if not ended.is_set():
            watcher.stop.set()
    thread.join()
    if failures:
        raise failures.pop()


class Run(NamedTuple):
    """What works on a clip, and who watches it."""

    predictor: Predictor
    watcher: Watcher


class Tracker:
    """Runs the models for visitors, one clip at a time."""

    def __init__(self, models: Models, limits: DemoLimits) -> None:
        self.models, self.limits = models, limits
        self._one_at_a_time = threading.Lock()

    def refusal(self, job: Job) -> str | None:
        """Why the job's model cannot run, in a sentence; None if it can."""
        try:
            offer = self.models.offer(job.model)
        except ModelError as error:
            return str(error)
        return None if offer.here else NOT_HERE.format(offer.name)

    def estimate(self, job: Job, frames: int) -> float:
        """Seconds that tracking ``frames`` frames will take with the job's model; a ModelError if there is none."""
        return self.models.pace(job.model).estimate(frames)

    def track(self, job: Job, part: Part, view: View) -> Iterator[Update]:
        """Track a part of the job's upload: afterwards the job has a result, a video with the tracks, and files.

        A ModelError if its model cannot be had. Other work on the job is stopped.
        """
        frames = part.frames(job.info) if job.info else 1
        job.cancel()
        with job.busy() as stop:
            pace = self.models.pace(job.model)
            watcher = Watcher(STAGES, max(1, frames), pace, self.limits.seconds, stop)
            yield from follow(lambda: self._work(job, part, view, watcher), watcher)

    def redraw(self, job: Job, view: View) -> Iterator[Update]:
        """Draw the tracks of a finished job in another way; the network does not run."""
        assert job.result is not None
        with job.busy() as stop:
            pace = self.models.first.pace  # of drawing, which no model changes
            watcher = Watcher(("drawing",), len(job.result), pace, self.limits.seconds, stop)
            yield from follow(lambda: self._draw(job, view, watcher), watcher)

    def _work(self, job: Job, part: Part, view: View, watcher: Watcher) -> None:
        with job.working(), self._turn(watcher):
            model = self.models.get(job.model)  # only now, for a run before this one may have held another
            watcher.begin(model.pace)
            notes = self._read(job, part, watcher)
            result = self._run(job, view, Run(model.predictor, watcher))
            watcher.check()
            job.result = replace(result, notes=(*notes, *result.notes))
        self._draw(job, view, watcher)

    @contextmanager
    def _turn(self, watcher: Watcher) -> Iterator[None]:
        """Wait until nothing else runs: a cancelled run ends with its window, and until then it holds its memory."""
        while not self._one_at_a_time.acquire(timeout=_PATIENCE):
            watcher.check()
        try:
            watcher.check()
            yield
        finally:
            self._one_at_a_time.release()

    def _read(self, job: Job, part: Part, watcher: Watcher) -> tuple[str, ...]:
        watcher.report("reading", 0)
        job.forget_clip()
        try:
            info = sanitize(
                job.upload,
                job.clip,
                self.limits.video,
                start=part.start,
                end=part.end,
                stride=part.stride,
                max_short_side=self.limits.short_side,
                cancel=watcher.stop,
            )
        except VideoCancelledError as error:
            raise Cancelled from error
        return info.notes

    def _run(self, job: Job, view: View, run: Run) -> VideoResult:
        watcher = run.watcher

        def watch(progress: Progress) -> None:
            watcher.report("tracking" if progress.stage == "track" else "encoding", progress.done, progress.total)
            if progress.stage == "track" and watcher.wants_preview():
                live = progress.live().filter(view.min_score)
                watcher.show(render_frame(progress.frame, live, 0, view.style))

        source = job.source()
        watcher.report("tracking", 0, len(source))
        return run.predictor.run(source, watch=watch, stop=watcher.stop)

    def _draw(self, job: Job, view: View, watcher: Watcher) -> None:
        draw_video(job, view, lambda done: watcher.report("drawing", done))
