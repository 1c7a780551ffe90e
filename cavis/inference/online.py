"""Online inference: a video in, every instance tracked out, with memory that does not grow with the video.

``OnlinePredictor(load_model()).run(open_video("clip.mp4"))`` is exact: scores are averaged to the end.
``.step(frame)`` is live: scores are averaged so far.
"""

import threading
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cavis.checkpoints.hub import ReadyModel
from cavis.inference.postprocess import Sizes, best_slots, class_probabilities, network_size, to_network
from cavis.inference.predictor import Cancelled, Predictor, Progress, Times, Watch, check
from cavis.inference.ranking import Ranking
from cavis.inference.second_pass import (
    FirstPass,
    FrameMasks,
    RgbFrame,
    encode_masks,
    make_track,
    video_result,
)
from cavis.inference.spill import Spill
from cavis.model.association import sees
from cavis.records import ClipPrediction, FramePrediction, TrackerState, VideoResult

__all__ = ["Cancelled", "OnlinePredictor", "Progress", "RunningMean", "Watch", "windows"]


class Mean(NamedTuple):
    """A weighted mean that is still growing."""

    total: Float[Tensor, "Q K1"]
    count: Float[Tensor, "Q 1"]

    @classmethod
    def of(cls, logits: Float[Tensor, "T Q K1"], weights: Float[Tensor, "T Q 1"]) -> "Mean":
        """That of a window."""
        return cls((logits * weights).sum(dim=0), weights.sum(dim=0))

    def joined(self, before: "Mean | None") -> "Mean":
        """With what came before."""
        return self if before is None else Mean(self.total + before.total, self.count + before.count)


HIDDEN = -50.0
"""Mask logit of a track that is not seen; also in half precision no pixel of it is left."""


class RunningMean:
    """The class logits of every slot, averaged over the frames so far.

    With ``seen_above`` over those in which the slot sees an object with a probability above that, if there are any.
    """

    def __init__(self, *, seen_above: float | None = None) -> None:
        self.seen_above = seen_above
        self._all: Mean | None = None
        self._seen: Mean | None = None

    def add(self, logits: Float[Tensor, "T Q K1"]) -> None:
        """Take in the logits of a window."""
        logits = logits.float()
        self._all = Mean.of(logits, torch.ones_like(logits[..., :1])).joined(self._all)
        if self.seen_above is not None:
            self._seen = Mean.of(logits, sees(logits, self.seen_above).float()).joined(self._seen)

    def probabilities(self) -> Float[np.ndarray, "Q K1"]:
        """Class probabilities of the averaged logits (the mean comes before the softmax), last "no object"."""
        if self._all is None:
            raise ValueError("expected at least one frame, got none")
        mean = self._all.total / self._all.count
        if self._seen is not None:
            mean = torch.where(self._seen.count > 0, self._seen.total / self._seen.count.clamp(min=1), mean)
        return class_probabilities(mean)

    def scores(self) -> Float[np.ndarray, "Q K"]:
        """The same without "no object"."""
        return self.probabilities()[:, :-1]


class Keeper(FrameMasks, AbstractContextManager["Keeper"], Protocol):
    """What a first pass fills window by window, and the second pass reads; empty again when the context ends."""

    def add(self, frames: FramePrediction, tracks: ClipPrediction) -> None:
        """Keep the next window of the video. A SpillError says so if there is no room on the disk."""
        ...

    def probabilities(self, mean: RunningMean) -> Float[np.ndarray, "Q K1"]:
        """Class probabilities of every slot over the whole video, given the tracks' averaged logits; called once."""
        ...


class TrackedMasks(Spill):
    """The tracks' own masks, of every slot."""

    def add(self, frames: FramePrediction, tracks: ClipPrediction) -> None:
        """Keep the next window of the video. A SpillError says so if there is no room on the disk."""
        for masks, features in zip(tracks.mask_logits[0], slot_features(tracks), strict=True):
            self.write(masks.float().cpu().numpy(), features)

    def probabilities(self, mean: RunningMean) -> Float[np.ndarray, "Q K1"]:
        """Those of the averaged logits."""
        return mean.probabilities()


