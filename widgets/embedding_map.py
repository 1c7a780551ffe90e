"""Embeddings as points in the plane: pan, zoom, lasso; what a point shows appears while the pointer rests on it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import traitlets

from widgets.colours import mark, rgb
from widgets.still import LINE, Still, image, label, shape_at
from widgets.view import View, as_array, picture, script, whole_numbers

MOST_POINTS = 100_000
MOST_GROUPS = 200
_DRAWN_ONE_BY_ONE = 4000
_WIDTH, _HEIGHT, _LEGEND, _MARGIN = 420, 340, 22, 18
_LARGEST_CROP = 160

Crops = Callable[[int], np.ndarray]


class EmbeddingMap(View):
    """A map of rows; those that are ``selected`` keep their colour, all others fade.

    ``points`` [N, 2], finite. ``groups`` [N], whole numbers: rows of one group look alike; -1 belongs to none.
    ``names``: group -> name. ``rows`` [N]: the row each point stands for (by default 0 ... N-1). ``crops(row)`` gives
    the picture [h, w, 3] (uint8) shown while the pointer rests on a point, and of a dozen of those a lasso selects;
    ``describe(row)`` the text below it.

    Example::

        rng = np.random.default_rng(0)
        EmbeddingMap(rng.normal(size=(300, 2)), rng.integers(0, 3, 300), names={0: "cat", 1: "dog", 2: "cow"})
    """

    _esm = script("embedding_map.js")
    _points = traitlets.Bytes().tag(sync=True)
    _places = traitlets.Bytes().tag(sync=True)
    _rows = traitlets.Bytes().tag(sync=True)
    _legend = traitlets.List().tag(sync=True)
    _has_crops = traitlets.Bool().tag(sync=True)
    _alike = traitlets.Unicode().tag(sync=True)
    height = traitlets.Int(_HEIGHT, min=120, max=2000).tag(sync=True)

    def __init__(
        self,
        points: Any,
        groups: Any = None,
        *,
        names: Mapping[int, str] | None = None,
        rows: Any = None,
        crops: Crops | None = None,
        describe: Callable[[int], str] | None = None,
        **traits: Any,
    ) -> None:
        values = checked_points(points)
        count = len(values)
        self._groups = np.full(count, -1) if groups is None else whole_numbers(groups, count, "groups")
        self._numbers = np.arange(count) if rows is None else whole_numbers(rows, count, "rows")
        if count and (
            len(np.unique(self._numbers)) < count or not 0 <= self._numbers.min() <= self._numbers.max() < 2**31
        ):
            raise ValueError("expected a row number of its own for every point, from 0 on, got another or one twice")
        if not isinstance(names, Mapping | None):
            raise ValueError(f"expected names as a mapping of groups to names, got {type(names).__name__}")
        self._crops, self._describe = crops, describe
        super().__init__(_has_crops=crops is not None or describe is not None, **traits)
        self._rows = self._numbers.astype("<i4").tobytes()
        self._legend, places = _legend(self._groups, names or {})
        self._places = places.astype("<u2").tobytes()
        marks = len({(entry["colour"], entry["shape"]) for entry in self._legend})
        if marks < len(self._legend):
            self._alike = f"There are {marks} marks for {len(self._legend)} groups: some look alike."
        self.points = values
        self._answer("crop", self._crop)

    @property
    def points(self) -> np.ndarray:
        """The points, float32 [N, 2]; assign as many to move them."""
        return np.frombuffer(self._points, "<f4").reshape(-1, 2)

    @points.setter
    def points(self, points: Any) -> None:
        values = checked_points(points)
        if len(values) != len(self._numbers):
            raise ValueError(f"expected {len(self._numbers)} points as before, got {len(values)}")
        self._points = values.astype("<f4").tobytes()

    @property
    def selected(self) -> np.ndarray:
        """Which points are selected, bool [N]."""
        return np.isin(self._numbers, self.selection)

    def still(self) -> Still:
        """The whole map, the selected rows brought out."""
        legend_rows = (len(self._legend) + 2) // 3
        body = _one_by_one if len(self._numbers) <= _DRAWN_ONE_BY_ONE else _as_pixels
        marks = [mark(entry["group"]) for entry in self._legend]
        places = np.frombuffer(self._places, "<u2")
        parts = [f'<rect x="8" y="0" width="{_WIDTH - 16}" height="{_HEIGHT}" rx="4" fill="none" stroke="{LINE}"/>']
        parts += body(_fitted(self.points), marks, places, self.selected)
        for i, entry in enumerate(self._legend):
            x, y = 20 + (i % 3) * (_WIDTH - 24) // 3, _HEIGHT + 18 + (i // 3) * _LEGEND
            parts += [shape_at(marks[i], x, y - 4), label(x + 10, y, f"{entry['name']} ({entry['count']})", 11)]
        if not len(self._numbers):
            parts.append(label(_WIDTH / 2, _HEIGHT / 2, "No points.", anchor="middle"))
        note = " ".join(filter(None, (self.note, self._alike)))
        return Still(_WIDTH, _HEIGHT + _LEGEND * legend_rows, parts, title=self.title, note=note)

    def _crop(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        row = int(question["row"])
        text = self._describe(row) if self._describe is not None else f"row {row}"
        if self._crops is None:
            return {"text": text}, []
        pixels = picture(self._crops(row))
        step = -(-max(pixels.shape[:2]) // _LARGEST_CROP)
        small = np.ascontiguousarray(pixels[::step, ::step])
        return {"text": text, "height": small.shape[0], "width": small.shape[1]}, [small.tobytes()]


def checked_points(points: Any) -> np.ndarray:
    """Float32 [N, 2]; a ValueError for another shape, for what is not finite, and for more than can be drawn."""
    values = as_array(points, "points as numbers [N, 2]")
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "fiu":
        raise ValueError(f"expected points as numbers [N, 2], got {values.dtype} of shape {values.shape}")
    if len(values) > MOST_POINTS:
        raise ValueError(f"expected at most {MOST_POINTS:,} points, got {len(values):,}: draw a sample of them")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        raise ValueError(f"expected finite points within float32, got {bad} that {'is' if bad == 1 else 'are'} not")
    return values


def _legend(groups: np.ndarray, names: Mapping[int, str]) -> tuple[list[dict[str, Any]], np.ndarray]:
    """An entry for each group that occurs, and the place of each point's entry."""
    present, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    present = present.tolist()
    if len(present) > MOST_GROUPS:
        raise ValueError(f"expected at most {MOST_GROUPS} groups, got {len(present):,}")
    entries = [
        {"group": group, "name": names.get(group, "unknown" if group < 0 else f"group {group}"), "count": int(count)}
        for group, count in zip(present, counts, strict=True)
    ]
    return [{**entry, **mark(entry["group"])._asdict()} for entry in entries], places.reshape(-1)


