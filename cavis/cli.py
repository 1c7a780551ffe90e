"""The command line: ``cavis track | synthesize | train | evaluate | zoo | import-weights | info``.

Commands assemble, they do not compute. Exit codes: 0 done, 1 failed, 2 the input or the options were wrong,
130 interrupted.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from cavis.checkpoints.hub import ReadyModel
    from cavis.checkpoints.zoo import ZooEntry
    from cavis.data.loaders import ClipSource
    from cavis.inference.predictor import Progress as FrameProgress
    from cavis.inference.predictor import Watch
    from cavis.model import Cavis
    from cavis.training.loop import Run

app = typer.Typer(
    name="cavis",
    help="Context-aware video instance segmentation: track every instance of a clip, train, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

zoo_app = typer.Typer(name="zoo", rich_markup_mode="rich")
app.add_typer(zoo_app)

BAD_INPUT = 2
INTERRUPTED = 130

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are already there.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")]
Model = Annotated[str, typer.Option(help="tiny, a name that `cavis zoo` lists, or the path of a .safetensors file.")]


class StageName(StrEnum):
    """The stages that can be trained."""

    SEGMENTER = "segmenter"
    TRACKER = "tracker"


def main() -> None:
    """Run a command; wrong input ends with one sentence and exit code 2."""
    try:
        app()
    except (ValueError, FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        typer.echo(f"cavis: {error}", err=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        typer.echo("cavis: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except (RuntimeError, OSError, ArithmeticError) as error:
        typer.echo(f"cavis: failed: {error}", err=True)
        sys.exit(1)


@app.command()
def track(
    clip: Annotated[Path, typer.Argument(help="A video file, or a folder of frames.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    model: Model = "tiny",
    task: Annotated[str, typer.Option(help="instance, panoptic, semantic, or own: the model's.")] = "own",
    start: Annotated[float, typer.Option(help="Skip what comes before, in seconds.", min=0)] = 0.0,
    end: Annotated[float | None, typer.Option(help="Stop there, in seconds.", show_default=False)] = None,
    stride: Annotated[int, typer.Option(help="Take every n-th frame.", min=1)] = 1,
    min_score: Annotated[float, typer.Option(help="Draw tracks that score at least this.", min=0, max=1)] = 0.3,
    top_k: Annotated[int | None, typer.Option(help="How many predictions to keep.", min=1, show_default=False)] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Find and follow every instance of a clip.

    Writes [bold]tracked.mp4[/bold] (masks drawn on the clip), [bold]results.json[/bold] (a YouTube-VIS results list)
    and [bold]tracks.csv[/bold] (one row for each track and frame) into the folder OUT; for the panoptic task
    [bold]panoptic/[/bold] and [bold]panoptic.json[/bold] too, for the semantic task [bold]semantic/[/bold] (pictures).

    Example: cavis track dance.mp4 --model mask2former-swin-tiny-coco --out dance
    """
    from cavis.inference.choose import predictor_for, with_task
    from cavis.inference.clip_files import FILES, output_folder, track_to_files, write_film
    from cavis.video import open_video, trim

    with open_video(clip) as whole:
        source = trim(whole, start, end, stride)
        ready = with_task(_load(model, device), task)
        with output_folder(out, ("tracked.mp4", *FILES[ready.inference.task]), overwrite), _bar() as bar:
            result = track_to_files(predictor_for(ready, top_k), source, out, _frame_watch(bar))
            shown = result.filter(min_score)
            write_film(out / "tracked.mp4", bar.track(source, total=len(result), description="draw"), shown)
    typer.echo(f"{len(shown.tracks)} tracks of score {min_score} or more in {len(result)} frames -> {out}")
    for shown_track in shown.tracks:
        frames = int(shown_track.visible.sum())
        typer.echo(f"  {shown.category(shown_track)} {shown_track.id}: {shown_track.score:.2f}, {frames} frames")
    for note in (*result.notes, ready.world):
        typer.echo(note)


