"""``cavis train``: one stage of a preset, or a model taught a data set of one's own."""

import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cavis.cli.shared import Device, bring, progress_bar

if TYPE_CHECKING:
    from cavis.config import Preset, Stage, StageConfig
    from cavis.data.loaders import ClipSource
    from cavis.model import Cavis
    from cavis.training.loop import Run


INTERRUPTED = 130
LATEST = "latest.pt"


class StageName(StrEnum):
    """The stages that can be trained."""

    SEGMENTER = "segmenter"
    TRACKER = "tracker"
    REFINER = "refiner"


def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log.", show_default=False)],
    stage: Annotated[
        StageName | None, typer.Option(help="segmenter first, then tracker, then refiner.", show_default=False)
    ] = None,
    preset: Annotated[str, typer.Option(help="Which model and schedule.")] = "tiny",
    data: Annotated[
        list[str], typer.Option(help="twins, or an annotated data set; given twice, both are drawn from equally.")
    ] = ["twins"],  # noqa: B006 (typer copies it)
    start_from: Annotated[
        Path | None, typer.Option(help="Weights to start from; a later stage needs those of the one before.")
    ] = None,
    own: Annotated[
        str | None,
        typer.Option("--from", help="A model to teach the categories of --data: a name or a file.", show_default=False),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the preset's.", min=1, show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of weights, clips and points.", min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")] = False,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 200,
    device: Device = "auto",
) -> None:
    """Train one stage of a preset; or, with --from, a model on a data set of your own.

    OUT holds log.jsonl (a line a step), latest.pt (to resume exactly) and model.safetensors (to use). Ctrl-C stops
    after the step it is in and leaves a checkpoint. With --from the segmenter and the tracker learn one after the
    other, in OUT/segmenter and OUT/tracker, 500 steps each; categories and sizes are those of the data set.

    Example: cavis train --stage segmenter --out runs/seg && cavis train --stage tracker --start-from
    runs/seg/model.safetensors --out runs/track

    Example: cavis train --data my_clips --from tiny --out runs/mine
    """
    from cavis.presets import get_preset
    from cavis.training.start import require_start, schedule_of

    how = _How(tuple(data), seed, resume, checkpoint_every, device)
    if own is not None:
        if stage is not None or start_from is not None or preset != "tiny":
            raise ValueError("expected --from without --stage, --start-from and --preset, for it stands for all three")
        _train_own(own, out, steps, how)
        return
    if stage is None:
        raise ValueError("expected --stage segmenter, tracker or refiner, or --from MODEL; got neither")
    plan = get_preset(preset)
    if not (out / LATEST).exists():
        require_start(stage.value, start_from)
    _train_stage(plan, stage.value, schedule_of(plan, stage.value, steps), out, start_from, how)


@dataclass(frozen=True)
class _How:
    """What all stages of a command share."""

    data: tuple[str, ...]
    seed: int
    resume: bool
    checkpoint_every: int
    device: str


def _train_own(own: str, out: Path, steps: int | None, how: _How) -> None:
    """Segmenter, then tracker, on a data set of one's own; ends where it is interrupted."""
    from cavis.checkpoints.files import read_model_file
    from cavis.checkpoints.hub import find_model
    from cavis.training.loop import MODEL
    from cavis.training.own_data import START, categories_of, own_preset, write_joined, write_start

    begun = (out / START).exists()
    _check_begun(out, begun=begun, resume=how.resume, what=START)
    bring(own)
    source = find_model(own)
    plan = own_preset(read_model_file(source)[0], categories_of(how.data), steps)
    if not begun:
        write_start(source, plan, how.seed, out / START)
    segmenter, tracker = out / "segmenter", out / "tracker"
    going_on = replace(how, resume=(segmenter / LATEST).exists())
    _train_stage(plan, "segmenter", plan.segmenter, segmenter, out / START, going_on)
    joined = out / "joined.safetensors"
    if not (tracker / LATEST).exists():
        write_joined(segmenter / MODEL, out / START, joined)
    going_on = replace(how, resume=(tracker / LATEST).exists())
    _train_stage(plan, "tracker", plan.tracker, tracker, joined, going_on)


def _check_begun(out: Path, *, begun: bool, resume: bool, what: str) -> None:
    if begun and not resume:
        raise FileExistsError(f"{out} holds a run already; expected --resume to go on with it, or another folder")
    if resume and not begun:
        raise FileNotFoundError(f"expected a checkpoint {what} to resume from in {out}, found none")


def _train_stage(
    plan: "Preset", stage: "Stage", schedule: "StageConfig", out: Path, start_from: Path | None, how: _How
) -> None:
    """One stage to its end; an interruption ends the command."""
    from cavis.checkpoints.hub import best_device
    from cavis.training.loop import Run
    from cavis.training.start import fresh_model, mixed_source

    begun = (out / LATEST).exists()
    _check_begun(out, begun=begun, resume=how.resume, what=LATEST)
    model = fresh_model(plan, stage, how.seed, None if begun else start_from)
    source = mixed_source(how.data, plan)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(
        preset=plan,
        stage=stage,
        schedule=schedule,
        seed=how.seed,
        folder=out,
        checkpoint_every=how.checkpoint_every,
        device=best_device() if how.device == "auto" else how.device,
    )
    done = _train_with_progress(run, model, source)
    typer.echo(f"{done} of {schedule.steps} steps -> {out}")
    if done < schedule.steps:
        sys.exit(INTERRUPTED)


def _train_with_progress(run: "Run", model: "Cavis", source: "ClipSource") -> int:
    """Run the loop with a bar; Ctrl-C sets the stop that the loop looks at between two steps."""
    import signal
    import threading

    from cavis.training.log import read_log
    from cavis.training.loop import LOG, train

    stop = threading.Event()
    before_this = read_log(run.folder / LOG) if (run.folder / LOG).exists() else []
    done = before_this[-1]["step"] if before_this else 0
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with progress_bar() as bar:
            task = bar.add_task(run.stage, total=run.schedule.steps)
            for report in train(run, model, source, stop):
                done = report.step
                bar.update(task, completed=done, description=f"{run.stage} loss {report.loss:.2f}")
    finally:
        signal.signal(signal.SIGINT, before)
    return done
