"""``cavis track``: a clip in, every instance followed out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cavis.cli.shared import Device, Model, Overwrite, load, progress_bar
from cavis.presets import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from cavis.inference.predictor import Progress as FrameProgress
    from cavis.inference.predictor import Watch


def track(
    clip: Annotated[Path, typer.Argument(help="A video file, or a folder of frames.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    model: Model = DEFAULT_MODEL,
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
        ready = with_task(load(model, device), task)
        with output_folder(out, ("tracked.mp4", *FILES[ready.inference.task]), overwrite), progress_bar() as bar:
            result = track_to_files(predictor_for(ready, top_k), source, out, _frame_watch(bar))
            shown = result.filter(min_score)
            write_film(out / "tracked.mp4", bar.track(source, total=len(result), description="draw"), shown)
    typer.echo(f"{len(shown.tracks)} tracks of score {min_score} or more in {len(result)} frames -> {out}")
    for shown_track in shown.tracks:
        frames = int(shown_track.visible.sum())
        typer.echo(f"  {shown.category(shown_track)} {shown_track.id}: {shown_track.score:.2f}, {frames} frames")
    for note in (*result.notes, ready.world):
        typer.echo(note)


def _frame_watch(bar: "Progress") -> "Watch":
    """Show the progress of a prediction's two passes."""
    tasks: dict[str, TaskID] = {}

    def watch(progress: "FrameProgress") -> None:
        if progress.stage not in tasks:
            tasks[progress.stage] = bar.add_task(progress.stage, total=progress.total)
        bar.update(tasks[progress.stage], completed=progress.done)

    return watch
