"""Training watches itself: a step that is not finite, or a loss that runs away, stops the run and can be looked at."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from cavis.checkpoints.files import CheckpointError, read_training, save_training
from cavis.config import Preset, Stage
from cavis.losses.criterion import Terms
from cavis.model import Cavis
from cavis.records import ClipBatch, Targets
from cavis.training.stages import STAGES

FAILED_STEP = "failed_step.pt"
WINDOW = 200
"""Losses the running median is taken over."""
PATIENCE = 50
"""Steps in a row that a loss may be far above the median."""
FACTOR = 10.0
"""What is far above: times the median."""
OWN_DRAWS = 1
"""Ends the numbers of the streams that are no clip's."""


class DivergedError(FloatingPointError):
    """The loss has been far above its running median for many steps."""


class LossWatch:
    """Looks at the loss of every step after the warm-up, and says when it runs away.

    Far losses do not enter the median, or it would follow them.
    """

    def __init__(self, warmup: int, seen: Iterable[tuple[int, float]] = ()) -> None:
        self.warmup = warmup
        self._usual: deque[float] = deque(maxlen=WINDOW)
        self._far = 0
        for step, loss in seen:
            self._count(step, loss)

    def check(self, step: int, loss: float) -> None:
        """Take in the loss of a step (from 1); a DivergedError after :data:`PATIENCE` far ones in a row."""
        self._count(step, loss)
        if self._far >= PATIENCE:
            raise DivergedError(
                f"the loss diverges: for {self._far} steps up to step {step} it was above {FACTOR:g} times its running "
                f"median of {median(self._usual):.4g} (now {loss:.4g}); expected a lower learning rate or other data"
            )

    def _count(self, step: int, loss: float) -> None:
        if step <= self.warmup:
            return
        ready = len(self._usual) >= PATIENCE
        if ready and loss > FACTOR * median(self._usual):
            self._far += 1
        else:
            self._far = 0
            self._usual.append(loss)


@dataclass(frozen=True)
class FailedStep:
    """A step that went wrong, with all that is needed to compute it again."""

    stage: Stage
    step: int
    """Counts from 1."""
    steps: int
    seed: int
    batch: ClipBatch
    terms: dict[str, float]
    weights: dict[str, Tensor]


def point_draws(seed: int, done: int, slots: Iterable[int]) -> tuple[torch.Generator, ...]:
    """The streams of random points of the clips in some slots of the step that follows ``done`` steps.

    One for each clip, so that its points do not depend on which other clips a process has.
    """
    return tuple(torch.Generator().manual_seed(stream_seed(seed, done, slot)) for slot in slots)


def stream_seed(*numbers: int) -> int:
    """One seed out of several numbers; near numbers give streams that have nothing in common."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def seed_layers(seed: int, done: int, rank: int = 0) -> None:
    """What layers draw by themselves (Swin drops whole paths) is a function of the step and the process, too."""
    torch.manual_seed(stream_seed(seed, done, rank, OWN_DRAWS))


def clips_of_step(seed: int, done: int, clips: int) -> str:
    """Where a step's clips come from, for a sentence: the seed and every (step, slot) its streams are seeded with."""
    slots = ", ".join(f"({done}, {slot})" for slot in range(clips))
    return f"seed {seed}, clips (step, slot) {slots}"


def save_failed(path: Path, failed: FailedStep) -> None:
    """Write a failed step; one that cannot be written is an OSError."""
    plain = vars(failed) | {
        "batch": {"frames": failed.batch.frames, "targets": [vars(clip) for clip in failed.batch.targets]},
        "weights": dict(failed.weights),
    }
    save_training(path, plain)


def read_failed(path: Path) -> FailedStep:
    """Read what :func:`save_failed` wrote; a CheckpointError says what is wrong with another file."""
    state = read_training(path)
    try:
        batch = state.pop("batch")
        targets = tuple(Targets(**clip) for clip in batch["targets"])
        return FailedStep(**state, batch=ClipBatch(batch["frames"], targets))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"expected a failed step in {path}, got another file: {error}") from error


def replay(path: Path, preset: Preset, model: Cavis) -> Terms:
    """Compute the terms of a failed step again, in full precision, with its weights loaded into ``model``.

    The terms carry gradients: ``sum(terms.values()).backward()`` shows where they break.
    """
    failed = read_failed(path)
    model.load_state_dict(failed.weights)
    done = failed.step - 1
    stage = STAGES[failed.stage](model, preset)
    seed_layers(failed.seed, done)
    draws = point_draws(failed.seed, done, range(len(failed.batch.targets)))
    return stage.terms(failed.batch, done / failed.steps, draws)


def not_finite(terms: dict[str, float]) -> list[str]:
    """The names of the terms that are infinite or not a number."""
    return [name for name, value in terms.items() if not math.isfinite(value)]
