"""How a run begins: fresh weights from a seed, or those of an earlier stage."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from cavis.categories import COCO_AS, TWINS, TWINS_AS, CategoryMap
from cavis.checkpoints.files import CheckpointError, load_weights, read_model_file
from cavis.checkpoints.imagenet import efficientnet_lite2
from cavis.config import Preset, Stage, StageConfig
from cavis.data.annotated import AnnotatedVideos
from cavis.data.layouts import recognise, splits
from cavis.data.loaders import ClipSource, FolderSource, TwinsSource
from cavis.data.mixing import MixedSource, PartlyLabelled, PicturesSource, Relabelled
from cavis.data.opening import open_annotated
from cavis.model import Cavis, build_model
from cavis.model.layers import CLASS_HEAD
from cavis.training.stages import start_silent


def fresh_model(preset: Preset, stage: Stage, seed: int, start_from: Path | None = None) -> Cavis:
    """Build the model of a stage from a seed and put in the weights of ``start_from``, where it has them.

    A stage takes all parts up to its own that the file has; its own may be missing, those before may not. A
    CheckpointError if one is, or if weights do not fit the preset. What an imported starting point says it lacks stays
    fresh, and so does, in the segmenter stage, the class head of a model of other categories (Mask2Former of COCO, with
    which the paper begins). Without ``start_from`` the backbone gets the ``pretrained`` weights of the preset, if any.
    """
    torch.manual_seed(seed)
    model = build_model(preset.model, stage)
    if start_from is None:
        if preset.pretrained:
            load_weights(model.segmenter.backbone, efficientnet_lite2(), preset.pretrained)
        return model
    about, state = read_model_file(start_from)
    for name, part in (("segmenter", model.segmenter), ("tracker", model.tracker), ("refiner", model.refiner)):
        if part is None:
            continue
        own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        missing = {key.removeprefix(f"{name}.") for key in about.missing}
        if name == "segmenter" and about.config.reading.context == "none":
            missing |= {key for key in part.state_dict() if key.startswith(("context_mlp.", "context_pooling."))}
        if stage == "segmenter" and about.config.categories != preset.model.categories:
            missing |= {key for key in part.state_dict() if CLASS_HEAD in key}
        if stage == "refiner" and name == "tracker" and not own:
            raise CheckpointError(f"expected a trained tracker in {start_from} to start the {stage} stage, found none")
        if own or name == "segmenter":
            fresh = {key: value for key, value in part.state_dict().items() if key in missing}
            kept = {key: value for key, value in own.items() if key not in missing}
            load_weights(part, fresh | kept, str(start_from))
        elif preset.stage(stage).silent_start:
            start_silent(model, stage)
    return model


def require_start(preset: Preset, stage: Stage, start_from: str | None) -> None:
    """A CheckpointError where no model is named that the stage has to begin from.

    A later stage learns on the one before, trained. The first one needs trained weights where the preset has the
    backbone learn more slowly than the rest, or not at all, for that is how a trained one is treated.
    """
    if start_from is not None:
        return
    before = {"tracker": "segmenter", "refiner": "tracker"}.get(stage)
    if before is not None:
        raise CheckpointError(f"expected a trained {before} to start the {stage} stage from, got none")
    factor = preset.segmenter.backbone_factor
    if factor < 1 and not preset.pretrained:
        raise CheckpointError(
            "expected --start-from a trained model, such as coco_r50 (coco_swinl or dinov2_vitl for these backbones), "
            f"for that of {preset.name} learns at {factor:g} of the learning rate; to train it from nothing, "
            "--set segmenter.backbone_factor=1"
        )


def schedule_of(preset: Preset, stage: Stage, steps: int | None = None) -> StageConfig:
    """The stage's schedule; with ``steps`` its milestones move along in proportion."""
    schedule = preset.stage(stage)
    if steps is None or steps == schedule.steps:
        return schedule
    if steps < 1:
        raise ValueError(f"expected at least one training step, got {steps}")
    milestones = tuple(round(milestone * steps / schedule.steps) for milestone in schedule.decay_at)
    return replace(schedule, steps=steps, decay_at=milestones, warmup=min(schedule.warmup, steps // 10))


def open_for_training(
    data: str, *, categories: CategoryMap | None = None, skip_faulty: bool = False
) -> AnnotatedVideos:
    """An annotated data set to learn from: of several splits the one named train; options as in ``open_annotated``."""
    split = "train" if "train" in splits(data) else None
    return open_annotated(data, split, categories=categories, skip_faulty=skip_faulty)


def clip_source(
    data: str, preset: Preset, *, skip_faulty: bool = False, opened: Callable[[AnnotatedVideos], None] | None = None
) -> ClipSource:
    """``twins``, or an annotated data set whose categories are the preset's (ValueError otherwise).

    Pictures become clips by repetition; the released augmentation turns them, so that they move. COCO's categories, and
    those of the twins' world, are given those of the preset, where it is of another data set of the paper or ``lite``:
    what COCO does not have is unknown then. ``opened`` is told the data set.
    """
    wanted = preset.model.categories
    if data == "twins":
        renamed = next((mapping for mapping in TWINS_AS.values() if mapping.names == wanted), None)
        return TwinsSource() if renamed is None else Relabelled(TwinsSource(), TWINS, renamed)
    relabelled = next((mapping for mapping in COCO_AS.values() if mapping.names == wanted), None)
    relabelled = relabelled if recognise(data) == "coco" else None
    dataset = open_for_training(data, categories=relabelled, skip_faulty=skip_faulty)
    if opened is not None:
        opened(dataset)
    if relabelled is not None:
        known = {wanted.index(name) for name in relabelled.counterparts.values()}
        return PartlyLabelled(PicturesSource(dataset), known, len(wanted))
    if dataset.names != wanted:
        raise ValueError(
            f"expected the {len(wanted)} categories of preset {preset.name} in {data}, got {', '.join(dataset.names)}"
        )
    return clips_of(dataset)


def clips_of(dataset: AnnotatedVideos) -> ClipSource:
    """Clips of a data set: of its videos, or of its pictures, where it has nothing else."""
    still = all(dataset.length(index) == 1 for index in range(len(dataset)))
    return PicturesSource(dataset) if still else FolderSource(dataset)


def mixed(sources: Sequence[ClipSource], shares: Sequence[float] = ()) -> ClipSource:
    """One source, or several from which clips are drawn equally often, or in proportion to ``shares``."""
    return MixedSource(sources, shares or None) if len(sources) > 1 or shares else sources[0]
