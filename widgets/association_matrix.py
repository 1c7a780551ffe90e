"""How alike the slots of two frames are, and which ones Hungarian matching puts together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import traitlets

from widgets.still import INK, Still, label
from widgets.view import View, as_array, script, texts, whole_numbers

MOST_SLOTS = 100
_CELL, _NAMES = 34, 110
_PALE, _STRONG = np.array((240, 246, 252)), np.array((8, 64, 129))


class AssociationMatrix(View):
    """A table of similarities; a cell that is in ``pairs`` has a frame around it.

    ``similarity`` [M, N], finite: rows are the first frame's slots, columns the second's. ``pairs`` [P, 2]: the
    assignment, as (row, column). ``left_names`` [M] and ``right_names`` [N]. ``left_rows`` [M] and ``right_rows`` [N]:
    the row numbers the slots stand for; choosing a cell selects both of its slots.

    Example::

        AssociationMatrix(np.eye(3) * 0.8 + 0.1, [(0, 0), (1, 1), (2, 2)], left_names=["cat", "dog", "cow"])
    """

    _esm = script("association_matrix.js")
    _values = traitlets.Bytes().tag(sync=True)
    _shape = traitlets.List().tag(sync=True)
    _pairs = traitlets.List().tag(sync=True)
    _names = traitlets.List().tag(sync=True)
    _numbers = traitlets.List().tag(sync=True)

    def __init__(
        self,
        similarity: Any,
        pairs: Any = (),
        *,
        left_names: Sequence[str] | None = None,
        right_names: Sequence[str] | None = None,
        left_rows: Any = None,
        right_rows: Any = None,
        **traits: Any,
    ) -> None:
        super().__init__(**traits)
        self.show(similarity, pairs, names=(left_names, right_names), rows=(left_rows, right_rows))

    def show(
        self,
        similarity: Any,
        pairs: Any = (),
        *,
        names: tuple[Sequence[str] | None, Sequence[str] | None] = (None, None),
        rows: tuple[Any, Any] = (None, None),
    ) -> None:
        """Show other frames; ``names`` and ``rows`` are the left and the right ones."""
        values = _checked(similarity)
        marked = as_array(pairs, "pairs as whole numbers [P, 2]")
        marked = marked if marked.shape != (0,) else np.zeros((0, 2), int)
        if marked.ndim != 2 or marked.shape[1] != 2 or marked.dtype.kind not in "iu":
            raise ValueError(f"expected pairs as whole numbers [P, 2], got {marked.dtype} of shape {marked.shape}")
        if len(marked) and (marked.min() < 0 or (marked >= values.shape).any()):
            raise ValueError(f"expected pairs within {values.shape[0]} rows and {values.shape[1]} columns, got others")
        numbers = [
            [-1] * count if some is None else whole_numbers(some, count, "row numbers").tolist()
            for some, count in zip(rows, values.shape, strict=True)
        ]
        labels = [_labels(some, count) for some, count in zip(names, values.shape, strict=True)]
        with self.hold_sync():  # all at once: the front end never sees half of it
            self._numbers, self._names, self._pairs = numbers, labels, marked.tolist()
            self._shape = list(values.shape)
            self._values = values.astype("<f4").tobytes()

    @property
    def similarity(self) -> np.ndarray:
        """The values, float32 [M, N]."""
        return np.frombuffer(self._values, "<f4").reshape(self._shape)

    def still(self) -> Still:
        """The whole table."""
        rows, columns = self._shape
        values = self.similarity.astype(np.float64)
        low, high = _range(values)
        marked = {tuple(pair) for pair in self._pairs}
        parts = [label(_NAMES - 6, 58 + _CELL * i, name[:16], 11, "end") for i, name in enumerate(self._names[0])]
        for j, name in enumerate(self._names[1]):
            x = _NAMES + _CELL * (j + 0.5)
            parts.append(f'<g transform="rotate(-35 {x} 30)">{label(x - 4, 32, name[:9], 10)}</g>')
        for i in range(rows):
            for j in range(columns):
                share = (values[i, j] - low) / (high - low)
                red, green, blue = np.rint(_PALE + share * (_STRONG - _PALE)).astype(int)
                place = f'x="{_NAMES + _CELL * j + 1}" y="{38 + _CELL * i}" width="{_CELL - 2}" height="{_CELL - 4}"'
                frame = f'stroke="{INK}" stroke-width="2.5"' if (i, j) in marked else ""
                parts.append(f'<rect {place} rx="3" fill="rgb({red},{green},{blue})" {frame}/>')
                ink = "#ffffff" if share > 0.65 else INK
                x, y = _NAMES + _CELL * (j + 0.5), 57 + _CELL * i
                parts.append(label(x, y, _short(values[i, j]), 10, "middle", ink))
        if not values.size:
            parts = [label(12, 30, "No slots to compare.")]
        width = max(260, _NAMES + _CELL * columns + 40)
        return Still(width, 44 + _CELL * max(1, rows), parts, title=self.title, note=self.note)


def _checked(similarity: Any) -> np.ndarray:
    values = as_array(similarity, "similarities as numbers [M, N]")
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ValueError(f"expected similarities as numbers [M, N], got {values.dtype} of shape {values.shape}")
    if max(values.shape) > MOST_SLOTS:
        raise ValueError(f"expected at most {MOST_SLOTS} slots a frame, got {values.shape[0]} and {values.shape[1]}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            f"expected finite similarities within float32, got {int((~np.isfinite(values)).sum())} that are not"
        )
    return values


def _labels(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [f"slot {i}" for i in range(count)]
    return texts(names, count, "names")


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:.0e}"


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    return (low, high) if high > low else (min(low, 0.0), max(high, 1.0))
