"""``cavis synthesize`` and ``cavis data``: data sets made and looked at."""

import sys
from dataclasses import replace
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


class NamesOf(StrEnum):
    """Whose categories pictures can be given."""

    YTVIS19 = "ytvis19"
    YTVIS21 = "ytvis21"
    OVIS = "ovis"
    LITE = "lite"


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
    """Look a data set through, take a small one out of a large one, or make clips out of pictures.

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


def select(
    path: Annotated[Path, typer.Argument(help="A folder or a file in COCO's form.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    category: Annotated[
        list[str], typer.Option(help="Pictures that show this; given several times, any of them.", show_default=False)
    ] = [],  # noqa: B006 (typer copies it)
    most: Annotated[int | None, typer.Option(help="Pictures of each category.", min=1, show_default=False)] = None,
    held_out: Annotated[float, typer.Option(help="Share of pictures to measure with; 0: none.")] = 0.1,
    split_file: Annotated[
        Path | None, typer.Option(help="A json with the image ids of train and val, instead.", show_default=False)
    ] = None,
    side: Annotated[int, typer.Option(help="Longest side of a picture, in pixels.")] = 384,
    seed: Annotated[int, typer.Option(help="Of the choice.", min=0)] = 0,
) -> None:
    """Take some pictures out of a data set in COCO's form, in a small size.

    Writes OUT/train.json, OUT/val.json and OUT/images; every annotation of a chosen picture is kept.

    Example: cavis data select coco/annotations/instances_train2017.json pictures --category person --category cat
    --category car --category bicycle --category motorcycle --most 1000
    """
    from cavis.data.selection import Selection, select

    selection = Selection(categories=tuple(category), most=most, held_out=held_out, side=side, seed=seed)
    with progress_bar() as bar:
        row = bar.add_task("pictures", total=None)
        counts = select(path, out, selection, split_file, lambda done, of: bar.update(row, completed=done, total=of))
    typer.echo(f"{', '.join(f'{number} {name}' for name, number in counts.items())} -> {out}")


def animate(
    path: Annotated[Path, typer.Argument(help="Pictures in COCO's form: a folder or a file.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    split: Split = None,
    frames: Annotated[int, typer.Option(help="Length of a clip.", min=1)] = 12,
    names: Annotated[
        NamesOf | None, typer.Option("--as", help="Whose categories COCO's are given.", show_default=False)
    ] = None,
    corruption: Annotated[float, typer.Option(help="Share of clips that look as a phone films.", min=0, max=1)] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same clips.", min=0)] = 0,
) -> None:
    """Set annotated pictures in motion: clips to measure tracking with where there are no annotated videos.

    Writes OUT/annotations.json in YouTube-VIS form and OUT/JPEGImages: the camera turns, drifts and zooms, and objects
    of other pictures pass by. What looks as a phone films is dim, blurred, noisy or compressed, or several of these.

    Example: cavis data animate pictures/val.json moving --as lite && cavis evaluate moving --model lite --out scores
    """
    from cavis.categories import COCO_AS
    from cavis.data.animation import MOTION, animate
    from cavis.data.opening import open_annotated

    dataset = open_annotated(path, split, categories=None if names is None else COCO_AS[names.value])
    with progress_bar() as bar:
        row = bar.add_task("animate", total=len(dataset))
        motion = replace(MOTION, corruption=corruption)
        animate(dataset, out, frames, seed, motion, lambda done, of: bar.update(row, completed=done))
    typer.echo(f"{len(dataset)} clips -> {out}")
