"""Online inference: a video in, every instance tracked out, with memory that does not grow with the video.

``OnlinePredictor(load_model("tiny")).run(open_video("clip.mp4"))`` is exact: scores are averaged to the end.
``.step(frame)`` is live: scores are averaged so far.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cavis import rle
from cavis.checkpoints.hub import ReadyModel
from cavis.inference.postprocess import Sizes, best_slots, class_scores, instance_masks, network_size, to_network
from cavis.inference.spill import Spill
from cavis.records import ClipPrediction, Rle, Track, TrackerState, VideoResult

RgbFrame = UInt8[np.ndarray, "H W 3"]


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


class RunningMean:
    """The class logits of every slot, averaged over the frames so far."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._count = 0

    def add(self, logits: Float[Tensor, "T Q K1"]) -> None:
        """Take in the logits of a window."""
        total = logits.float().sum(dim=0)
        self._total = total if self._total is None else self._total + total
        self._count += len(logits)

    def scores(self) -> Float[np.ndarray, "Q K"]:
        """Class probabilities of the averaged logits (the mean comes before the softmax)."""
        if self._total is None:
            raise ValueError("expected at least one frame, got none")
        return class_scores(self._total / self._count)


class OnlinePredictor:
    """Runs a model over a video; :meth:`step` is live, :meth:`run` is exact."""

    def __init__(self, ready: ReadyModel, *, top_k: int | None = None, window: int | None = None) -> None:
        self.ready = ready
        self.top_k = top_k or ready.inference.top_k
        self.window = window or ready.inference.window
        self.reset()

    def reset(self) -> None:
        """Forget the video of :meth:`step`; the next frame starts a new one."""
        self._state: TrackerState | None = None
        self._mean = RunningMean()
        self._steps = 0

    def step(self, frame: RgbFrame, timestamp: float | None = None) -> VideoResult:
        """Track through the next frame and return what is known now, as a result of one frame."""
        sizes = self._sizes(frame)
        prediction, self._state = self._forward([frame], sizes, self._state)
        self._mean.add(prediction.class_logits[0])
        seconds = float(self._steps) if timestamp is None else timestamp
        self._steps += 1
        return self._live(prediction, 0, self._mean.scores(), sizes, seconds)

    def run(
        self,
        source: Iterable[RgbFrame],
        timestamps: Float[np.ndarray, "T"] | None = None,
        *,
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> VideoResult:
        """Track a whole video.

        Class logits are averaged to the end and only then the best tracks are chosen; every slot's masks wait on disk
        meanwhile and a second, light pass encodes those of the chosen ones. Without ``timestamps`` those of the
        source are used, or one frame a second. ``watch`` is called after every frame of both passes; a set ``stop``
        raises :class:`Cancelled` before the next window.
        """
        times = timestamps if timestamps is not None else getattr(source, "timestamps", None)
        total = len(times) if times is not None else None
        with Spill() as spill:
            mean, sizes, frame = self._first_pass(source, spill, total, watch, stop)
            times = np.arange(spill.frames, dtype=float) if times is None else times[: spill.frames]
            scores = mean.scores()
            slots = best_slots(scores, self.top_k)
            masks, features = self._second_pass(spill, slots, sizes, frame, watch, stop)
        tracks = tuple(
            self._track(slot, scores[slot], [row[i] for row in masks], features[:, i]) for i, slot in enumerate(slots)
        )
        notes = tuple(getattr(source, "notes", ()))
        return self._result(tracks, sizes.frame, np.asarray(times, dtype=float), notes)

    def _first_pass(
        self,
        source: Iterable[RgbFrame],
        spill: Spill,
        total: int | None,
        watch: Watch | None,
        stop: threading.Event | None,
    ) -> tuple[RunningMean, Sizes, RgbFrame]:
        """Segment and track, window by window; masks and features go to disk."""
        mean, state, sizes, frame = RunningMean(), None, None, None
        for window in windows(source, self.window):
            _check(stop)
            sizes = sizes or self._sizes(window[0])
            prediction, state = self._forward(window, sizes, state)
            mean.add(prediction.class_logits[0])
            for t, frame in enumerate(window):
                both = torch.cat((prediction.core[0, t], prediction.context_aware[0, t]), dim=-1)
                spill.write(prediction.mask_logits[0, t].float().cpu().numpy(), both.float().cpu().numpy())
                if watch is not None:
                    live = partial(self._live, prediction, t, mean.scores(), sizes, float(spill.frames - 1))
                    watch(Progress("track", spill.frames, total, frame, live))
        if sizes is None or frame is None:
            raise ValueError("expected a video with at least one frame, got none")
        return mean, sizes, frame

    def _second_pass(
        self,
        spill: Spill,
        slots: list[int],
        sizes: Sizes,
        frame: RgbFrame,
        watch: Watch | None,
        stop: threading.Event | None,
    ) -> tuple[list[list[Rle | None]], Float[np.ndarray, "T N D"]]:
        """Bring the chosen slots' masks to full size and encode them, frame by frame."""
        masks, features = [], []
        empty = partial(self._result, (), sizes.frame, np.zeros(1))
        for t in range(spill.frames):
            _check(stop)
            masks.append(encode_masks(torch.from_numpy(spill.masks(t, slots)), sizes))
            features.append(spill.features(t, slots))
            if watch is not None:
                watch(Progress("encode", t + 1, spill.frames, frame, empty))
        return masks, np.stack(features)

    @torch.inference_mode()
    def _forward(
        self, frames: list[RgbFrame], sizes: Sizes, state: TrackerState | None
    ) -> tuple[ClipPrediction, TrackerState]:
        for frame in frames:
            if frame.shape != (*sizes.frame, 3) or frame.dtype != np.uint8:
                height, width = sizes.frame
                raise ValueError(f"expected RGB uint8 frames of {height} x {width}, got {frame.dtype} {frame.shape}")
        images = torch.stack([to_network(frame, sizes.network) for frame in frames])[None]
        return self.ready.model(images.to(self.ready.device), state)

    def _sizes(self, frame: RgbFrame) -> Sizes:
        if frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"expected an RGB frame [H, W, 3], got shape {frame.shape}")
        height, width = frame.shape[:2]
        config = self.ready.inference
        return Sizes((height, width), network_size(height, width, config.short_side, config.max_side))

    def _live(
        self, prediction: ClipPrediction, t: int, scores: Float[np.ndarray, "Q K"], sizes: Sizes, seconds: float
    ) -> VideoResult:
        """One frame of a window with the scores known so far."""
        slots = best_slots(scores, self.top_k)
        masks = encode_masks(prediction.mask_logits[0, t, slots].float().cpu(), sizes)
        both = torch.cat((prediction.core[0, t], prediction.context_aware[0, t]), dim=-1).float().cpu().numpy()
        tracks = tuple(
            self._track(slot, scores[slot], [mask], both[None, slot]) for slot, mask in zip(slots, masks, strict=True)
        )
        return self._result(tracks, sizes.frame, np.array([seconds]))

    def _track(
        self, slot: int, scores: Float[np.ndarray, "K"], masks: list[Rle | None], features: Float[np.ndarray, "T D"]
    ) -> Track:
        width = self.ready.about.config.hidden
        boxes = np.array([rle.box(mask) if mask else (0.0, 0.0, 0.0, 0.0) for mask in masks])
        return Track(slot, scores, tuple(masks), boxes, features[:, :width], features[:, width:])

    def _result(
        self,
        tracks: tuple[Track, ...],
        size: tuple[int, int],
        timestamps: Float[np.ndarray, "T"],
        notes: tuple[str, ...] = (),
    ) -> VideoResult:
        about = self.ready.about
        ordered = tuple(sorted(tracks, key=lambda track: -track.score))
        return VideoResult(ordered, *size, timestamps, about.config.categories, about.name, notes)


def encode_masks(logits: Float[Tensor, "N h w"], sizes: Sizes) -> list[Rle | None]:
    """Full-size run-length masks; None where a mask is empty."""
    masks = instance_masks(logits, sizes).numpy()
    return [rle.encode(mask) if mask.any() else None for mask in masks]


def windows(source: Iterable[RgbFrame], size: int) -> Iterator[list[RgbFrame]]:
    """Cut a stream of frames into lists of ``size``; the last one may be shorter."""
    stream = iter(source)
    while window := list(islice(stream, size)):
        yield window


def _check(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise Cancelled
