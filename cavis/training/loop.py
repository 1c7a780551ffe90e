"""The loop of every stage: batch, terms, gradient, step; a checkpoint now and then; exact resume.

A step is a function of the seed, its number and the weights before it (data and random points are drawn from streams
of their own), so a run that was stopped and resumed ends with the same weights as one that was not. It is the same
step, up to rounding, however many processes share its clips.
"""

import hashlib
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from cavis.checkpoints.configs import model_config_to_json
from cavis.checkpoints.files import CheckpointError, ModelFile, read_training, save_model, save_training
from cavis.config import Preset, Stage, StageConfig
from cavis.data.loaders import ClipSource, StepBatches, batches_from
from cavis.model import Cavis
from cavis.records import ClipBatch, Targets
from cavis.training.log import StepReport, TrainingLog, read_log
from cavis.training.optimizer import build_optimizer, build_schedule, moving_average
from cavis.training.processes import Processes, join
from cavis.training.recompute import recompute_activations
from cavis.training.shared_norm import share_norms
from cavis.training.stages import STAGES, TrainingStage
from cavis.training.watch import (
    FAILED_STEP,
    FailedStep,
    LossWatch,
    clips_of_step,
    not_finite,
    point_draws,
    save_failed,
    seed_layers,
)

LATEST = "latest.pt"
MODEL = "model.safetensors"
LOG = "log.jsonl"
CURVES = "tensorboard"

Precision = Literal["fp32", "bf16", "fp16"]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run: what, how long, from which seed, and where its files go."""

    preset: Preset
    stage: Stage
    schedule: StageConfig
    seed: int
    folder: Path
    checkpoint_every: int = 200
    device: str = "cpu"
    workers: int = 1
    precision: Precision | None = None
    """Of the forward pass; None is fp16 on CUDA and fp32 elsewhere. fp16 needs CUDA."""
    recompute: bool = False
    """Whether activations are computed again for the gradient instead of kept: less memory, more time."""
    tensorboard: bool = False
    """Whether the log is also written as TensorBoard's files."""

    def __post_init__(self) -> None:
        require_precision(self.precision, self.device)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the forward pass."""
        return _TYPES[self.precision or ("fp16" if self.kind == "cuda" else "fp32")]

    @property
    def kind(self) -> str:
        """The kind of device: ``cuda`` of ``cuda:0``."""
        return torch.device(self.device).type


def require_precision(precision: Precision | None, device: str) -> None:
    """A ValueError for a precision that a device does not train in."""
    kind = torch.device(device).type
    if precision == "fp16" and kind != "cuda":
        raise ValueError(f"expected a CUDA device for precision fp16, got {device}; bf16 runs everywhere")
    if precision == "bf16" and kind == "cuda" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise ValueError(f"expected a device that computes in bf16, got {device}; fp16 runs there")


def train(run: Run, model: Cavis, source: ClipSource, stop: threading.Event | None = None) -> Iterator[StepReport]:
    """Train, yielding a report after each step; resumes from the run's folder if a checkpoint is there.

    A set ``stop`` ends the run after the step it is in. However the run ends between two steps (stop, end, or the
    generator being closed), the last step is checkpointed. What ends it inside a step, and a loss that runs away,
    leaves the checkpoint before. Several processes (of torchrun or accelerate launch) share the clips of a step; all of
    them have to call this, a stop in one of them stops all, and only the main one writes. ``model`` ends with the last
    weights; the model file may hold their moving average. A ValueError if another run is training in the folder.
    """
    processes = join(run.device)
    with the_only_run_in(run.folder) if processes.main else nullcontext():
        yield from _steps(run, model, source, stop, processes)


_PATIENCE = 10.0
"""Seconds; the loader's worker of a run that was killed outlives it by some."""


