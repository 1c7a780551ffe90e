"""What several commands share: their common options, loading with a download, the progress bar."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cavis.cli.settings import with_settings

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from cavis.checkpoints.hub import ReadyModel
    from cavis.checkpoints.zoo import ZooEntry
    from cavis.data.faults import Fault


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are already there.")]
SkipFaulty = Annotated[bool, typer.Option("--skip-faulty", help="Leave out what is faulty in the data.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")]
Model = Annotated[
    str,
    typer.Option(help="lite (real clips), tiny (the twins' world), a name that `cavis zoo` lists, or a file's path."),
]


def load(model: str, device: str, settings: Sequence[str] = ()) -> "ReadyModel":
    """Load a model, to be run with ``settings``; a published one that is not here yet is brought first."""
    from cavis.checkpoints.hub import load_model

    bring(model)
    return load_model(model, device, lambda running: with_settings(running, settings, ("model", "inference")))


def bring(model: str) -> None:
    """If ``model`` is a published one that is not here yet, tell its licence and citation, then fetch it."""
    from cavis.inference.choose import to_fetch

    if entry := to_fetch(model):
        typer.echo(f"{entry.name} is fetched first.\n{entry.credit()}")
        fetch(entry)


def fetch(entry: "ZooEntry", keep: bool = False) -> Path:
    """Download and import a published checkpoint with a progress_bar."""
    from rich.progress import DownloadColumn

    from cavis.checkpoints.zoo import get, is_cached

    with progress_bar(DownloadColumn()) as bar:
        task = bar.add_task(entry.name, total=None, visible=not is_cached(entry))
        return get(entry, lambda done, total: bar.update(task, completed=done, total=total), keep=keep)


def tell_left_out(faults: Sequence["Fault"]) -> None:
    """Say how much of a data set was left out as faulty, and the first of it."""
    if faults:
        typer.echo(f"left out as faulty: {len(faults)}, such as {faults[0]}")


@contextmanager
def progress_bar(*counts: "ProgressColumn", shown: bool = True) -> Iterator["Progress"]:
    """A progress bar on standard error, with ``counts`` (else how many of how many) and the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counts = counts or (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description:>9}"), BarColumn(), *counts, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        yield progress
