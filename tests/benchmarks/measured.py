"""The benchmark program run in this process, with what it told its progress bar."""

import json
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import __main__ as program


class Measured(NamedTuple):
    """What the program wrote, what it printed, and what its progress bar was told."""

    numbers: dict
    printed: str
    told: list[str]


def run_program(benchmark: ModuleType, folder: Path) -> Measured:
    """``python -m benchmarks --only BENCHMARK --quick``."""
    told, measure, file = [], benchmark.measure, folder / "numbers.json"
    command = typer.Typer()
    command.command()(program.main)
    only = benchmark.__name__.removeprefix("benchmarks.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "measure", lambda setting, tell: measure(setting, told.append))
        result = CliRunner().invoke(command, ["--only", only, "--quick", "--json", str(file)])
    assert result.exit_code == 0, result.output
    return Measured(json.loads(file.read_text(encoding="utf-8")), result.stdout, told)
