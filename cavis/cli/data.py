"""``cavis synthesize`` and ``cavis data``: data sets made and looked at."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cavis.cli.shared import Overwrite, progress_bar

UNSOUND = 1


class FormatName(StrEnum):
    """The forms of annotations that can be read."""

    YTVIS = "ytvis"
    VIPSEG = "vipseg"
    VSPW = "vspw"
    COCO = "coco"
    COCO_PANOPTIC = "coco_panoptic"


Format = Annotated[
    FormatName | None,
    typer.Option("--format", help="If a folder has annotations of several forms.", show_default=False),
]
Split = Annotated[str | None, typer.Option(help="train, valid, ... if there are several.", show_default=False)]


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


def data() -> None:
    """Look a data set through.

    Example: cavis data check my_clips
    """


def check(
    path: Annotated[Path, typer.Argument(help="A folder or an annotation file.", show_default=False)],
    form: Format = None,
    split: Split = None,
) -> None:
    """Say everything that is wrong with a data set: file, video and annotation of each fault.

    Reads all annotations and the header of every frame. Exit code 1 if a record cannot be used; such records are
    left out by --skip-faulty elsewhere.

    Example: cavis data check my_clips --split valid
    """
    from cavis.data.check import check

    report = check(path, None if form is None else form.value, split)
    typer.echo(str(report))
    if not report.sound:
        sys.exit(UNSOUND)
