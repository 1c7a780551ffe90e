"""``cavis lab``: the notebooks, in JupyterLab."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer


def lab(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Option(help="Where your copies of the notebooks go; in a checkout its own are opened.")
    ] = Path("cavis-lab"),
    port: Annotated[int, typer.Option(help="Of JupyterLab.", min=0, max=65535)] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open the notebooks in JupyterLab: the context filter, the training stages, the ablations and more.

    Outside of a checkout they are copied to FOLDER first. What you have edited there is never overwritten. Further
    options go to JupyterLab.

    Example: cavis lab --folder ~/lessons

    Example: cavis lab --no-browser --allow-root
    """
    from cavis.cli.notebooks import in_checkout, lay_out

    place = in_checkout()
    if place is None:
        place = folder.expanduser().resolve()
        done = lay_out(place)
        told = [f"{len(done.new)} new", f"{len(done.updated)} updated", f"{len(done.kept)} of your own kept"]
        typer.echo(f"notebooks in {place}: {', '.join(told)}")
        path = place
    else:
        typer.echo(f"notebooks in {place}")
        path = place.parent
    options = [f"--ServerApp.root_dir={place}", f"--ServerApp.port={port}", *([] if browser else ["--no-browser"])]
    command = [sys.executable, "-m", "jupyterlab", *options, *context.args]
    known = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), *([known] if known else [])])}
    _become(command, environment)


def _become(command: list[str], environment: dict[str, str]) -> None:
    """Let JupyterLab take over, so that Ctrl-C and signals are its own."""
    sys.stdout.flush()
    if sys.platform == "win32":
        sys.exit(subprocess.call(command, env=environment))
    os.execve(command[0], command, environment)
