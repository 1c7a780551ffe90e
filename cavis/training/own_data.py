"""A trained model taught the categories of another data set: the segmenter stage, then the tracker stage."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cavis.categories import plain_name
from cavis.checkpoints.files import CheckpointError, ModelFile, read_model_file, write_model
from cavis.config import Augmentation, Preset, Stage, StageConfig
from cavis.data.annotated import AnnotatedVideos
from cavis.data.faults import Fault
from cavis.data.held_out import Divided, Part, as_ytvis, can_be_written, divide
from cavis.data.layouts import splits
from cavis.data.loaders import ClipSource
from cavis.evaluation.shards import write_text
from cavis.model.layers import CLASS_HEAD
from cavis.presets import get_preset
from cavis.training.start import clips_of, mixed, open_for_training

OWN_STAGES: tuple[Stage, ...] = ("segmenter", "tracker")
STEPS = 500
"""Of each stage, unless asked for otherwise."""
SHARE = 0.1
"""Of the videos, that is kept to measure with, unless asked for otherwise."""
HELD_OUT = "held_out.json"
START = "start.safetensors"


class OwnData(NamedTuple):
    """Data sets of one's own: what is learned from, and what is kept to measure with."""

    names: tuple[str, ...]
    """The categories, which are those of all of them."""
    training: tuple[Part, ...]
    held_out: tuple[Part, ...]
    """Of each data set that something is held out of."""
    left_out: tuple[Fault, ...]
    """What was left out as faulty."""

    def source(self, shares: Sequence[float] = ()) -> ClipSource:
        """Clips to learn from, drawn from all data sets equally often, or in proportion to ``shares``."""
        return mixed([clips_of(part) for part in self.training], shares)

    def measuring(self, data: Sequence[str], held_out: Path) -> list[str]:
        """What ``cavis evaluate`` can measure with: the file of what is held out, and the valid splits of ``data``."""
        kept = [shlex.quote(str(held_out))] if self.held_out else []
        measured = [one for one in data if {"val", "valid"}.intersection(splits(one))]
        return kept + [f"{shlex.quote(one)} --split valid" for one in measured]


def open_own(data: Sequence[str], share: float | None, seed: int, *, skip_faulty: bool = False) -> OwnData:
    """Open data sets of one's own and hold out a share of the videos of each.

    ``share`` None: :data:`SHARE` of data sets without splits; those with splits bring what to measure with. A
    ValueError if their categories differ, or if a share that was asked for is not to be had.
    """
    sets = [open_for_training(one, skip_faulty=skip_faulty) for one in data]
    for path, dataset in zip(data, sets, strict=True):
        if dataset.names != sets[0].names:
            raise ValueError(f"expected the categories of {data[0]} in {path}, got {', '.join(dataset.names)}")
    parts = [_divide(path, dataset, share, seed) for path, dataset in zip(data, sets, strict=True)]
    return OwnData(
        names=sets[0].names,
        training=tuple(part.training for part in parts),
        held_out=tuple(part.held_out for part in parts if len(part.held_out)),
        left_out=tuple(fault for dataset in sets for fault in dataset.left_out),
    )


def _divide(path: str, dataset: AnnotatedVideos, share: float | None, seed: int) -> Divided:
    if share is None:
        inferred = can_be_written(dataset) and not splits(path)
        return divide(dataset, SHARE if inferred else 0.0, seed)
    divided = divide(dataset, share, seed)
    if share and not can_be_written(dataset):
        raise ValueError(f"expected videos or images with instances to hold some out, got {path}; --hold-out 0 is fine")
    if share and not len(divided.held_out):
        raise ValueError(f"expected a share that holds out a video, got {share:g} of the {len(dataset)} in {path}")
    return divided


def keep_held_out(own: OwnData, path: Path, *, begun: bool) -> None:
    """Write what is held out as a data set of its own; where nothing is, no file.

    A ValueError if the run has ``begun`` with another one: what it learns from must not change when it goes on.
    """
    text = json.dumps(as_ytvis(own.held_out)) if own.held_out else ""
    if begun and text != (path.read_text(encoding="utf-8") if path.exists() else ""):
        raise ValueError(
            f"expected the --data, --seed and --hold-out that the run began with (what it holds out is in {path}), "
            "got others"
        )
    if text:
        write_text(path, text)


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
    if CLASS_HEAD not in key:
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