@contextmanager
def the_only_run_in(folder: Path) -> Iterator[None]:
    """Two runs would write over each other's checkpoints: a ValueError for the second one, in any process."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    # Not in the folder: there it would be one of the run's files. Whichever thread ends the run lets go of it.
    lock = FileLock(Path(tempfile.gettempdir()) / f"cavis-run-{name}.lock", thread_local=False)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise ValueError(f"expected one run at a time in {folder}, but another one is training there") from None
    try:
        yield
    finally:
        lock.release()


def _steps(
    run: Run, model: Cavis, source: ClipSource, stop: threading.Event | None, processes: Processes
) -> Iterator[StepReport]:
    schedule, preset = run.schedule, run.preset
    slots = processes.slots(schedule.clips_per_step)
    work = _Work.begin(run, model, processes)
    done = saved = _resume(run, work)
    dataset = StepBatches(
        source, schedule, seed=run.seed, num_classes=preset.model.num_classes, rules=preset.rules, slots=slots
    )
    watch = LossWatch(schedule.warmup, _losses(run.folder / LOG, done))
    curves = run.folder / CURVES if run.tensorboard else None
    with TrainingLog(run.folder / LOG, done, curves) if processes.main else nullcontext() as log:
        between = True  # inside a step weights and statistics belong to no step
        ready = time.perf_counter()
        try:
            for batch in batches_from(dataset, done, schedule.steps, run.workers):
                between = False
                report = _step(run, work, batch, done)
                report = replace(report, seconds=time.perf_counter() - ready)
                done += 1
                if log is not None:
                    log.write(report)
                watch.check(done, report.loss)
                between = True  # a run that diverges keeps the checkpoint before
                if done % run.checkpoint_every == 0:
                    _save(run, work, done)
                    saved = done
                yield report
                ready = time.perf_counter()
                if processes.any(stop is not None and stop.is_set()):
                    break
        finally:
            if between and done != saved:
                _save(run, work, done)
    processes.wait()  # a process that ends may end the others, and the main one may still be writing


@dataclass(frozen=True)
class _Work:
    """What a process trains with."""

    processes: Processes
    stage: TrainingStage
    optimizer: AdamW
    rates: LambdaLR
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    """The moving average that is saved to use; None: the last weights are."""
    device: str

    @classmethod
    def begin(cls, run: Run, model: Cavis, processes: Processes) -> "_Work":
        """Everything fresh, on this process's device."""
        device = run.device if processes.alone else str(processes.device)
        decay = run.schedule.ema_decay
        ema = moving_average(model.to(device), decay) if decay else None  # before the model's layers are changed
        if run.recompute:
            recompute_activations(model)
        stage = STAGES[run.stage](model.to(device), run.preset, processes.total)
        share_norms(stage.learning, processes.total, processes.share.processes)
        optimizer = build_optimizer(stage.learning, run.schedule)
        rates = build_schedule(optimizer, run.schedule)
        scaler = torch.amp.GradScaler(run.kind, enabled=run.dtype == torch.float16)
        return cls(processes, stage, optimizer, rates, scaler, ema, device)

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, by name."""
        ema = {} if self.ema is None else {"ema": self.ema}
        fixed = {"model": self.stage.model, "optimizer": self.optimizer, "rates": self.rates, "scaler": self.scaler}
        return fixed | ema


def _resume(run: Run, work: _Work) -> int:
    """Let all processes go on from the run's checkpoint, and return the number of steps done."""
    processes = work.processes
    done = restore(run, work.parts)
    most, least = processes.largest(done, -done)
    if most != -least:
        raise CheckpointError(
            f"expected {run.folder} to be one folder for all processes, got checkpoints of {-least} and of {most} steps"
        )
    processes.start_alike(work.stage.model)
    if processes.main:
        for leftover in run.folder.glob(".*.part"):  # of a checkpoint that a killed run was writing
            leftover.unlink()
    return done


def _losses(path: Path, done: int) -> list[tuple[int, float]]:
    """The losses of the first ``done`` steps, as they were logged."""
    lines = read_log(path) if path.exists() else []
    return [(line["step"], line["loss"]) for line in lines if line["step"] <= done]


def _save(run: Run, work: _Work, done: int) -> None:
    if work.processes.main:
        save_run(run, work.parts, done)


def _step(run: Run, work: _Work, batch: ClipBatch, done: int) -> StepReport:
    """One update of the learning part; step ``done`` counts from 0."""
    processes, stage, scaler = work.processes, work.stage, work.scaler
    steps = run.schedule.steps
    rate = work.optimizer.param_groups[-1]["lr"]
    batch = processes.of_one_size(batch)
    draws = point_draws(run.seed, done, processes.slots(run.schedule.clips_per_step))
    seed_layers(run.seed, done, processes.share.rank)
    with torch.autocast(run.kind, dtype=run.dtype, enabled=run.dtype != torch.float32):
        shares = stage.terms(to_device(batch, work.device), done / steps, draws)
        values = torch.stack(list(shares.values()))
        loss = values.sum()
    whole = processes.total(values.detach())
    terms = dict(zip(shares, whole.tolist(), strict=True))
    if not math.isfinite(whole.sum().item()):
        raise _failure(run, work, batch, terms, done, "loss")
    work.optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    processes.add_gradients(stage.learning.parameters())
    scaler.unscale_(work.optimizer)
    norm = nn.utils.clip_grad_norm_(stage.learning.parameters(), run.schedule.max_gradient_norm)
    if not scaler.is_enabled() and not math.isfinite(norm):  # a scaler leaves such a step out by itself
        raise _failure(run, work, batch, terms, done, "gradient")
    scaler.step(work.optimizer)
    scaler.update()
    work.rates.step()
    if work.ema is not None:
        work.ema.update_parameters(work.stage.model)
    return StepReport(
        step=done + 1,
        steps=steps,
        loss=whole.sum().item(),
        terms=_summary(terms),
        learning_rate=rate,
        gradient_norm=float(norm),
        seconds=0.0,  # known to who waited for the batch
    )


