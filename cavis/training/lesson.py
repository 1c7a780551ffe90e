"""A stage to watch: short, on the twins' world, from weights roughened so that learning shows at once.

:meth:`Lesson.run` yields plain records; whoever draws them needs to know nothing of the model.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel, find_model
from cavis.config import Preset, Stage, StageConfig
from cavis.data.loaders import TwinsSource
from cavis.data.synthetic import TwinsClip, TwinsConfig, clip_seed
from cavis.inference.choose import predictor_for
from cavis.model import Cavis
from cavis.presets import LABORATORY_MODEL, tiny
from cavis.training.log import StepReport
from cavis.training.loop import Run, train
from cavis.training.start import fresh_model, schedule_of
from cavis.visualization.overlay import DrawnTrack, OverlayStyle, draw, render_frame
from cavis.visualization.palette import colour

ROUGH = {"segmenter": 0.5, "tracker": 0.4, "refiner": 0.4}
"""How much is replaced by untrained weights at first: of the segmenter's heads, of all of the tracker and refiner."""
MIN_SCORE = 0.4
"""Tracks below it are not drawn."""
_FIXED = TwinsConfig(through=1.0, hidden_crossings=0.0, singles=(0, 0), obstacles=(0, 0), frames=24)
_WATCHED = range(4, 20, 2)
"""The frames of the fixed clip that the model runs on; every second one is drawn."""


class PartMoved(NamedTuple):
    """One part of the model, and how far training has carried it."""

    name: str
    learns: bool
    moved: float
    """Distance of all its weights from where they were at first, in lengths of those: 0 is not at all."""


