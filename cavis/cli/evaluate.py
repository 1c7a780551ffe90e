"""``cavis evaluate``: a model measured on a data set."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cavis.cli.settings import Settings
from cavis.cli.shared import Device, Model, Overwrite, SkipFaulty, load, progress_bar, tell_left_out
from cavis.presets import LABORATORY_MODEL


class FormatName(StrEnum):
    """The forms of data sets."""

    YTVIS = "ytvis"
    COCO = "coco"
    VIPSEG = "vipseg"
    VSPW = "vspw"
    COCO_PANOPTIC = "coco_panoptic"


def evaluate(
    folder: Annotated[
        Path, typer.Argument(help="Folder or file: YouTube-VIS, OVIS, VIPSeg, VSPW, COCO.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for results and numbers.", show_default=False)],
    model: Model = LABORATORY_MODEL,
    form: Annotated[
        FormatName | None, typer.Option("--format", help="If not told by the content.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test.", show_default=False)] = None,
    skip_faulty: SkipFaulty = False,
    top_k: Annotated[int | None, typer.Option(help="Predictions a video.", min=1, show_default=False)] = None,
    settings: Settings = [],  # noqa: B006
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Run a model over every video of a data set and compare with the annotations.

    Instances: AP, AR, ABO, HOTA, IDF1 and a report; VIPSeg: VPQ and STQ; VSPW: mIoU. Pictures are short videos. Writes
    OUT/metrics.json (fractions) and the results in the form of the data set's server, and prints a table. What is found
    in a video is kept in OUT/videos: the same command goes on where it was stopped. Under torchrun or accelerate launch
    the processes share the videos. --set runs the same weights in another way (as in cavis/config.py:
    model.reading.alignment=none, inference.top_k=20).

    Example: cavis evaluate validation --model tiny --out scores
    """
    from cavis.checkpoints.hub import find_model
    from cavis.evaluation.shards import ResultFolder, Share, file_digest
    from cavis.evaluation.start import evaluate_videos, identity, in_words_of, open_dataset, prepare, task_for

    share = Share.from_environment(os.environ)
    dataset = open_dataset(folder, split, None if form is None else form.value, skip_faulty=skip_faulty)
    ready = load(model, _own_device(device), settings)
    dataset = in_words_of(dataset, ready)
    task = task_for(dataset, ready, out, top_k)
    prepare(out, task, share, overwrite)
    about = identity(dataset, ready, file_digest(find_model(model)), top_k, settings)
    results = ResultFolder(out, about, [video.id for video in dataset.videos])
    with progress_bar() as bar:
        row = bar.add_task("evaluate", total=None)
        outcome = evaluate_videos(task, results, share, lambda done, of: bar.update(row, completed=done, total=of))
    tell_left_out(dataset.left_out)
    if outcome is None:
        typer.echo(f"process {share.rank} of {share.processes}: its videos are done; the last process measures")
        return
    if outcome.unmatched:
        typer.echo(f"left out, for the data set has no such category: {', '.join(outcome.unmatched)}")
    if outcome.numbers is None:
        typer.echo(f"the annotations are hidden; {out / task.files[0]} is ready for the official server")
        return
    _print(outcome.numbers, outcome.table)


def _own_device(device: str) -> str:
    """Of several GPUs each process of torchrun takes its own."""
    import torch

    number = os.environ.get("LOCAL_RANK")
    return f"cuda:{number}" if device == "auto" and number and torch.cuda.is_available() else device


def _print(numbers: dict[str, float], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    console = Console()
    console.print(table)
    shown = (f"{name} {value}" if isinstance(value, int) else f"{name} {value:.3f}" for name, value in numbers.items())
    console.print("  ".join(shown))
