"""The training log: one JSON object a line, appended step by step, cut back to the checkpoint on resume.

JSON has no infinity: the gradient norm of a step that a loss scaler left out is written as null, and read as NaN.
TensorBoard's event files are written beside it if asked for.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cavis.checkpoints.files import write_atomically
from cavis.training.curves import Curves


@dataclass(frozen=True)
class StepReport:
    """What one training step did."""

    step: int
    """Counts from 1."""
    steps: int
    loss: float
    terms: dict[str, float]
    """The weighted terms of the last layer and the contrastive ones; the auxiliary layers' sum is ``auxiliary``."""
    learning_rate: float
    gradient_norm: float
    """Not finite in fp16 where the loss scaler left the step out."""
    seconds: float
    """From the step before to the end of this one: what it waited for its clips is in it."""


class TrainingLog:
    """Writes reports to a ``.jsonl`` file; lines after ``start`` steps, from a run that went on and was lost, go.

    ``curves``: a folder for TensorBoard's files of the same numbers; None: none are written.
    """

    def __init__(self, path: Path, start: int = 0, curves: Path | None = None) -> None:
        kept = [line for line in read_log(path) if line["step"] <= start] if path.exists() else []
        text = "".join(_text(line) for line in kept)
        write_atomically(path, lambda temporary: _write_text(temporary, text))
        self._curves = None if curves is None else Curves(curves, start, kept)
        self._file = path.open("a", encoding="utf-8")

    def write(self, report: StepReport) -> None:
        """Append one report."""
        rounded = {name: round(value, 5) for name, value in report.terms.items()}
        line = asdict(report) | {"terms": rounded, "loss": round(report.loss, 5), "seconds": round(report.seconds, 3)}
        self._file.write(_text(line))
        self._file.flush()
        if self._curves is not None:
            self._curves.write(line)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._curves is not None:
            self._curves.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a log, NaN for null; a line cut short by a crash is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(_each(json.loads(text), lambda value: math.nan if value is None else value))
        except json.JSONDecodeError:
            continue
    return lines


def _text(line: dict[str, Any]) -> str:
    """A line as JSON, null for what is not finite."""
    return json.dumps(_each(line, _finite), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _each(line: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """A line with all its values changed, those of the terms too."""
    return {name: _each(value, change) if isinstance(value, dict) else change(value) for name, value in line.items()}


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
