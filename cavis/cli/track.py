"""``cavis track``: a clip in, every instance followed out."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cavis.cli.settings import Settings
from cavis.cli.shared import Device, Model, Overwrite, load, progress_bar
from cavis.presets import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from cavis.inference.predictor import Predictor, Watch
    from cavis.inference.predictor import Progress as FrameProgress
    from cavis.video import VideoSource

FILM = "tracked.mp4"


def track(
    clip: Annotated[
        Path, typer.Argument(help="A video file, a folder of frames, or a folder of such clips.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    model: Model = DEFAULT_MODEL,
    task: Annotated[str, typer.Option(help="instance, panoptic, semantic, or own: the model's.")] = "own",
    start: Annotated[float, typer.Option(help="Skip what comes before, in seconds.", min=0)] = 0.0,
    end: Annotated[float | None, typer.Option(help="Stop there, in seconds.", show_default=False)] = None,
    stride: Annotated[int, typer.Option(help="Take every n-th frame.", min=1)] = 1,
    min_score: Annotated[float, typer.Option(help="Draw tracks that score at least this.", min=0, max=1)] = 0.3,
    top_k: Annotated[int | None, typer.Option(help="How many predictions to keep.", min=1, show_default=False)] = None,
    settings: Settings = [],  # noqa: B006
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Find and follow every instance of a clip.

    Writes [bold]tracked.mp4[/bold] (masks drawn on the clip), [bold]results.json[/bold] (a YouTube-VIS results list)
    and [bold]tracks.csv[/bold] (one row for each track and frame) into the folder OUT; for the panoptic task
    [bold]panoptic/[/bold] and [bold]panoptic.json[/bold] too, for the semantic task [bold]semantic/[/bold] (pictures).
    Of a folder of clips each has a folder of its own in OUT; clips that cannot be read are told at the end.

    Example: cavis track dance.mp4 --model mask2former-swin-tiny-coco --out dance
    """
    from cavis.inference.choose import predictor_for, with_task
    from cavis.inference.clip_files import FILES, output_folder, require_free
    from cavis.video import VideoError, clips_at, open_video, trim

    clips = clips_at(clip)
    folders = {name: out / name if clip != path else out for name, path in clips.items()}
    for folder in folders.values():
        require_free(folder, [FILM], overwrite)
    ready = cache(lambda: with_task(load(model, device, settings), task))  # once a clip was opened: it can be large
    unreadable = []
    for name, path in clips.items():
        try:
            with open_video(path) as whole:
                source, predictor = trim(whole, start, end, stride), predictor_for(ready(), top_k)
                with output_folder(folders[name], (FILM, *FILES[ready().inference.task]), overwrite):
                    _track_one(predictor, source, folders[name], min_score)
        except VideoError as error:
            if clip == path:
                raise
            unreadable.append(f"{name}: {error}")
    if unreadable:
        raise VideoError(f"{len(clips) - len(unreadable)} of {len(clips)} clips were tracked. {' '.join(unreadable)}")
    typer.echo(ready().world)


def _track_one(predictor: "Predictor", source: "VideoSource", out: Path, min_score: float) -> None:
    from cavis.inference.clip_files import track_to_files, write_film

    with progress_bar() as bar:
        result = track_to_files(predictor, source, out, _frame_watch(bar))
        shown = result.filter(min_score)
        write_film(out / FILM, bar.track(source, total=len(result), description="draw"), shown)
    typer.echo(f"{len(shown.tracks)} tracks of score {min_score} or more in {len(result)} frames -> {out}")
    for track in shown.tracks:
        frames = int(track.visible.sum())
        typer.echo(f"  {shown.category(track)} {track.id}: {track.score:.2f}, {frames} frames")
    for note in result.notes:
        typer.echo(note)


def _frame_watch(bar: "Progress") -> "Watch":
    """Show the progress of a prediction's two passes."""
    tasks: dict[str, TaskID] = {}

    def watch(progress: "FrameProgress") -> None:
        if progress.stage not in tasks:
            tasks[progress.stage] = bar.add_task(progress.stage, total=progress.total)
        bar.update(tasks[progress.stage], completed=progress.done)

    return watch