@app.command()
def synthesize(
    out: Annotated[Path, typer.Option(help="Folder for the data set.", show_default=False)],
    clips: Annotated[int, typer.Option(help="Number of clips.", min=1)] = 60,
    seed: Annotated[int, typer.Option(help="Same seed, same clips.", min=0)] = 0,
    frames: Annotated[int, typer.Option(help="Length of a clip.", min=1)] = 24,
    height: Annotated[int, typer.Option(help="Of the frames, in pixels.")] = 160,
    width: Annotated[int, typer.Option(help="Of the frames, in pixels.")] = 240,
    twin_pairs: Annotated[int, typer.Option(help="Pairs of identical things in a clip.", min=0)] = 2,
    companions: Annotated[bool, typer.Option(help="Whether each twin's companion is drawn.")] = True,
    overwrite: Overwrite = False,
) -> None:
    """Make clips of the twins' world: identical things that cross and hide each other, fully annotated.

    Writes OUT/annotations.json in YouTube-VIS form and OUT/JPEGImages/<clip>/<frame>.jpg.
    With --no-companions the same seed gives the same clips without the companions: the control of the paper's claim.

    Example: cavis synthesize --clips 60 --seed 7 --out validation
    """
    from cavis.data.synthetic import TwinsConfig, synthesize

    config = TwinsConfig(
        height=height, width=width, frames=frames, twin_pairs=(twin_pairs, twin_pairs), companions=companions
    )
    with _bar() as bar:
        task = bar.add_task("render", total=clips)
        synthesize(out, clips, seed, config, overwrite, progress=lambda done: bar.update(task, completed=done))
    typer.echo(f"{clips} clips -> {out}")


@app.command()
def train(
    stage: Annotated[StageName, typer.Option(help="segmenter first, then tracker.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log.", show_default=False)],
    preset: Annotated[str, typer.Option(help="Which model and schedule.")] = "tiny",
    data: Annotated[str, typer.Option(help="twins, or a folder in YouTube-VIS form.")] = "twins",
    start_from: Annotated[
        Path | None, typer.Option(help="Weights to start from; the tracker stage needs a trained segmenter.")
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
    from cavis.training.start import clip_source, fresh_model, require_start, schedule_of

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
    source = clip_source(data, plan)
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


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="A data set in YouTube-VIS form.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the numbers.", show_default=False)],
    model: Model = "tiny",
    top_k: Annotated[int | None, typer.Option(help="Predictions a video.", min=1, show_default=False)] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Track every video of a data set and compare with its annotations (YouTube-VIS AP and AR).

    Writes OUT/metrics.json (fractions) and OUT/results.json, and prints the table.

    Example: cavis evaluate validation --model tiny --out scores
    """
    import json

    from cavis.data.ytvis_json import open_ytvis
    from cavis.evaluation.run import evaluate, metrics_json, results_json
    from cavis.inference.choose import predictor_for
    from cavis.inference.clip_files import output_folder

    dataset = open_ytvis(folder)
    ready = _load(model, device)
    if ready.inference.task != "instance":
        raise ValueError(f"expected a model of the instance task, got {model!r} of the {ready.inference.task} task")
    predictor = predictor_for(ready, top_k)
    with output_folder(out, ("metrics.json", "results.json"), overwrite), _bar() as bar:
        task = bar.add_task("evaluate", total=len(dataset))
        evaluation = evaluate(
            dataset, predictor.run, predictor.top_k, progress=lambda done: bar.update(task, completed=done)
        )
        (out / "results.json").write_text(json.dumps(results_json(evaluation.predictions)), encoding="utf-8")
        if evaluation.metrics is None:
            typer.echo(f"the annotations are hidden; {out / 'results.json'} is ready for the official server")
            return
        numbers = metrics_json(evaluation.metrics)
        (out / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    _print_metrics(numbers, [(row.name, row.ap, row.ap50) for row in evaluation.per_category])
    if evaluation.unmatched:
        typer.echo(f"left out, for the data set has no such category: {', '.join(evaluation.unmatched)}")


@zoo_app.callback(invoke_without_command=True)
def zoo(context: typer.Context) -> None:
    """List the checkpoints that others have published, with the paper's numbers; [bold]zoo get[/bold] fetches one."""
    from rich.console import Console
    from rich.table import Table

    from cavis.checkpoints.zoo import ZOO, cache_folder

    if context.invoked_subcommand is None:
        columns = ("name", "data", "backbone", "stage", "AP", "VPQ", "STQ", "where")
        table = Table(*columns, box=None, padding=(0, 1, 0, 0), pad_edge=False)  # fits into 80 columns
        for entry in ZOO.values():
            table.add_row(*entry.row())
        Console().print(table)
        typer.echo(f"numbers: the paper's, as fractions; kept in {cache_folder()}; to fetch: cavis zoo get NAME")


