"""What ``cavis train`` does: one stage to its end, or two of them on a data set of one's own."""

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from cavis.cli.settings import with_settings
from cavis.cli.shared import bring, progress_bar, tell_left_out

if TYPE_CHECKING:
    from cavis.config import Preset, Stage, StageConfig
    from cavis.data.loaders import ClipSource
    from cavis.model import Cavis
    from cavis.training.loop import Run
    from cavis.training.processes import Processes

INTERRUPTED = 130
LATEST = "latest.pt"
TOLD_EVERY = 20
"""Steps between two lines on the console."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What every stage of a command has instead of the preset's; None keeps that."""

    clips_per_step: int | None = None
    frames: int | None = None
    learning_rate: float | None = None
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        from cavis.config import require_ema_decay

        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"expected a learning rate above 0, got {self.learning_rate}")
        require_ema_decay(self.ema_decay or 0.0)

    def of(self, schedule: "StageConfig") -> "StageConfig":
        """The schedule with the changes."""
        wanted = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(schedule, **wanted)


@dataclass(frozen=True, kw_only=True)
class How:
    """What all stages of a command share."""

    data: tuple[str, ...]
    shares: tuple[float, ...]
    skip_faulty: bool
    seed: int
    resume: bool
    checkpoint_every: int
    settings: tuple[str, ...]
    changes: Changes
    precision: Literal["fp32", "bf16", "fp16"] | None
    recompute: bool
    tensorboard: bool
    device: str

    def ready(self) -> "How":
        """The same with a device; a ValueError for what this machine cannot do, before anything is read or written."""
        from cavis.checkpoints.hub import best_device
        from cavis.training.curves import require_tensorboard
        from cavis.training.loop import require_precision

        device = best_device() if self.device == "auto" else self.device
        require_precision(self.precision, device)
        if self.tensorboard:
            require_tensorboard()
        return replace(self, device=device)

    @property
    def processes(self) -> "Processes":
        """All that share this command; the main one writes and speaks."""
        from cavis.training.processes import join

        return join(self.device)

    def plan(self, preset: "Preset") -> "Preset":
        """The preset as the command has it."""
        return with_settings(preset, self.settings, ("model", "loss", "rules", "segmenter", "tracker", "refiner"))

    def run(self, plan: "Preset", stage: "Stage", schedule: "StageConfig", folder: Path) -> "Run":
        """The run of one stage."""
        from cavis.training.loop import Run

        return Run(
            preset=plan,
            stage=stage,
            schedule=self.changes.of(schedule),
            seed=self.seed,
            folder=folder,
            checkpoint_every=self.checkpoint_every,
            device=self.device,
            precision=self.precision,
            recompute=self.recompute,
            tensorboard=self.tensorboard,
        )


def train_stage(preset: str, stage: "Stage", steps: int | None, out: Path, start_from: str | None, how: How) -> None:
    """One stage of a preset, from the weights of a model's name or file, if any."""
    from cavis.presets import get_preset
    from cavis.training.start import clip_source, mixed, require_start, schedule_of

    plan = how.plan(get_preset(preset))
    schedule = schedule_of(plan, stage, steps)
    begun = (out / LATEST).exists()
    if not begun:
        require_start(plan, stage, start_from)
    _check_begun(out, begun=begun, resume=how.resume, what=LATEST)
    start = None if begun or start_from is None else _found(start_from, how.processes)
    sources = [
        clip_source(one, plan, skip_faulty=how.skip_faulty, opened=lambda dataset: tell_left_out(dataset.left_out))
        for one in how.data
    ]
    _finish(how.run(plan, stage, schedule, out), mixed(sources, how.shares), start, how.processes)


def _found(model: str, processes: "Processes") -> Path:
    """The file of a model to start from; a published one is fetched first, by the main process."""
    from cavis.checkpoints.hub import find_model

    if processes.main:
        bring(model)
    processes.wait()
    return find_model(model)


