"""``cavis evaluate``: a model measured on a data set."""

from pathlib import Path
from typing import Annotated

import typer

from cavis.cli.shared import Device, Model, Overwrite, load, progress_bar


def evaluate(
    folder: Annotated[Path, typer.Argument(help="A data set in YouTube-VIS form.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the numbers.", show_default=False)],
    model: Model = "tiny",
    top_k: Annotated[int | None, typer.Option(help="Predictions a video.", min=1, show_default=False)] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Track every video of a data set and compare with its annotations (YouTube-VIS AP and AR).

    Writes OUT/metrics.json (fractions) and OUT/results.json, and prints the table.

    Example: cavis evaluate validation --model tiny --out scores
    """
    import json

    from cavis.data.ytvis_json import open_ytvis
    from cavis.evaluation.run import evaluate, metrics_json, results_json
    from cavis.inference.choose import predictor_for
    from cavis.inference.clip_files import output_folder

    dataset = open_ytvis(folder)
    ready = load(model, device)
    if ready.inference.task != "instance":
        raise ValueError(f"expected a model of the instance task, got {model!r} of the {ready.inference.task} task")
    predictor = predictor_for(ready, top_k)
    with output_folder(out, ("metrics.json", "results.json"), overwrite), progress_bar() as bar:
        task = bar.add_task("evaluate", total=len(dataset))
        evaluation = evaluate(
            dataset, predictor.run, predictor.top_k, progress=lambda done: bar.update(task, completed=done)
        )
        (out / "results.json").write_text(json.dumps(results_json(evaluation.predictions)), encoding="utf-8")
        if evaluation.metrics is None:
            typer.echo(f"the annotations are hidden; {out / 'results.json'} is ready for the official server")
            return
        numbers = metrics_json(evaluation.metrics)
        (out / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    _print_metrics(numbers, [(row.name, row.ap, row.ap50) for row in evaluation.per_category])
    if evaluation.unmatched:
        typer.echo(f"left out, for the data set has no such category: {', '.join(evaluation.unmatched)}")


def _print_metrics(numbers: dict[str, float], rows: list[tuple[str, float, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("category", "AP", "AP50")
    for name, *values in rows:
        table.add_row(name, *("-" if value < 0 else f"{value:.3f}" for value in values))
    console = Console()
    console.print(table)
    console.print("  ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
