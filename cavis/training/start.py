"""How a run begins: fresh weights from a seed, or those of an earlier stage."""

from dataclasses import replace
from pathlib import Path

import torch

from cavis.checkpoints.files import CheckpointError, load_weights, read_model_file
from cavis.config import Preset, Stage, StageConfig
from cavis.data.loaders import ClipSource, FolderSource, TwinsSource
from cavis.data.ytvis_json import open_ytvis
from cavis.model import Cavis, build_model
from cavis.training.stages import copy_heads


def fresh_model(preset: Preset, stage: Stage, seed: int, start_from: Path | None = None) -> Cavis:
    """Build the model of a stage from a seed and put in the weights of ``start_from``, where it has them.

    The segmenter stage takes the segmenter of the file, the tracker stage the tracker too if there is one. A
    CheckpointError if the tracker stage has nothing to start from, or the weights do not fit the preset. What an
    imported starting point says it lacks stays fresh.
    """
    torch.manual_seed(seed)
    model = build_model(preset.model, stage)
    if start_from is None:
        return model
    about, state = read_model_file(start_from)
    parts = {"segmenter": model.segmenter} | ({"tracker": model.tracker} if model.tracker is not None else {})
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        missing = {key.removeprefix(f"{name}.") for key in about.missing}
        if own or name == "segmenter":
            fresh = {key: value for key, value in part.state_dict().items() if key in missing}
            load_weights(part, fresh | own, str(start_from))
        elif preset.tracker.heads_from_segmenter:
            copy_heads(model)
    return model


def require_start(stage: Stage, start_from: Path | None) -> None:
    """The tracker learns on a trained segmenter: a CheckpointError where none is named."""
    if stage == "tracker" and start_from is None:
        raise CheckpointError("expected a trained segmenter to start the tracker stage from, got none")


def schedule_of(preset: Preset, stage: Stage, steps: int | None = None) -> StageConfig:
    """The stage's schedule; with ``steps`` its milestones move along in proportion."""
    schedule = preset.stage(stage)
    if steps is None or steps == schedule.steps:
        return schedule
    if steps < 1:
        raise ValueError(f"expected at least one training step, got {steps}")
    milestones = tuple(round(milestone * steps / schedule.steps) for milestone in schedule.decay_at)
    return replace(schedule, steps=steps, decay_at=milestones, warmup=min(schedule.warmup, steps // 10))


def clip_source(data: str, preset: Preset) -> ClipSource:
    """``twins``, or a folder in YouTube-VIS form whose categories are the preset's (ValueError otherwise)."""
    if data == "twins":
        return TwinsSource()
    dataset = open_ytvis(data)
    if dataset.names != preset.model.categories:
        raise ValueError(
            f"expected the {len(preset.model.categories)} categories of preset {preset.name} in {data}, got "
            f"{', '.join(dataset.names)}"
        )
    return FolderSource(dataset)
