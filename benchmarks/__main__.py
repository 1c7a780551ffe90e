"""``python -m benchmarks``: measure, print a table, and write the numbers as JSON if asked."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import evaluation, shipped, tracking
from benchmarks.setting import Setting, full, quick
from benchmarks.tracking import Numbers, Tell

LIMITS = {
    "tracking.flops_ratio": 0.43,
    "tracking.time_ratio": 0.50,
    "tracking.memory_ratio_long_over_short": 1.10,
    "tracking.memory_ratio_offline": 1.30,
    "shipped.memory_ratio_long_over_short.lite": 1.30,
}
"""What we promise at the full size: at most this. On small frames, the work on the queries weighs more."""

FLOORS = {"evaluation.speedup_over_trackeval": 10.0}
"""What we promise: at least this."""

PACKAGES = ("cavis", "torch", "transformers", "numpy", "trackeval")


class Benchmark(StrEnum):
    """What can be measured."""

    TRACKING = "tracking"
    EVALUATION = "evaluation"
    SHIPPED = "shipped"


def main(
    only: Annotated[list[Benchmark] | None, typer.Option(help="Which benchmarks; all of them if not said.")] = None,
    small: Annotated[bool, typer.Option("--quick", help="Small frames, few repetitions: minutes.")] = False,
    out: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; its own choice if not said.", min=1)] = None,
) -> None:
    """Measure ratios side by side: same weights, same pictures, taking turns in one run."""
    if threads is not None:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for the child processes
    setting = quick() if small else full()
    work = evaluation.QUICK if small else evaluation.FULL
    length = shipped.QUICK if small else shipped.FULL
    numbers: dict[str, float] = {}
    for name in only or list(Benchmark):
        if name == Benchmark.TRACKING:
            found = watched(name, tracking.steps(setting), partial(tracking.measure, setting))
        elif name == Benchmark.EVALUATION:
            found = watched(name, evaluation.steps(work), partial(evaluation.measure, work))
        else:
            found = watched(name, shipped.steps(length), partial(shipped.measure, length))
        numbers |= {f"{name}.{key}": value for key, value in found.items()}
    Console().print(table(numbers, {} if small else LIMITS, FLOORS))
    if out is not None:
        out.write_text(json.dumps(numbers | surroundings(setting), indent=2) + "\n", encoding="utf-8")


def watched(name: str, steps: int, measure: Callable[[Tell], Numbers]) -> Numbers:
    """The numbers of one benchmark, with a progress bar on stderr; ``measure`` tells ``steps`` times what is done."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=steps)
        return measure(lambda what: progress.update(task, advance=1, description=what))


def table(numbers: Mapping[str, float], limits: Mapping[str, float], floors: Mapping[str, float]) -> Table:
    """The numbers, with what we promise beside them."""
    result = Table("measure", "value", "promised")
    for name, value in numbers.items():
        promise = f"at most {limits[name]:.2f}" if name in limits else ""
        promise = f"at least {floors[name]:.2f}" if name in floors else promise
        result.add_row(name, f"{value:.3f}" if value < 100 else f"{value:.0f}", promise)
    return result


def surroundings(setting: Setting) -> dict[str, Any]:
    """Where and on what the numbers were measured."""
    return {
        "setting": asdict(setting),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    typer.run(main)