def train_own(own: str, out: Path, steps: int | None, share: float | None, how: How) -> None:
    """Segmenter, then tracker, on a data set of one's own; ends where it is interrupted."""
    from cavis.checkpoints.files import read_model_file
    from cavis.training.loop import MODEL
    from cavis.training.own_data import HELD_OUT, START, keep_held_out, open_own, own_preset, write_joined, write_start

    begun = (out / START).exists()
    _check_begun(out, begun=begun, resume=how.resume, what=START)
    processes = how.processes
    if processes.main:
        for leftover in out.glob(".*.part"):  # of a file that a killed run was writing
            leftover.unlink()
    source = _found(own, processes)
    data = open_own(how.data, share, how.seed, skip_faulty=how.skip_faulty)
    tell_left_out(data.left_out)
    clips = data.source(how.shares)
    plan = how.plan(own_preset(read_model_file(source)[0], data.names, steps))
    processes.wait()  # until all have looked
    if processes.main:
        keep_held_out(data, out / HELD_OUT, begun=begun)
        if not begun:
            write_start(source, plan, how.seed, out / START)
    processes.wait()
    segmenter, tracker = out / "segmenter", out / "tracker"
    _finish(how.run(plan, "segmenter", plan.segmenter, segmenter), clips, out / START, processes)
    joined = out / "joined.safetensors"
    if not (tracker / LATEST).exists() and processes.main:
        write_joined(segmenter / MODEL, out / START, joined)
    processes.wait()
    _finish(how.run(plan, "tracker", plan.tracker, tracker), clips, joined, processes)
    if processes.main:
        _tell_measuring(data.measuring(how.data, out / HELD_OUT), out, tracker / MODEL)


def _tell_measuring(kept: Sequence[str], out: Path, model: Path) -> None:
    """The commands that measure the model on what it has not seen."""
    if not kept:
        typer.echo("nothing was held out: the model has seen every video; --hold-out 0.2 keeps a fifth to measure with")
    for number, words in enumerate(kept, start=1):
        scores = out / ("scores" if len(kept) == 1 else f"scores_{number}")
        rest = shlex.join(["--model", str(model), "--out", str(scores)])
        typer.echo(f"to measure it on what it has not seen: cavis evaluate {words} {rest}")


def _check_begun(out: Path, *, begun: bool, resume: bool, what: str) -> None:
    if begun and not resume:
        raise FileExistsError(f"{out} holds a run already; expected --resume to go on with it, or another folder")
    if resume and not begun:
        raise FileNotFoundError(f"expected a checkpoint {what} to resume from in {out}, found none")


def _finish(run: "Run", source: "ClipSource", start_from: Path | None, processes: "Processes") -> None:
    """One stage to its end, from its checkpoint if there is one; an interruption ends the command."""
    from cavis.training.start import fresh_model

    if (run.folder / LATEST).exists():  # the checkpoint has all weights
        model = fresh_model(replace(run.preset, pretrained=""), run.stage, run.seed)
    else:
        model = fresh_model(run.preset, run.stage, run.seed, start_from)
    run.folder.mkdir(parents=True, exist_ok=True)
    done = _train_with_progress(run, model, source, shown=processes.main)
    if processes.main:
        typer.echo(f"{done} of {run.schedule.steps} steps -> {run.folder}")
    if done < run.schedule.steps:
        sys.exit(INTERRUPTED)


def _train_with_progress(run: "Run", model: "Cavis", source: "ClipSource", *, shown: bool) -> int:
    """Run the loop with a bar; Ctrl-C sets the stop that the loop looks at between two steps."""
    import signal
    import threading

    from cavis.training.console import describe
    from cavis.training.log import read_log
    from cavis.training.loop import LOG, train

    stop = threading.Event()
    before_this = read_log(run.folder / LOG) if (run.folder / LOG).exists() else []
    done = before_this[-1]["step"] if before_this else 0
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with progress_bar(shown=shown) as bar:
            task = bar.add_task(run.stage, total=run.schedule.steps)
            for report in train(run, model, source, stop):
                done = report.step
                bar.update(task, completed=done, description=f"{run.stage} loss {report.loss:.2f}")
                if shown and done % TOLD_EVERY == 0:
                    line = describe(report, run.schedule.clips_per_step, run.device)
                    bar.console.print(f"{run.stage} {done}: {line}", soft_wrap=True, markup=False, highlight=False)
    finally:
        signal.signal(signal.SIGINT, before)
    return done
