"""A trained model taught the categories of another data set: the segmenter stage, then the tracker stage."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cavis.categories import plain_name
from cavis.checkpoints.files import CheckpointError, ModelFile, read_model_file, write_model
from cavis.config import Augmentation, Preset, Stage, StageConfig
from cavis.data.opening import open_annotated
from cavis.presets import get_preset

OWN_STAGES: tuple[Stage, ...] = ("segmenter", "tracker")
STEPS = 500
"""Of each stage, unless asked for otherwise."""
START = "start.safetensors"
_CLASS_HEAD = "class_head."


def categories_of(data: Sequence[str]) -> tuple[str, ...]:
    """The categories that all of the data sets have, in their order; a ValueError if they differ."""
    found = [open_annotated(one).names for one in data]
    for path, names in zip(data, found, strict=True):
        if names != found[0]:
            raise ValueError(f"expected the categories of {data[0]} in {path}, got {', '.join(names)}")
    return found[0]


def own_preset(about: ModelFile, names: tuple[str, ...], steps: int | None = None) -> Preset:
    """The preset of a model, for other categories: short schedules, clips brought to the size the model runs at.

    A ValueError for a model of another task than instances, and for a data set without categories.
    """
    base = get_preset(about.preset)
    if base.inference.task != "instance":
        raise ValueError(f"expected a model of the instance task to start from, got one of {base.inference.task}")
    if not names:
        raise ValueError("expected a data set with at least one category, got none")
    sizes = Augmentation(
        short_sides=(base.inference.short_side,), max_side=base.inference.max_side, flip=0.5, rotation=15.0
    )
    model = replace(about.config, categories=names)
    segmenter, tracker = (_short(base.stage(stage), steps or STEPS, sizes) for stage in OWN_STAGES)
    return replace(base, model=model, segmenter=segmenter, tracker=tracker)


def _short(schedule: StageConfig, steps: int, sizes: Augmentation) -> StageConfig:
    """A schedule of few steps: the learning rate drops after four fifths."""
    return replace(
        schedule,
        steps=steps,
        decay_at=(steps * 4 // 5,),
        warmup=min(schedule.warmup, steps // 10),
        augmentation=schedule.augmentation or sizes,
    )


def write_start(source: Path, preset: Preset, seed: int, out: Path) -> None:
    """Write the weights a run begins with: those of ``source``, with class heads for the preset's categories.

    A category of the same name (whatever its capitals, spaces and underscores) keeps its row, and so does "no object";
    the rows of new ones are drawn from ``seed``.
    """
    about, state = read_model_file(source)
    rows = _rows(about.config.categories, preset.model.categories)
    generator = torch.Generator().manual_seed(seed)
    weights = {key: _relabelled(key, value, rows, generator) for key, value in state.items()}
    write_model(out, weights, replace(about, config=preset.model))


def _rows(old: Sequence[str], new: Sequence[str]) -> list[int | None]:
    """For each row of the new class head that of the old one; None for a new category."""
    known = {plain_name(name): row for row, name in enumerate(old)}
    return [*(known.get(plain_name(name)) for name in new), len(old)]


def _relabelled(key: str, value: Tensor, rows: Sequence[int | None], generator: torch.Generator) -> Tensor:
    if _CLASS_HEAD not in key:
        return value
    fresh = 0.02 * torch.randn(len(rows), *value.shape[1:], generator=generator)
    fresh = fresh.to(value.dtype) if value.dim() > 1 else value[:-1].mean().expand(len(rows))
    return torch.stack([fresh[i] if row is None else value[row] for i, row in enumerate(rows)])


def write_joined(segmenter: Path, others: Path, out: Path) -> None:
    """Write a newly trained segmenter with the tracker of an older file; a CheckpointError if the models differ."""
    (about, new), (older, old) = read_model_file(segmenter), read_model_file(others)
    if about.config != older.config:
        raise CheckpointError(f"expected one model in {segmenter} and {others}, got two that differ")
    kept = {key: value for key, value in old.items() if not key.startswith("segmenter.")}
    missing = tuple(key for key in older.missing if not key.startswith("segmenter."))
    write_model(out, kept | new, replace(older, missing=missing))
