"""The training stages (Sec. 4.3): what learns, what is frozen, what is minimised.

A stage turns a batch into named loss terms; the loop does the rest.
"""

from typing import Protocol

import torch
from torch import nn

from cavis.config import Preset
from cavis.losses.criterion import SegmenterCriterion, Terms, TrackerCriterion
from cavis.model import Cavis
from cavis.model.association import reorder
from cavis.records import ClipBatch


class TrainingStage(Protocol):
    """What the loop needs to know of a stage."""

    model: Cavis
    learning: nn.Module
    """The part whose parameters are updated; everything else is frozen and in evaluation mode."""

    def terms(self, batch: ClipBatch, progress: float, generator: torch.Generator) -> Terms:
        """The weighted loss terms of a batch; ``progress`` runs from 0 to 1 over the stage."""
        ...


class SegmenterStage:
    """Stage 1: the segmenter learns instances and context-aware features (Eq. 12)."""

    def __init__(self, model: Cavis, preset: Preset) -> None:
        self.model = model
        self.learning = freeze_all_but(model, model.segmenter)
        self.criterion = SegmenterCriterion(preset.loss, preset.model.reading, preset.model.num_classes)

    def terms(self, batch: ClipBatch, progress: float, generator: torch.Generator) -> Terms:
        """L_S of the frames."""
        return self.criterion(self.model.segmenter(batch.frames), batch.targets, generator)


class TrackerStage:
    """Stage 2: the tracker learns to carry instances; the segmenter is frozen (Eq. 13)."""

    def __init__(self, model: Cavis, preset: Preset) -> None:
        if model.tracker is None:
            raise ValueError("expected a model with a tracker for the tracker stage, got one without")
        self.model = model
        self.tracker = model.tracker
        self.learning = freeze_all_but(model, self.tracker)
        self.criterion = TrackerCriterion(preset.loss, preset.model.reading, preset.model.num_classes)
        self.guided = preset.model.reading.guided_matching

    def terms(self, batch: ClipBatch, progress: float, generator: torch.Generator) -> Terms:
        """L_T of the clips; in the first half matched on the segmenter's predictions, if so chosen."""
        segmenter = self.model.segmenter
        with torch.no_grad():
            frames = segmenter(batch.frames)
        prediction, _ = self.tracker(frames, context_mlp=segmenter.context_mlp)
        guide = reorder(frames, prediction.order) if self.guided and progress < 0.5 else None
        return self.criterion(prediction, batch.targets, generator, guide=guide)


STAGES: dict[str, type[SegmenterStage] | type[TrackerStage]] = {"segmenter": SegmenterStage, "tracker": TrackerStage}


def freeze_all_but(model: nn.Module, part: nn.Module) -> nn.Module:
    """Let only ``part`` learn: the rest gets no gradient and stays in evaluation mode."""
    model.requires_grad_(False).eval()
    return part.requires_grad_(True).train()


def copy_heads(model: Cavis) -> None:
    """Start the tracker's class and mask heads from the segmenter's."""
    if model.tracker is not None:
        model.tracker.heads.load_state_dict(model.segmenter.query_decoder.heads.state_dict())
