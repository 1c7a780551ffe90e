"""How fast this machine works, learnt from what it has done, so that visitors can be told how long it will take."""

import threading
from typing import Literal, get_args

from cavis.config import InferenceConfig
from cavis.inference.postprocess import network_size

Stage = Literal["reading", "tracking", "encoding", "drawing"]
STAGES: tuple[Stage, ...] = get_args(Stage)
_FIRST_GUESS: dict[Stage, float] = {"reading": 0.01, "tracking": 0.12, "encoding": 0.02, "drawing": 0.025}
"""Seconds a frame takes, before anything was measured: a laptop without a GPU."""
_TRUST = 0.5
"""Weight of the newest measurement."""
_FEWEST = 5
"""Frames below which a measurement says little."""


_WORK = 2.6
"""GFLOPs for each megabyte of weights and megapixel of a frame: 2.2 ... 2.9, counted for ResNet, Swin and ViT."""
_SPEED = {"cpu": 40.0, "mps": 500.0, "cuda": 5000.0}
"""GFLOPs a second that a machine may do; four cores of a laptop come to 40."""
_SHAPE = (900, 1600)


def first_guess(megabytes: float, inference: InferenceConfig, device: str = "cpu") -> float:
    """Seconds that the network takes for a frame of 16:9, guessed from the megabytes of its weights in fp32.

    ``device`` is the kind of a torch device. The truth may be a few times more or less.
    """
    height, width = network_size(*_SHAPE, inference.short_side, inference.max_side)
    return _WORK * megabytes * height * width / 1e6 / _SPEED.get(device, _SPEED["cpu"])


class Pace:
    """Seconds that one frame takes in each stage; safe to use from several threads.

    ``tracking`` is a better first guess for that stage than a small model's.
    """

    def __init__(self, tracking: float | None = None) -> None:
        self._seconds = dict(_FIRST_GUESS)
        if tracking is not None:
            self._seconds["tracking"] = tracking
        self._lock = threading.Lock()

    def learn(self, stage: Stage, frames: int, seconds: float) -> None:
        """Take in that ``frames`` frames took ``seconds``."""
        if frames < _FEWEST:
            return
        with self._lock:
            self._seconds[stage] += _TRUST * (seconds / frames - self._seconds[stage])

    def estimate(self, frames: int, stages: tuple[Stage, ...] = STAGES) -> float:
        """Seconds that ``frames`` frames will take in all of ``stages``."""
        with self._lock:
            return frames * sum(self._seconds[stage] for stage in stages)