def _fitted(points: np.ndarray) -> np.ndarray:
    """Points in the picture, one scale for both axes."""
    if not len(points):
        return points
    points = points.astype(np.float64)  # differences of float32 may be too large for float32
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array((_WIDTH - 16, _HEIGHT)) - 2 * _MARGIN
    scale = (room / np.maximum(high - low, 1e-9)).min() if len(points) > 1 else 1.0
    middle = np.array((_WIDTH / 2, _HEIGHT / 2))
    return middle + (points - (low + high) / 2) * min(scale, 1e9) * (1, -1)


def _one_by_one(at: np.ndarray, marks: list, places: np.ndarray, selected: np.ndarray) -> list[str]:
    strong = selected if selected.any() else np.ones(len(at), bool)
    order = np.argsort(strong, kind="stable")
    return [shape_at(marks[places[i]], *at[i], opacity=0.9 if strong[i] else 0.15) for i in order]


def _as_pixels(at: np.ndarray, marks: list, places: np.ndarray, selected: np.ndarray) -> list[str]:
    """Many points: two pixels wide, painted rather than drawn."""
    strong = selected if selected.any() else np.ones(len(at), bool)
    colours = np.array([rgb(one.colour) for one in marks], np.uint8)[places]
    colours[~strong] = (colours[~strong].astype(float) * 0.2 + 255 * 0.8).astype(np.uint8)
    canvas = np.full((2 * _HEIGHT, 2 * _WIDTH, 3), 255, np.uint8)
    order = np.argsort(strong, kind="stable")
    x, y = np.rint(2 * at[order]).astype(int).T
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        canvas[np.clip(y + dy, 0, 2 * _HEIGHT - 1), np.clip(x + dx, 0, 2 * _WIDTH - 1)] = colours[order]
    return [image(canvas[8:-8, 40:-40], 20, 4, _WIDTH - 40, _HEIGHT - 8)]