@dataclass(frozen=True)
class LessonStep:
    """What there is to see after one step."""

    step: int
    steps: int
    loss: float
    terms: dict[str, float]
    learning_rate: float
    seconds: float
    clips: int
    """Clips the step learned from."""
    parts: tuple[PartMoved, ...]
    picture: UInt8[np.ndarray, "H W 3"] | None
    """Predictions on the fixed clip, where this step looked."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One stage of ``tiny``, cut down to minutes; its checkpoint and log go to ``folder``, from where it goes on."""

    stage: Stage
    folder: Path
    steps: int = 120
    look_every: int = 10
    """Steps between two looks at the fixed clip."""
    seed: int = 0

    @property
    def preset(self) -> Preset:
        """What is trained."""
        return tiny()

    @property
    def schedule(self) -> StageConfig:
        """That of the preset, shortened, with fewer clips a step and without the slow start."""
        plan = schedule_of(self.preset, self.stage, self.steps)
        clips, frames = (2, plan.frames) if self.stage == "segmenter" else (1, min(plan.frames, 8))
        return replace(plan, clips_per_step=clips, frames=frames, warmup=min(5, self.steps), learning_rate=5e-4)

    def start(self) -> Cavis:
        """The model the lesson begins with: trained, but for what is to learn, which is roughened."""
        trained = "tiny_refiner" if self.stage == "refiner" else LABORATORY_MODEL
        model = fresh_model(self.preset, self.stage, self.seed, find_model(trained))
        # Another seed than that of tiny's own training: its first heads still fit the network that grew around them.
        untrained = fresh_model(self.preset, self.stage, self.seed + 1_000_003)
        if self.stage == "segmenter":
            mix(model.segmenter.query_decoder.heads, untrained.segmenter.query_decoder.heads, ROUGH[self.stage])
        elif self.stage == "tracker" and model.tracker is not None and untrained.tracker is not None:
            mix(model.tracker, untrained.tracker, ROUGH[self.stage])
        elif model.refiner is not None and untrained.refiner is not None:
            mix(model.refiner, untrained.refiner, ROUGH[self.stage])
        return model

    def run(self) -> Iterator[LessonStep]:
        """Train, from the folder's checkpoint if there is one; closing the iterator leaves a checkpoint."""
        model = self.start()
        before = {name: [p.detach().clone() for p in part.parameters()] for name, part in parts_of(model)}
        run = Run(
            preset=self.preset,
            stage=self.stage,
            schedule=self.schedule,
            seed=self.seed,
            folder=self.folder,
            checkpoint_every=max(20, self.look_every),
            workers=0,  # a forked worker and a notebook's threads do not go together
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        with closing(cast("Generator[StepReport]", train(run, model, TwinsSource()))) as reports:
            for report in reports:
                yield self._step(report, model, before)

    def before(self) -> UInt8[np.ndarray, "H W 3"]:
        """What the model of the first step sees in the fixed clip."""
        return look(self.start(), self.preset, self.stage)

    def _step(self, report: StepReport, model: Cavis, before: dict[str, list[Tensor]]) -> LessonStep:
        looks = report.step % self.look_every == 0 or report.step in (1, report.steps)
        return LessonStep(
            step=report.step,
            steps=report.steps,
            loss=report.loss,
            terms=report.terms,
            learning_rate=report.learning_rate,
            seconds=report.seconds,
            clips=self.schedule.clips_per_step,
            parts=tuple(
                PartMoved(name, any(p.requires_grad for p in part.parameters()), distance(part, before[name]))
                for name, part in parts_of(model)
            ),
            picture=look(model, self.preset, self.stage) if looks else None,
        )


def parts_of(model: Cavis) -> list[tuple[str, nn.Module]]:
    """The parts that are named when it is told what learns."""
    segmenter = model.segmenter
    parts = [
        ("backbone", segmenter.backbone),
        ("pixel decoder", segmenter.pixel_decoder),
        ("query decoder", segmenter.query_decoder),
        ("context MLP", segmenter.context_mlp),
        ("tracker", model.tracker),
        ("refiner", model.refiner),
    ]
    return [(name, part) for name, part in parts if part is not None]


@torch.no_grad()
def distance(part: nn.Module, before: list[Tensor]) -> float:
    """How far the weights of a part are from what they were, in lengths of those."""
    pairs = list(zip(part.parameters(), before, strict=True))
    moved = sum(float((now - then).square().sum()) for now, then in pairs)
    length = sum(float(then.square().sum()) for _, then in pairs)
    return (moved / length) ** 0.5 if length else 0.0


def look(model: Cavis, preset: Preset, stage: Stage) -> UInt8[np.ndarray, "H W 3"]:
    """Predictions on the fixed clip, as a row of frames; the model is left as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    about = ModelFile("lesson", preset.name, preset.model, stage, "")
    world = fixed_clip()
    frames = [world.render(t)[0] for t in _WATCHED]
    try:
        result = predictor_for(ReadyModel(model, about, preset.inference, "")).run(frames)
    finally:
        for module, training in modes.items():
            module.training = training
    shown = result.filter(MIN_SCORE)
    drawn = [render_frame(frames[t], shown, t, OverlayStyle(score=False)) for t in range(0, len(frames), 2)]
    return np.concatenate(drawn, axis=1)


def truth() -> UInt8[np.ndarray, "H W 3"]:
    """The fixed clip with the true masks, as a row of frames like those of :func:`look`."""
    world, drawn = fixed_clip(), []
    for t in list(_WATCHED)[::2]:
        picture, masks = world.render(t)
        whole = (0, 0, picture.shape[1], picture.shape[0])
        drawn.append(draw(picture, [DrawnTrack(mask, whole, colour(n)) for n, mask in enumerate(masks)]))
    return np.concatenate(drawn, axis=1)


def fixed_clip() -> TwinsClip:
    """The clip that all lessons look at."""
    return TwinsClip(clip_seed(2026, 1), _FIXED)


@torch.no_grad()
def mix(part: nn.Module, untrained: nn.Module, share: float) -> None:
    """Move the weights of a part towards untrained ones: 0 leaves them, 1 replaces them."""
    for weight, fresh in zip(part.parameters(), untrained.parameters(), strict=True):
        weight.lerp_(fresh, share)
