"""``cavis train``: one stage of a preset."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cavis.cli.shared import Device, progress_bar

if TYPE_CHECKING:
    from cavis.data.loaders import ClipSource
    from cavis.model import Cavis
    from cavis.training.loop import Run


INTERRUPTED = 130


class StageName(StrEnum):
    """The stages that can be trained."""

    SEGMENTER = "segmenter"
    TRACKER = "tracker"
    REFINER = "refiner"


def train(
    stage: Annotated[StageName, typer.Option(help="segmenter first, then tracker, then refiner.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log.", show_default=False)],
    preset: Annotated[str, typer.Option(help="Which model and schedule.")] = "tiny",
    data: Annotated[
        list[str], typer.Option(help="twins, or an annotated data set; given twice, both are drawn from equally.")
    ] = ["twins"],  # noqa: B006 (typer copies it)
    start_from: Annotated[
        Path | None, typer.Option(help="Weights to start from; a later stage needs those of the one before.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the preset's.", min=1, show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of weights, clips and points.", min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")] = False,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 200,
    device: Device = "auto",
) -> None:
    """Train one stage of a preset.

    OUT holds log.jsonl (a line a step), latest.pt (to resume exactly) and model.safetensors (to use). Ctrl-C stops
    after the step it is in and leaves a checkpoint.

    Example: cavis train --stage segmenter --out runs/seg && cavis train --stage tracker --start-from
    runs/seg/model.safetensors --out runs/track
    """
    from cavis.checkpoints.hub import best_device
    from cavis.presets import get_preset
    from cavis.training.loop import LATEST, Run
    from cavis.training.start import fresh_model, mixed_source, require_start, schedule_of

    plan = get_preset(preset)
    schedule = schedule_of(plan, stage.value, steps)
    begun = (out / LATEST).exists()
    if begun and not resume:
        raise FileExistsError(f"{out} holds a run already; expected --resume to go on with it, or another folder")
    if resume and not begun:
        raise FileNotFoundError(f"expected a checkpoint {LATEST} to resume from in {out}, found none")
    if not begun:
        require_start(stage.value, start_from)
    model = fresh_model(plan, stage.value, seed, None if begun else start_from)
    source = mixed_source(data, plan)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(
        preset=plan,
        stage=stage.value,
        schedule=schedule,
        seed=seed,
        folder=out,
        checkpoint_every=checkpoint_every,
        device=best_device() if device == "auto" else device,
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
