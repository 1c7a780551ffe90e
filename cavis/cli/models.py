"""``cavis zoo`` (``get``, ``show``) and ``cavis import-weights``: the models of others."""

from pathlib import Path
from typing import Annotated

import typer

from cavis.cli.shared import Overwrite, fetch


def zoo(context: typer.Context) -> None:
    """List the checkpoints that others have published, with the paper's numbers.

    [bold]zoo show[/bold] tells all about one, [bold]zoo get[/bold] fetches it.
    """
    from rich.console import Console
    from rich.table import Table

    from cavis.checkpoints.zoo import ZOO, cache_folder

    if context.invoked_subcommand is None:
        columns = ("name", "data", "net", "stage", "AP", "VPQ", "STQ", "from", "")
        table = Table(*columns, box=None, padding=(0, 1, 0, 0), pad_edge=False)  # fits into 80 columns
        for entry in ZOO.values():
            table.add_row(*entry.row())
        Console().print(table)
        typer.echo(f"numbers: the paper's, as fractions; * is here already, in {cache_folder()}")
        typer.echo("its terms and all else: cavis zoo show NAME; to fetch it: cavis zoo get NAME")


def zoo_show(name: Annotated[str, typer.Argument(help="As `cavis zoo` lists it.", show_default=False)]) -> None:
    """Tell about a published checkpoint: its address, size, licence, citation, and whether it is here already.

    Example: cavis zoo show ovis_r50_tracker
    """
    from cavis.checkpoints.zoo import find

    typer.echo(find(name).card())


def zoo_get(
    name: Annotated[str, typer.Argument(help="As `cavis zoo` lists it.", show_default=False)],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the downloaded file beside the imported one.")] = False,
) -> None:
    """Fetch a published checkpoint and import it, so that --model NAME finds it.

    After an interruption the same command goes on where it was. Example: cavis zoo get ovis_r50_tracker
    """
    from cavis.checkpoints.zoo import find

    entry = find(name)
    typer.echo(entry.credit())
    typer.echo(f"{entry.name} -> {fetch(entry, keep)}")


def import_weights(
    file: Annotated[Path, typer.Argument(help="A .pth, .pkl or .safetensors file of others.", show_default=False)],
    preset: Annotated[str, typer.Option(help="Whose model it is, such as ovis_r50.", show_default=False)],
    stage: Annotated[str, typer.Option(help="segmenter, tracker or refiner.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.", show_default=False)],
    partial: Annotated[bool, typer.Option("--partial", help="To train on: take what fits, list the rest.")] = False,
    report: Annotated[Path | None, typer.Option(help="A text file to list every entry in.", show_default=False)] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a checkpoint of CAVIS, Mask2Former or DINOv2 into a model file; nothing in it is run.

    Example: cavis import-weights ovis_online.pth --preset ovis_r50 --stage tracker --out ovis.safetensors
    """
    from cavis.config import STAGES

    if stage not in STAGES:
        raise ValueError(f"expected a stage out of {', '.join(STAGES)}, got {stage!r}")
    for path in (out, *([report] if report else [])):
        _check_place(path, overwrite)
    from cavis.checkpoints.importing import import_checkpoint  # only now: it brings torch

    done = import_checkpoint(file, preset, stage, out, partial=partial)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("\n".join(done.listing()) + "\n", encoding="utf-8")
    typer.echo("\n".join(done.lines()))


def _check_place(path: Path, overwrite: bool) -> None:
    """Whether a file can be written there, before anything is read."""
    if path.is_dir():
        raise ValueError(f"expected a file to write, got the folder {path}; give it a name inside")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already; expected --overwrite to replace it")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"expected a folder to write {path.name} into, but {parent} is a file")
