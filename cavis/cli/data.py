"""``cavis synthesize``: data sets made and looked at."""

from pathlib import Path
from typing import Annotated

import typer

from cavis.cli.shared import Overwrite, progress_bar


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
    with progress_bar() as bar:
        task = bar.add_task("render", total=clips)
        synthesize(out, clips, seed, config, overwrite, progress=lambda done: bar.update(task, completed=done))
    typer.echo(f"{clips} clips -> {out}")
