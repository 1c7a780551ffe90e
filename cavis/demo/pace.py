"""How fast this machine works, learnt from what it has done, so that visitors can be told how long it will take."""

import threading
from typing import Literal, get_args

Stage = Literal["reading", "tracking", "encoding", "drawing"]
STAGES: tuple[Stage, ...] = get_args(Stage)
_FIRST_GUESS: dict[Stage, float] = {"reading": 0.01, "tracking": 0.12, "encoding": 0.02, "drawing": 0.025}
"""Seconds a frame takes, before anything was measured: a laptop without a GPU."""
_TRUST = 0.5
"""Weight of the newest measurement."""
_FEWEST = 5
"""Frames below which a measurement says little."""


class Pace:
    """Seconds that one frame takes in each stage; safe to use from several threads."""

    def __init__(self) -> None:
        self._seconds = dict(_FIRST_GUESS)
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
