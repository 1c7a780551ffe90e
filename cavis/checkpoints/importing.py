"""From somebody else's checkpoint to a model file of ours, entry by entry; the names are in ``official``."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cavis.checkpoints.files import STEP_COUNTER, CheckpointError, ModelFile, model_header
from cavis.checkpoints.official import (
    LAPLACIAN,
    LAPLACIAN_VALUES,
    Naming,
    current_name,
    naming_of,
    origin,
    reason_to_ignore,
)
from cavis.checkpoints.pickles import read_foreign
from cavis.checkpoints.streaming import StreamedTensor, write_safetensors
from cavis.config import STAGES, ModelConfig, Stage, VitAdapter
from cavis.model import build_model
from cavis.presets import PRESETS, get_preset

VIT = "segmenter.backbone.vit."
"""Where the entries lie that DINOv2 was trained for."""
PATCHES = "patch_embed.proj.weight"


class Piece(NamedTuple):
    """How one of our entries is cut out of a checkpoint."""

    key: str
    """Its name in the file."""
    part: int | None
    """Which third of the first axis, or None for all of it."""
    shape: tuple[int, ...]
    """Of our entry."""

    def take(self, state: Mapping[str, Tensor]) -> Tensor:
        """Our entry; a view of the file's where that is possible."""
        value = state[self.key]
        value = value if self.part is None else value.chunk(3)[self.part]
        if value.shape != self.shape:  # DINOv2's patches of 14 pixels, to be used for patches of 16
            value = F.interpolate(value.float(), size=self.shape[-2:], mode="bilinear", align_corners=True)
        return value.float() if value.dtype == torch.float64 else value


class Misfit(NamedTuple):
    """One of our entries whose place in the file is taken by something of another shape or kind."""

    name: str
    key: str
    words: str
    """What it is, and what was expected."""


@dataclass(frozen=True)
class ImportPlan:
    """What becomes of every entry of a checkpoint, and where every entry of the model comes from."""

    pieces: dict[str, Piece]
    """By our names."""
    ignored: tuple[tuple[str, str], ...]
    """Entries of the file that are not used, each with the reason."""
    missing: tuple[str, ...]
    """Entries of the model that the file does not have."""
    misfits: tuple[Misfit, ...]
    unexplained: tuple[str, ...]
    """Entries of the file that nothing is known about."""
    naming: Naming
    """Whose names the file uses."""

    @property
    def lacking(self) -> tuple[str, ...]:
        """What is missing although such a file should have it; DINOv2's are the ViT alone, the rest is learned."""
        if self.naming == "dinov2":
            return tuple(name for name in self.missing if name.startswith(VIT))
        return self.missing

    @property
    def complete(self) -> bool:
        """Whether the file is what it seems to be: all there, of the right shapes, and nothing beside."""
        return bool(self.pieces) and not (self.lacking or self.misfits or self.unexplained)

    @property
    def used(self) -> int:
        """How many entries of the file are used."""
        return len({piece.key for piece in self.pieces.values()})

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's entries, all at once (for models that fit into memory twice)."""
        return {name: piece.take(state) for name, piece in self.pieces.items()}


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

    plan: ImportPlan
    out: Path
    size: int
    """Of the written file, in bytes."""
    same_shapes: tuple[str, ...] = ()
    """Presets whose checkpoints would have been taken as well, though they mean other classes."""

    def lines(self) -> list[str]:
        """The report in words: counts, then every entry that was not used and every one that is missing."""
        plan = self.plan
        lines = [
            f"{plan.used} entries used for {len(plan.pieces)} of the model, {len(plan.ignored)} ignored, "
            f"{len(plan.missing)} missing -> {self.out} ({self.size / 2**20:.1f} MiB)"
        ]
        if self.same_shapes:
            lines.append(f"checkpoints of {' and '.join(self.same_shapes)} look the same: {_SAME_SHAPES}")
        lines += [f"ignored {key}: {reason}" for key, reason in plan.ignored]
        return lines + [f"missing {name}: to be learned" for name in plan.missing]

    def listing(self) -> list[str]:
        """The same, and every entry that was used, with what became of it."""
        used = [f"used {piece.key} -> {name}" for name, piece in self.plan.pieces.items()]
        first, *rest = self.lines()
        return [first, *used, *rest]


