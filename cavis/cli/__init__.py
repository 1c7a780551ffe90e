"""The command line: ``cavis track | embed | synthesize | data | train | evaluate | zoo | import-weights | lab | info``.

Commands assemble, they do not compute. Exit codes: 0 done, 1 failed, 2 the input or the options were wrong,
130 interrupted.
"""

import sys

import typer

from cavis.cli.data import animate, check, data, select, synthesize
from cavis.cli.embed import embed
from cavis.cli.evaluate import evaluate
from cavis.cli.info import info
from cavis.cli.lab import lab
from cavis.cli.models import import_weights, zoo, zoo_get, zoo_show
from cavis.cli.track import track
from cavis.cli.train import INTERRUPTED, train

BAD_INPUT = 2

app = typer.Typer(
    name="cavis",
    help="Context-aware video instance segmentation: track every instance of a clip, train, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
zoo_app = typer.Typer(name="zoo", rich_markup_mode="rich")
data_app = typer.Typer(name="data", rich_markup_mode="rich", no_args_is_help=True)

for command in (track, embed, synthesize, train, evaluate, import_weights, info):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(lab)
zoo_app.callback(invoke_without_command=True)(zoo)
zoo_app.command("get")(zoo_get)
zoo_app.command("show")(zoo_show)
app.add_typer(zoo_app)
data_app.callback()(data)
data_app.command("check")(check)
data_app.command("select")(select)
data_app.command("animate")(animate)
app.add_typer(data_app)


def main() -> None:
    """Run a command; wrong input ends with one sentence and exit code 2."""
    try:
        app()
    except (ValueError, FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        typer.echo(f"cavis: {error}", err=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        typer.echo("cavis: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except (RuntimeError, OSError, ArithmeticError) as error:
        typer.echo(f"cavis: failed: {error}", err=True)
        sys.exit(1)