@zoo_app.command("get")
def zoo_get(
    name: Annotated[str, typer.Argument(help="As `cavis zoo` lists it.", show_default=False)],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the downloaded file beside the imported one.")] = False,
) -> None:
    """Fetch a published checkpoint and import it, so that --model NAME finds it.

    After an interruption the same command goes on where it was. Example: cavis zoo get ovis_r50_tracker
    """
    from cavis.checkpoints.zoo import find

    entry = find(name)
    typer.echo(f"{entry.name} -> {_fetch(entry, keep)}\nlicence: {entry.terms.licence}\ncite:\n{entry.terms.citation}")


@app.command("import-weights")
def import_weights(
    file: Annotated[Path, typer.Argument(help="A .pth, .pkl or .safetensors file of others.", show_default=False)],
    preset: Annotated[str, typer.Option(help="Whose model it is, such as ovis_r50.", show_default=False)],
    stage: Annotated[str, typer.Option(help="segmenter, tracker or refiner.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.", show_default=False)],
    partial: Annotated[bool, typer.Option("--partial", help="To train on: take what fits, list the rest.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn a checkpoint of CAVIS, Mask2Former or DINOv2 into a model file; nothing in it is run.

    Example: cavis import-weights ovis_online.pth --preset ovis_r50 --stage tracker --out ovis.safetensors
    """
    from cavis.config import STAGES

    if stage not in STAGES:
        raise ValueError(f"expected a stage out of {', '.join(STAGES)}, got {stage!r}")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already; expected --overwrite to replace it")
    from cavis.checkpoints.importing import import_checkpoint  # only now: it brings torch

    typer.echo("\n".join(import_checkpoint(file, preset, stage, out, partial=partial).lines()))


@app.command()
def info() -> None:
    """Show versions, device, codecs and where files are kept; put this into a bug report."""
    import platform
    from importlib.metadata import version

    import av
    import torch

    from cavis import __version__
    from cavis.checkpoints.hub import BUNDLED, best_device, bundled_models

    packages = ("torch", "transformers", "numpy", "scipy", "av", "gradio", "plotly")
    rows = {
        "cavis": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: version(name) for name in packages},
        "device": f"{best_device()}, {torch.get_num_threads()} threads",
        "decoders": ", ".join(name for name in ("h264", "hevc", "vp9", "av1") if name in av.codecs_available),
        "models": f"{', '.join(bundled_models()) or 'none'} in {BUNDLED}",
    }
    for name, value in rows.items():
        typer.echo(f"{name:>12}  {value}")


def _load(model: str, device: str) -> "ReadyModel":
    """Load a model; a published one that is not here yet is fetched first, and its licence told."""
    from cavis.checkpoints.hub import load_model
    from cavis.inference.choose import to_fetch

    if entry := to_fetch(model):
        _fetch(entry)
        typer.echo(f"licence of {entry.name}: {entry.terms.licence}")
    return load_model(model, device)


def _fetch(entry: "ZooEntry", keep: bool = False) -> Path:
    """Download and import a published checkpoint with a bar."""
    from rich.progress import DownloadColumn

    from cavis.checkpoints.zoo import get, is_cached

    with _bar(DownloadColumn()) as bar:
        task = bar.add_task(entry.name, total=None, visible=not is_cached(entry))
        return get(entry, lambda done, total: bar.update(task, completed=done, total=total), keep=keep)


@contextmanager
def _bar(*counts: "ProgressColumn") -> Iterator["Progress"]:
    """A progress bar on standard error, with ``counts`` (else how many of how many) and the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counts = counts or (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description:>9}"), BarColumn(), *counts, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


def _frame_watch(bar: "Progress") -> "Watch":
    """Show the progress of a prediction's two passes."""
    tasks: dict[str, TaskID] = {}

    def watch(progress: "FrameProgress") -> None:
        if progress.stage not in tasks:
            tasks[progress.stage] = bar.add_task(progress.stage, total=progress.total)
        bar.update(tasks[progress.stage], completed=progress.done)

    return watch


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
        with _bar() as bar:
            task = bar.add_task(run.stage, total=run.schedule.steps)
            for report in train(run, model, source, stop):
                done = report.step
                bar.update(task, completed=done, description=f"{run.stage} loss {report.loss:.2f}")
    finally:
        signal.signal(signal.SIGINT, before)
    return done


def _print_metrics(numbers: dict[str, float], rows: list[tuple[str, float, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("category", "AP", "AP50")
    for name, *values in rows:
        table.add_row(name, *("-" if value < 0 else f"{value:.3f}" for value in values))
    console = Console()
    console.print(table)
    console.print("  ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