def plan_import(state: Mapping[str, Tensor], config: ModelConfig, stage: Stage) -> ImportPlan:
    """Find every entry of a stage's model in a checkpoint, by name and shape; nothing is read yet.

    A CheckpointError if the names are of no kind that is known.
    """
    naming = naming_of(state)
    if naming is None:
        some = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"expected a checkpoint of CAVIS, Mask2Former or DINOv2; got entries of other names, such as {some}"
        )
    named, doubles = _by_name(state, naming)
    pieces, missing, misfits = {}, [], []
    for name, shape in model_shapes(config, stage).items():
        piece = _find(name, shape, naming, named)
        if piece is not None and _fits(piece, state[piece.key], naming):
            pieces[name] = piece
            continue
        if piece is not None:
            misfits.append(Misfit(name, piece.key, _misfit(piece, state[piece.key])))
        elif not name.endswith(STEP_COUNTER):
            missing.append(name)
    accounted = {piece.key for piece in pieces.values()} | {misfit.key for misfit in misfits}
    used = {name for name, key in named.items() if key in accounted}
    later = _later_names(named.keys() - used, naming, config, stage)
    reasons = [
        (key, "of a later stage" if name in later else reason_to_ignore(name, naming, used))
        for name, key in named.items()
        if name not in used
    ]
    return ImportPlan(
        pieces,
        tuple((key, reason) for key, reason in reasons if reason is not None),
        tuple(missing),
        tuple(misfits),
        (*(key for key, reason in reasons if reason is None), *doubles),
        naming,
    )


def model_shapes(config: ModelConfig, stage: Stage) -> dict[str, tuple[int, ...]]:
    """Name and shape of every entry of a stage's model; no memory is taken for them."""
    with torch.device("meta"):
        model = build_model(config, stage)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def import_checkpoint(source: Path, preset: str, stage: Stage, out: Path, *, partial: bool = False) -> ImportReport:
    """Write a checkpoint of CAVIS, Mask2Former or DINOv2 as a model file of ``preset`` after ``stage``.

    Every entry of the file must be explained, and every entry of the model must be there; DINOv2's weights, a starting
    point for training, are those of the ViT alone. With ``partial`` what does not fit is left out. A CheckpointError
    says otherwise which preset would fit; then nothing is written. Memory: the file is mapped, and one entry is
    copied at a time.
    """
    chosen = get_preset(preset)
    state = read_foreign(source)
    plan = plan_import(state, chosen.model, stage)
    if plan.naming == "dinov2" and stage != "segmenter":
        raise CheckpointError(
            f"expected --stage segmenter for {source}, which is DINOv2, a backbone to start from; got {stage}"
        )
    if not plan.pieces or not (partial or plan.complete):
        raise CheckpointError(_complaint(source, plan, state, preset, stage))
    _check_values(source, plan, state)
    if partial:
        plan = _leave_out(plan)
    about = ModelFile(
        name=out.stem,
        preset=preset,
        config=chosen.model,
        stage=stage,
        training=f"imported from {source.name}",
        missing=plan.missing,
    )
    write_safetensors(out, _entries(plan, state), model_header(about))
    return ImportReport(plan, out, out.stat().st_size, same_shapes(preset) if plan.naming != "dinov2" else ())


def describe(state: Mapping[str, Tensor]) -> str:
    """Which presets a checkpoint would fit, in words."""
    stage = stage_of(state)
    fitting = [name for name in PRESETS if _fits_preset(state, name, stage)]
    fitting = [
        name for name in fitting if name.removesuffix("_paper") == name or name.removesuffix("_paper") not in fitting
    ]
    if not fitting:
        return "no preset fits it"
    alike = len({get_preset(name).model.categories for name in fitting}) > 1 and naming_of(state) != "dinov2"
    doubt = f" ({_SAME_SHAPES})" if alike else ""
    return f"--preset {' or '.join(fitting)} --stage {stage} would fit{doubt}"


_SAME_SHAPES = "their classes are as many, but not the same: a file does not say which it means"


def same_shapes(preset: str) -> tuple[str, ...]:
    """Presets that differ in nothing but the names of their classes: YouTube-VIS 2019 and 2021 have 40 each."""
    model = get_preset(preset).model
    others = ((name, get_preset(name).model) for name in PRESETS)
    return tuple(
        name
        for name, other in others
        if other.categories != model.categories
        and other.num_classes == model.num_classes
        and replace(other, categories=model.categories) == model
    )


def stage_of(state: Mapping[str, Tensor]) -> Stage:
    """The stage after which a checkpoint was written."""
    has = {stage for stage in STAGES if any(key.startswith(f"{stage}.") for key in state)}
    return "refiner" if "refiner" in has else "tracker" if "tracker" in has else "segmenter"


def _by_name(state: Mapping[str, Tensor], naming: Naming) -> tuple[dict[str, str], list[str]]:
    """The file's entries by the names of the table, and those that an older name makes the same as another."""
    named: dict[str, str] = {}
    doubles = []
    for key in sorted(state, key=lambda key: (current_name(key, naming) != key, key)):
        name = current_name(key, naming)
        if named.setdefault(name, key) != key:
            doubles.append(key)
    return named, doubles


