"""``cavis embed``: the embeddings of every track in every frame, as a table."""

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cavis.cli.shared import Device, Model, Overwrite, load, progress_bar
from cavis.presets import LABORATORY_MODEL

if TYPE_CHECKING:
    from cavis.analysis import Footage

TWINS = "twins"


def embed(
    clips: Annotated[
        list[str],
        typer.Argument(help="Videos, folders of frames or clips, annotated data sets, or twins.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The .parquet file to write.", show_default=False)],
    model: Model = LABORATORY_MODEL,
    min_score: Annotated[float, typer.Option(help="Tracks that score at least this.", min=0, max=1)] = 0.3,
    seed: Annotated[int, typer.Option(help="Of the clips of twins.", min=0)] = 0,
    number: Annotated[int, typer.Option("--clips", help="How many clips of twins.", min=1)] = 8,
    companions: Annotated[bool, typer.Option(help="Whether each twin's companion is drawn.")] = True,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Write the embeddings of every track in every frame: a table to analyse, in Parquet.

    One row for each track and frame: clip, frame, track, category, score, box, area, [bold]core[/bold] (Q̂) and
    [bold]context_aware[/bold] (Q̂ and Q side by side). Rows of annotated clips also tell which object they show.
    CLIPS may be the word twins: clips of the twins' world, with their annotations.

    Example: cavis embed twins --clips 8 --out embeddings.parquet

    Example: cavis embed holiday.mp4 --model lite --out embeddings.parquet
    """
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already; expected --overwrite to replace it")
    from cavis.analysis import collect, write_table

    footage = [one for name in clips for one in _open(name, number, seed, companions)]
    ready = load(model, device)
    with progress_bar() as bar:
        task, begun = bar.add_task("embed", total=len(footage)), count()

        def watch(clip: "Footage") -> None:
            bar.update(task, completed=next(begun), description=clip.name[-20:])

        table = collect(ready, footage, min_score=min_score, seed=seed if TWINS in clips else None, watch=watch)
        bar.update(task, completed=len(footage))
    write_table(out, table)
    known = len(table.query("identity >= 0"))
    typer.echo(f"{len(table)} rows of {len(footage)} clips, {known} of known identity -> {out}")


def _open(name: str, number: int, seed: int, companions: bool) -> "list[Footage]":
    from cavis.analysis import open_footage, twins
    from cavis.data.synthetic import TwinsConfig

    return twins(number, seed, TwinsConfig(companions=companions)) if name == TWINS else open_footage(name)