class OnlinePredictor(Predictor):
    """Runs a model over a video; :meth:`step` is live, the runs are exact.

    In a run, class logits are averaged to the end and only then it is decided what is kept; every slot's masks wait on
    disk meanwhile.
    """

    def __init__(self, ready: ReadyModel, *, top_k: int | None = None, window: int | None = None) -> None:
        super().__init__(ready, top_k=top_k, window=window)
        left_out = ready.about.config.reading.hidden == "left_out"
        self.seen_above = ready.inference.min_seen if left_out else None
        self.reset()

    def reset(self) -> None:
        """Forget the video of :meth:`step`; the next frame starts a new one."""
        self._state: TrackerState | None = None
        self._mean = RunningMean(seen_above=self.seen_above)
        self._ranking: Ranking | None = None
        self._steps = 0

    def step(self, frame: RgbFrame, timestamp: float | None = None) -> VideoResult:
        """Track through the next frame and return what is known now, as a result of one frame."""
        sizes = self._sizes(frame)
        _, prediction, self._state = self._forward([frame], sizes, self._state)
        self._mean.add(prediction.class_logits[0])
        self._ranking = self._ranking or Ranking(self.ready.inference, sizes)
        self._ranking.add(prediction.mask_logits[0])
        seconds = float(self._steps) if timestamp is None else timestamp
        self._steps += 1
        return self._live(prediction, 0, self._mean.scores(), self._ranking, sizes, seconds)

    def keeper(self) -> "Keeper":
        """Where a run's frames wait for the second pass."""
        return TrackedMasks()

    @contextmanager
    def first_pass(
        self,
        source: Iterable[RgbFrame],
        timestamps: Times | None = None,
        *,
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[FirstPass]:
        """Segment and track, window by window; what is kept on disk goes from there when the context ends."""
        times = timestamps if timestamps is not None else getattr(source, "timestamps", None)
        total = len(times) if times is not None else None
        check_times(total, len(source) if isinstance(source, Sized) else 0)
        mean = RunningMean(seen_above=self.seen_above)
        state, sizes, ranking, frame, done = None, None, None, None, 0
        with self.keeper() as kept:
            for window in windows(source, self.window):
                check(stop)
                check_times(total, done + len(window))
                sizes = sizes or self._sizes(window[0])
                frames, tracks, state = self._forward(window, sizes, state)
                mean.add(tracks.class_logits[0])
                if watch is not None:
                    ranking = ranking or Ranking(self.ready.inference, sizes)
                    ranking.add(tracks.mask_logits[0])
                kept.add(frames, tracks)
                for t, frame in enumerate(window):
                    done += 1
                    if watch is not None and ranking is not None:
                        live = partial(self._live, tracks, t, mean.scores(), ranking, sizes, float(done - 1))
                        watch(Progress("track", done, total, frame, live))
            if sizes is None or frame is None:
                raise ValueError("expected a video with at least one frame, got none")
            check(stop)
            seconds = np.asarray(np.arange(done) if times is None else times[:done], dtype=float)
            notes = tuple(getattr(source, "notes", ()))
            yield FirstPass(self.ready.about, kept.probabilities(mean), kept, sizes, seconds, frame, notes)

    @torch.inference_mode()
    def _forward(
        self, window: list[RgbFrame], sizes: Sizes, state: TrackerState | None
    ) -> tuple[FramePrediction, ClipPrediction, TrackerState]:
        for frame in window:
            if frame.shape != (*sizes.frame, 3) or frame.dtype != np.uint8:
                height, width = sizes.frame
                raise ValueError(f"expected RGB uint8 frames of {height} x {width}, got {frame.dtype} {frame.shape}")
        images = torch.stack([to_network(frame, sizes.network) for frame in window])[None]
        frames = self.ready.model.segmenter(images.to(self.ready.device))
        tracks, state = self.ready.model.track(frames, state)
        if self.seen_above is not None:
            hidden = ~sees(tracks.class_logits, self.seen_above)[..., None]
            tracks = replace(tracks, mask_logits=tracks.mask_logits.masked_fill(hidden, HIDDEN))
        return frames, tracks, state

    def _sizes(self, frame: RgbFrame) -> Sizes:
        if frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"expected an RGB frame [H, W, 3], got shape {frame.shape}")
        height, width = frame.shape[:2]
        config = self.ready.inference
        return Sizes((height, width), network_size(height, width, config.short_side, config.max_side))

    def _live(
        self,
        prediction: ClipPrediction,
        t: int,
        probabilities: Float[np.ndarray, "Q K"],
        ranking: Ranking,
        sizes: Sizes,
        seconds: float,
    ) -> VideoResult:
        """One frame of a window with the scores known so far."""
        shown = ranking.choose(best_slots(probabilities, self.top_k), probabilities)
        masks = encode_masks(prediction.mask_logits[0, t, list(shown)].float().cpu(), sizes)
        features, about = slot_features(prediction)[t], self.ready.about
        tracks = [
            make_track(slot, scores, [mask], features[None, slot], about.config.hidden)
            for (slot, scores), mask in zip(shown.items(), masks, strict=True)
        ]
        return video_result(about, tracks, sizes.frame, np.array([seconds]))


def check_times(times: int | None, frames: int) -> None:
    """A ValueError for fewer timestamps than frames, as far as these are known; what is left over is no fault."""
    if times is not None and times < frames:
        raise ValueError(f"expected at least {frames} timestamps, one for each frame, got {times}")


def windows(source: Iterable[RgbFrame], size: int) -> Iterator[list[RgbFrame]]:
    """Cut a stream of frames into lists of ``size``; the last one may be shorter."""
    stream = iter(source)
    while window := list(islice(stream, size)):
        yield window


def slot_features(tracks: ClipPrediction) -> Float[np.ndarray, "T Q D"]:
    """Core and context-aware features of a window, side by side; the segmenter's, in track order."""
    both = torch.cat((tracks.core[0], tracks.context_aware[0]), dim=-1)
    return both.float().cpu().numpy()