def _failure(
    run: Run, work: _Work, batch: ClipBatch, terms: dict[str, float], done: int, what: str
) -> FloatingPointError:
    """Keep the failed step beside the checkpoint, and the error that says where it came from."""
    bad = not_finite(terms)
    detail = f" (terms: {', '.join(bad)})" if bad else ""
    clips = clips_of_step(run.seed, done, run.schedule.clips_per_step)
    sentence = f"the {what} of step {done + 1} is not finite{detail}; {clips}"
    failed = FailedStep(
        stage=run.stage,
        step=done + 1,
        steps=run.schedule.steps,
        seed=run.seed,
        batch=work.processes.whole(batch),
        terms=terms,
        weights=work.stage.model.state_dict(),
    )
    try:
        if work.processes.main:
            save_failed(run.folder / FAILED_STEP, failed)
    except OSError as error:
        return FloatingPointError(f"{sentence}; {error}")
    finally:
        work.processes.wait()
    return FloatingPointError(f"{sentence}; the step is kept in {run.folder / FAILED_STEP}")


def to_device(batch: ClipBatch, device: str) -> ClipBatch:
    """The batch's frames and targets on a device."""
    targets = tuple(Targets(**{key: value.to(device) for key, value in vars(clip).items()}) for clip in batch.targets)
    return ClipBatch(batch.frames.to(device), targets)


def save_run(run: Run, parts: dict[str, Any], done: int) -> None:
    """Write the model (to use) and the training state (to resume), which comes last: it says that all is written."""
    model: Cavis = parts["ema"].module if "ema" in parts else parts["model"]
    about = ModelFile(
        name=run.preset.name,
        preset=run.preset.name,
        config=run.preset.model,
        stage=run.stage,
        training=f"{run.stage} stage, {done} of {run.schedule.steps} steps, seed {run.seed}",
    )
    try:
        save_model(run.folder / MODEL, model, about)
    except OSError as error:
        path = run.folder / MODEL
        raise OSError(f"no room to write {path} ({error}); what was there before is left as it was") from error
    state = {name: part.state_dict() for name, part in parts.items()}
    save_training(run.folder / LATEST, state | _identity(run) | {"done": done})


def restore(run: Run, parts: dict[str, Any]) -> int:
    """Load the run's checkpoint, if there is one, and return the number of steps done.

    A checkpoint of another stage, seed, schedule, model, loss or data rules is a CheckpointError.
    """
    path = run.folder / LATEST
    if not path.exists():
        return 0
    wanted = _identity(run)
    state = {"precision": wanted["precision"]} | read_training(path)  # older files do not say it
    records = {"schedule": run.schedule, "config": run.preset.model, "loss": run.preset.loss, "rules": run.preset.rules}
    found = {key: _completed(state.get(key), records[key]) if key in records else state.get(key) for key in wanted}
    wanted, found = _flat(wanted), _flat(found)
    different = [key for key in wanted | found if found.get(key) != wanted.get(key)]
    if different:
        raise CheckpointError(
            f"{run.folder} holds another run ({', '.join(f'{key} {found.get(key)!r}' for key in different)}); "
            f"expected {', '.join(f'{key} {wanted.get(key)!r}' for key in different)}"
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["done"])


def _identity(run: Run) -> dict[str, Any]:
    """What stays the same through a run, however often it is stopped and resumed."""
    return {
        "seed": run.seed,
        "stage": run.stage,
        "schedule": asdict(run.schedule),
        "config": model_config_to_json(run.preset.model),
        "loss": asdict(run.preset.loss),
        "rules": asdict(run.preset.rules),
        "precision": str(run.dtype).removeprefix("torch."),
    }


def _completed(found: Any, record: Any) -> Any:
    """Stored entries of a record, with the defaults of the fields that it did not have when they were stored."""
    if not isinstance(found, dict) or not is_dataclass(record):
        return found
    entries = dict(found)
    for field in fields(record):
        if field.name in entries:
            entries[field.name] = _completed(entries[field.name], getattr(record, field.name))
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if default is not MISSING:
            entries[field.name] = (
                asdict(default) if is_dataclass(default) and not isinstance(default, type) else default
            )
    return entries


def _flat(entries: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested entries by their path: ``config.reading.context``."""
    flat: dict[str, Any] = {}
    for key, value in entries.items():
        path = f"{prefix}{key}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def _summary(terms: dict[str, float]) -> dict[str, float]:
    """The terms by name, the auxiliary layers' added up."""
    auxiliary = sum(value for name, value in terms.items() if name[-1].isdigit())
    return {name: value for name, value in terms.items() if not name[-1].isdigit()} | {"auxiliary": auxiliary}
