"""The losses of a run as a chart: SVG, with a logarithmic axis, lines told apart by dashes and by their names."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from widgets.markup import BLACK, COLOURS

WIDTH, HEIGHT = 760, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 130, 12, 30
_POINTS = 300
"""A line is drawn through no more points than this."""
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "12 4", "1 2", "6 2 2 2")


class History:
    """The steps of a run so far.

    >>> history = History()
    >>> history.add(SimpleNamespace(step=1, steps=9, loss=2.0, terms={"mask": 1.5}, learning_rate=1e-3))
    >>> history.thinned()["mask"]
    [1.5]
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.lines: dict[str, list[float]] = {"loss": []}
        """``loss`` and every term; as long as ``steps``, not a number where a step did not have the term."""

    def add(self, record: Any) -> None:
        """Take a record in; a ValueError says what it lacks."""
        check_record(record)
        row = {"loss": float(record.loss), **{str(name): float(value) for name, value in record.terms.items()}}
        for name in row:
            self.lines.setdefault(name, [math.nan] * len(self.steps))
        self.steps.append(int(record.step))
        for name, line in self.lines.items():
            line.append(row.get(name, math.nan))

    def thinned(self) -> dict[str, list[Any]]:
        """``steps`` and the lines, at most :data:`_POINTS` of each: running means over the last twentieth of the run.

        What is no number is None.
        """
        chosen = _chosen(len(self.steps))
        lines: dict[str, list[Any]] = {"steps": [self.steps[i] for i in chosen]}
        for name, line in self.lines.items():
            means = _running_mean(np.array(line), np.array(chosen, dtype=int))
            lines[name] = [round(value, 4) if math.isfinite(value) else None for value in means.tolist()]
        return lines


def check_record(record: Any) -> None:
    """A ValueError unless a record has the numbers and the terms of a step."""
    try:
        _ = int(record.step), int(record.steps), float(record.loss), float(record.learning_rate), record.terms
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"expected records with step, steps, loss, terms and learning_rate, got {type(record).__name__}: {error}"
        ) from error
    if not isinstance(record.terms, Mapping):
        raise ValueError(f"expected terms as a mapping of names to numbers, got {type(record.terms).__name__}")


def chart(numbers: Mapping[str, Sequence[Any]]) -> str:
    """Draw what :meth:`History.thinned` returns as SVG; nothing is drawn before the first step."""
    steps = numbers.get("steps", ())
    lines = {name: line for name, line in numbers.items() if name != "steps"}
    values = [value for line in lines.values() for value in line if value is not None and value > 0]
    if not steps or not values:
        return ""
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    span = max(high - low, 0.2)
    last = max(steps[-1], steps[0] + 1)

    def place(step: int, value: float) -> tuple[float, float]:
        across = (step - steps[0]) / (last - steps[0])
        up = (math.log10(max(value, 10**low)) - low) / span
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    parts = [_grid(low, span, steps[0], last)]
    ends: list[tuple[float, str, str]] = []
    for index, (name, line) in enumerate(lines.items()):
        colour = BLACK if name == "loss" else COLOURS[(index - 1) % (len(COLOURS) - 1)]
        ink = "currentColor" if name == "loss" else colour
        points = [place(step, value) for step, value in zip(steps, line, strict=True) if value is not None]
        if not points:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        width = 2.5 if name == "loss" else 1.6
        dash = _DASHES[index % len(_DASHES)]
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="{width}" stroke-dasharray="{dash}"/>'
        )
        if len(points) == 1:
            parts.append(f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3" fill="{ink}"/>')
        ends.append((points[-1][1], name, ink))
    return (
        f'<svg class="tp-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Losses after {steps[-1]} steps" '
        f'style="max-width:{WIDTH}px;width:100%;font:12px system-ui,sans-serif;display:block">'
        f"{''.join(parts)}{_names(ends)}</svg>"
    )


def _chosen(count: int) -> list[int]:
    """Evenly spread indices, the last one among them."""
    stride = max(1, math.ceil(count / _POINTS))
    return list(range((count - 1) % stride, count, stride)) if count else []


def _running_mean(line: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Means over the finite numbers of the window that ends at each index of ``at``; NaN where there are none."""
    window = max(1, len(line) // 20)
    finite = np.isfinite(line)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, line, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    start = np.maximum(0, at + 1 - window)
    many = count[at + 1] - count[start]
    return np.where(many > 0, (total[at + 1] - total[start]) / np.maximum(many, 1), np.nan)


def _grid(low: float, span: float, first: int, last: int) -> str:
    """Axes with their numbers."""
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    marks = [m * 10.0**power for power in range(-6, 7) for m in (1, 2, 5)]
    shown = [mark for mark in marks if low <= math.log10(mark) <= low + span]
    if len(shown) > 8:
        shown = [mark for mark in shown if f"{mark:e}"[0] == "1"]
    for mark in shown:
        y = bottom - (math.log10(mark) - low) / span * (bottom - _TOP)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#8884"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="currentColor">{mark:g}</text>')
    for step, anchor in ((first, "start"), (last, "end")):
        x = _LEFT + (step - first) / (last - first) * (right - _LEFT)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="{anchor}" fill="currentColor">{step}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle" fill="currentColor">step</text>')
    return f'{"".join(parts)}<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="currentColor"/>'


def _names(ends: list[tuple[float, str, str]]) -> str:
    """The name of each line beside its end, moved apart where they would overlap."""
    parts, below = [], 0.0
    ordered = sorted(ends)
    room = HEIGHT - _BOTTOM - 14 * len(ordered)
    for number, (y, name, ink) in enumerate(ordered):
        below = max(min(y, room + 14 * number + 14), below + 14)
        x = WIDTH - _RIGHT + 6
        parts.append(
            f'<path d="M{x - 5} {y:.1f}L{x + 2} {below - 4:.1f}" stroke="{ink}" fill="none"/>'
            f'<text x="{x + 5}" y="{below:.1f}" fill="{ink}">{escape(name.replace("_", " "))}</text>'
        )
    return "".join(parts)
