"""The training stages (Sec. 4.3): what learns, what is frozen, what is minimised.

A stage turns a batch into named loss terms; the loop does the rest.
"""

from typing import Protocol

import torch
from torch import nn

from cavis.config import Preset, Stage
from cavis.losses.criterion import RefinerCriterion, SegmenterCriterion, Terms, TrackerCriterion
from cavis.losses.point_sampling import Draws
from cavis.losses.totals import Total, alone
from cavis.model import Cavis
from cavis.model.association import reorder
from cavis.model.layers import Attention, FeedForward
from cavis.model.refiner import TemporalConvolution
from cavis.records import ClipBatch


class TrainingStage(Protocol):
    """What the loop needs to know of a stage."""

    model: Cavis
    learning: nn.Module
    """The part whose parameters are updated; everything else is frozen and in evaluation mode."""

    def terms(self, batch: ClipBatch, progress: float, generator: Draws) -> Terms:
        """The weighted loss terms of a batch; ``progress`` runs from 0 to 1 over the stage.

        Where a stage is given a ``total`` that counts over several processes, the terms are this one's shares.
        """
        ...


class SegmenterStage:
    """Stage 1: the segmenter learns instances and context-aware features (Eq. 12)."""

    def __init__(self, model: Cavis, preset: Preset, total: Total = alone) -> None:
        self.model = model
        self.learning = freeze_all_but(model, model.segmenter)
        self.criterion = SegmenterCriterion(preset.loss, preset.model.reading, preset.model.num_classes, total)

    def terms(self, batch: ClipBatch, progress: float, generator: Draws) -> Terms:
        """L_S of the frames."""
        return self.criterion(self.model.segmenter(batch.frames), batch.targets, generator)


class TrackerStage:
    """Stage 2: the tracker learns to carry instances; the segmenter is frozen (Eq. 13)."""

    def __init__(self, model: Cavis, preset: Preset, total: Total = alone) -> None:
        if model.tracker is None:
            raise ValueError("expected a model with a tracker for the tracker stage, got one without")
        self.model = model
        self.tracker = model.tracker
        self.learning = freeze_all_but(model, self.tracker)
        self.criterion = TrackerCriterion(preset.loss, preset.model.reading, preset.model.num_classes, total)
        self.guided = preset.model.reading.guided_matching

    def terms(self, batch: ClipBatch, progress: float, generator: Draws) -> Terms:
        """L_T of the clips; in the first half matched on the segmenter's predictions, if so chosen."""
        segmenter = self.model.segmenter
        with torch.no_grad():
            frames = segmenter(batch.frames)
        prediction, _ = self.tracker(frames, context_mlp=segmenter.context_mlp)
        guide = reorder(frames, prediction.order) if self.guided and progress < 0.5 else None
        return self.criterion(prediction, batch.targets, generator, guide=guide)


class RefinerStage:
    """Stage 3: the temporal refiner learns to correct whole clips; segmenter and tracker are frozen."""

    def __init__(self, model: Cavis, preset: Preset, total: Total = alone) -> None:
        if model.refiner is None:
            raise ValueError("expected a model with a refiner for the refiner stage, got one without")
        self.model = model
        self.refiner = model.refiner
        self.learning = freeze_all_but(model, self.refiner)
        self.criterion = RefinerCriterion(preset.loss, preset.model.num_classes, total)
        self.guided = preset.model.reading.guided_matching

    def terms(self, batch: ClipBatch, progress: float, generator: Draws) -> Terms:
        """L_Inst of the clips; in the first half matched on the tracker's predictions, if so chosen."""
        with torch.no_grad():
            frames = self.model.segmenter(batch.frames)
            tracks, _ = self.model.track(frames)
        prediction = self.refiner.predict(tracks, frames)
        guide = tracks if self.guided and progress < 0.5 else None
        return self.criterion(prediction, batch.targets, generator, guide=guide)


STAGES: dict[Stage, type[SegmenterStage] | type[TrackerStage] | type[RefinerStage]] = {
    "segmenter": SegmenterStage,
    "tracker": TrackerStage,
    "refiner": RefinerStage,
}


def freeze_all_but(model: nn.Module, part: nn.Module) -> nn.Module:
    """Let only ``part`` learn: the rest gets no gradient and stays in evaluation mode."""
    model.requires_grad_(False).eval()
    return part.requires_grad_(True).train()


def start_silent(model: Cavis, stage: Stage) -> None:
    """Let a later stage's part start by saying what the part before it says.

    Its class and mask heads are copied, and the last linear layer of each branch of its blocks is zero: the blocks pass
    on what they get but for their norms, so that training starts from the results of the stage before.
    """
    before = model.segmenter.query_decoder.heads if stage == "tracker" else model.tracker and model.tracker.heads
    part = {"tracker": model.tracker, "refiner": model.refiner}.get(stage)
    if part is None or before is None:
        raise ValueError(f"expected a model with a {stage} and the part before it, got one without")
    part.heads.load_state_dict(before.state_dict())
    for module in part.blocks.modules():
        if isinstance(module, Attention):
            silence(module.out)
        elif isinstance(module, FeedForward):
            silence(module.contract)
        elif isinstance(module, TemporalConvolution):
            silence(module.narrow)


def silence(layer: nn.Linear | nn.Conv1d) -> None:
    """Let a layer answer zero; it learns from the first step on, what comes before it from the second."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