def _find(name: str, shape: tuple[int, ...], naming: Naming, named: Mapping[str, str]) -> Piece | None:
    source = origin(name, naming)
    if source is None or source.key not in named:
        return None
    return Piece(named[source.key], source.part, shape)


def _whole(piece: Piece) -> tuple[int, ...]:
    """The shape their entry should have."""
    return piece.shape if piece.part is None else (3 * piece.shape[0], *piece.shape[1:])


def _misfit(piece: Piece, value: Tensor) -> str:
    if not _has_numbers(piece, value):
        return f"{piece.key} is {str(value.dtype).removeprefix('torch.')}, expected floating point"
    return f"{piece.key} is {tuple(value.shape)}, expected {_whole(piece)}"


def _has_numbers(piece: Piece, value: Tensor) -> bool:
    """Weights are real numbers with a fraction; integers would be quantized ones, of which the scale is not known."""
    return value.is_floating_point() or piece.key.endswith(STEP_COUNTER)


def _fits(piece: Piece, value: Tensor, naming: Naming) -> bool:
    if not _has_numbers(piece, value):
        return False
    if naming == "dinov2" and piece.key == PATCHES:  # of any size, and square
        return value.ndim == 4 and tuple(value.shape[:2]) == piece.shape[:2] and value.shape[2] == value.shape[3] > 1
    return tuple(value.shape) == _whole(piece)


def _later_names(names: Iterable[str], naming: Naming, config: ModelConfig, stage: Stage) -> set[str]:
    """What a later stage's model would find in a file of such names; it is built only if there can be something."""
    later = STAGES[STAGES.index(stage) + 1 :]
    if not any(name.startswith(tuple(f"{one}." for one in later)) for name in names):
        return set()
    origins = (origin(name, naming) for name in model_shapes(config, later[-1]))
    return {source.key for source in origins if source is not None}


def _leave_out(plan: ImportPlan) -> ImportPlan:
    """A plan for a starting point: what is left over or has another shape counts as ignored."""
    shapes = tuple(dict.fromkeys((misfit.key, "of another shape") for misfit in plan.misfits))
    rest = tuple((key, "no place in this model") for key in plan.unexplained)
    names = tuple(misfit.name for misfit in plan.misfits if not misfit.name.endswith(STEP_COUNTER))
    return replace(plan, ignored=plan.ignored + shapes + rest, missing=plan.missing + names, misfits=(), unexplained=())


def _check_values(source: Path, plan: ImportPlan, state: Mapping[str, Tensor]) -> None:
    """A CheckpointError names weights that are not finite, and a constant that is not the one the model computes."""
    broken = {piece.key for piece in plan.pieces.values() if not piece.take(state).isfinite().all()}
    if broken:
        some = _some(tuple(sorted(broken)))
        raise CheckpointError(f"expected finite weights in {source}, but {len(broken)} entries are not ({some})")
    for key, _ in plan.ignored:
        if current_name(key, plan.naming) == LAPLACIAN and state[key].flatten().tolist() != [*LAPLACIAN_VALUES]:
            values = state[key].flatten()[:9].tolist()
            raise CheckpointError(f"expected {key} of {source} to be 8 amid -1, the constant of Eq. 5; got {values}")


def _entries(plan: ImportPlan, state: Mapping[str, Tensor]) -> Iterator[StreamedTensor]:
    for name, piece in plan.pieces.items():
        yield StreamedTensor(name, piece.shape, lambda piece=piece: piece.take(state))


def _complaint(source: Path, plan: ImportPlan, state: Mapping[str, Tensor], preset: str, stage: Stage) -> str:
    shapes = tuple(dict.fromkeys(misfit.words for misfit in plan.misfits))
    parts = {"missing": plan.lacking, "of another shape": shapes, "unexplained": plan.unexplained}
    words = [f"{len(names)} {kind} ({_some(names)})" for kind, names in parts.items() if names]
    return f"{source} does not fit preset {preset} after the {stage} stage: {'; '.join(words)}; {describe(state)}"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")


def _fits_preset(state: Mapping[str, Tensor], name: str, stage: Stage) -> bool:
    """Whether nothing is missing, left over or of another shape; classes and queries are looked at first."""
    config = get_preset(name).model
    naming = naming_of(state)
    if naming == "dinov2":
        width = state["cls_token"].shape[-1] if "cls_token" in state else None
        known = isinstance(config.backbone, VitAdapter) and config.backbone.width == width
        return known and plan_import(state, config, stage).complete
    sizes = {"heads.class_head.weight": config.num_classes + 1, "query_feature.weight": config.queries}
    for entry, size in sizes.items():
        source = origin(f"segmenter.query_decoder.{entry}", naming) if naming else None
        named = {current_name(key, naming): key for key in state} if naming else {}
        if source is None or source.key not in named or state[named[source.key]].shape[0] != size:
            return False
    return plan_import(state, config, stage).complete
