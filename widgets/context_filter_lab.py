"""Eq. 6, one step beside the other: mask, Laplacian, inner boundary, blurred features, pooled vector."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

import anywidget
import ipywidgets
import numpy as np
import traitlets

from widgets.markup import bars, check_picture, describe, diverging, image, in_one_sentence, problem

SIZES = tuple(range(3, 16, 2))
KINDS = {
    "average of each channel (paper)": "per_channel",
    "average of the channel sum (released code)": "channel_sum",
    "learnable": "learnable",
    "none": "none",
}
_KIND_WORDS = {
    "per_channel": "Each channel is averaged over the box, on its own. The colours are those of F, whatever the size.",
    "channel_sum": "All channels are added up first: one number a cell is left, so the picture is grey.",
    "learnable": "Each channel has weights of its own inside the box: those of the average, until they are taught. "
    "The colours are those of F.",
    "none": "There is no context: nothing is looked at, and there is nothing to compare.",
}

_UNSEEN = "It is not seen in this frame: there is nothing to average."


class Steps(Protocol):
    """What the computation returns, as arrays."""

    @property
    def mask(self) -> np.ndarray:
        """Bool [h w]."""
        ...

    @property
    def laplacian(self) -> np.ndarray:
        """Whole numbers [h w]."""
        ...

    @property
    def boundary(self) -> np.ndarray:
        """Bool [h w]."""
        ...

    @property
    def features(self) -> np.ndarray:
        """Float [C h w]."""
        ...

    @property
    def blurred(self) -> np.ndarray:
        """Float [C h w]."""
        ...

    @property
    def pooled(self) -> np.ndarray:
        """Float [N C]; zeros for an object that is not seen."""
        ...


Compute = Callable[[int, int, str, int], Steps]
"""From frame, object, kind and size of the filter to the steps."""


class StepsView(anywidget.AnyWidget):
    """The five pictures, and a pointer (mouse or arrow keys) that explains the pixel under it."""

    _esm = Path(__file__).parent / "context_filter_lab.js"
    html = traitlets.Unicode().tag(sync=True)
    mask = traitlets.Bytes().tag(sync=True)
    laplacian = traitlets.Bytes().tag(sync=True)
    """Int8, row by row."""
    grid = traitlets.List(traitlets.Int(), default_value=[0, 0]).tag(sync=True)
    """h, w."""
    size = traitlets.Int(9).tag(sync=True)
    """0 where there is no filter."""


class ContextFilterLab(ipywidgets.VBox):
    """Look into the context filter: choose an object, the size and the kind of the filter, and see every step of Eq. 6.

    ``pictures``: uint8 [T H W 3] (or one, [H W 3]); ``names``: of the N objects; ``compute(frame, object, kind, size)``
    returns the arrays of :class:`Steps`. Wrong input is a ValueError of one sentence; what ``compute`` raises later is
    shown in the view. ``frame``, ``instance``, ``kind``, ``size`` and ``other`` (whom to compare with) can be set.

    Example::

        lab = ContextFilterLab(view.pictures, view.names, partial(filter_steps, view))
        lab.size = 15
    """

    frame = traitlets.Int(0)
    instance = traitlets.Int(0)
    other = traitlets.Int(0)
    kind = traitlets.Unicode("per_channel")
    size = traitlets.Int(9)

    def __init__(
        self,
        pictures: np.ndarray,
        names: Sequence[str],
        compute: Compute,
        *,
        instance: int = 0,
        other: int | None = None,
        frame: int = 0,
    ) -> None:
        self.pictures = _check_pictures(pictures)
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise ValueError(f"expected a name for each object, got {type(names).__name__}")
        self.names = tuple(str(name) for name in names)
        if not callable(compute):
            raise ValueError(f"expected a function that computes the steps, got {type(compute).__name__}")
        if not self.names:
            raise ValueError("expected at least one object, got none")
        other = min(instance + 1, len(self.names) - 1) if other is None else other
        self._compute = compute
        self.steps: Steps | None = None
        """The steps that are shown; None before the first, and after a failure."""
        self.view = StepsView()
        super().__init__(frame=frame, instance=instance, other=other)
        self.children = (*self._controls(), self.view)
        self.observe(self._show, ["frame", "instance", "other", "kind", "size"])
        self._show()

    @traitlets.validate("frame", "instance", "other", "size", "kind")
    def _on_offer(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        offers = {"frame": range(len(self.pictures)), "size": SIZES, "kind": tuple(KINDS.values())}
        offered = offers.get(name, range(len(self.names)))
        if value not in offered:
            words = f"between 0 and {len(offered) - 1}" if isinstance(offered, range) else f"of {offered}"
            raise ValueError(f"expected {'object' if name == 'instance' else name} {words}, got {value!r}")
        return value

    def _controls(self) -> tuple[ipywidgets.Widget, ...]:
        """Sliders and lists, tied to the traits."""
        wide = {"description_width": "90px"}
        objects = [(name, n) for n, name in enumerate(self.names)]
        widgets = {
            "instance": ipywidgets.Dropdown(options=objects, value=self.instance, description="object", style=wide),
            "other": ipywidgets.Dropdown(options=objects, value=self.other, description="compare with", style=wide),
            "frame": ipywidgets.IntSlider(
                min=0, max=len(self.pictures) - 1, description="frame", style=wide, continuous_update=False
            ),
            "size": ipywidgets.SelectionSlider(
                options=SIZES, value=9, description="filter size", style=wide, continuous_update=False
            ),
            "kind": ipywidgets.Dropdown(
                options=KINDS,
                value="per_channel",
                description="filter",
                style=wide,
                layout=ipywidgets.Layout(width="420px"),
            ),
        }
        for name, widget in widgets.items():
            traitlets.link((self, name), (widget, "value"))
        rows = (("size", "kind"), ("instance", "other", "frame"))
        layout = ipywidgets.Layout(flex_flow="row wrap")
        return tuple(ipywidgets.HBox([widgets[name] for name in row], layout=layout) for row in rows)

    def _show(self, _: Any = None) -> None:
        """Compute and draw; a failure is told in the view."""
        try:
            self.steps = _check_steps(self._compute(self.frame, self.instance, self.kind, self.size), len(self.names))
            html = self._draw(self.steps)
        except Exception as error:  # whatever it was, the view says so and the notebook goes on
            self.steps = None
            self.view.html = problem(in_one_sentence(error))
            return
        with self.view.hold_sync():
            self.view.mask = self.steps.mask.astype(np.uint8).tobytes()
            self.view.laplacian = self.steps.laplacian.astype(np.int8).tobytes()
            self.view.grid = list(self.steps.mask.shape)
            self.view.size = 0 if self.kind == "none" else self.size
            self.view.html = html

    def _draw(self, steps: Steps) -> str:
        """All panels as HTML, to be shown with or without a kernel."""
        name, picture = self.names[self.instance], self.pictures[self.frame]
        count = int(steps.boundary.sum())
        panels = (
            ("1 · mask M", image(_lit(picture, steps.mask, None), f"mask of {name}"), f"Where the model sees {name}."),
            (
                "2 · Lap(M)",
                image(diverging(steps.laplacian, 8), "Laplacian"),
                "8 × the cell minus its 8 neighbours. Blue: positive, orange: negative, white: 0.",
            ),
            (
                "3 · Lap(M) > 0",
                image(_lit(picture, steps.boundary, (230, 159, 0)), "inner boundary"),
                f"{count} cells of the mask that touch what is not the mask." if count else _UNSEEN,
            ),
            (
                "F",
                image(_colours(steps.features, steps.features), "features before the filter"),
                "What the network knows of each cell. Similar colours are similar features; they mean nothing else.",
            ),
            *self._context(steps),
        )
        row = "".join(map(_panel, panels))
        height, width = steps.mask.shape
        shape = f'style="--cfl-shape:{width}/{height}"'
        return f'<div class="cfl" {shape}>{_STYLE}<div class="cfl-row">{row}</div>{self._alike(steps)}</div>'

    def _context(self, steps: Steps) -> tuple[tuple[str, str, str], ...]:
        """The last two panels: the filtered features, and what is pooled of them."""
        if self.kind == "none":
            return (("4 · no filter", "", _KIND_WORDS["none"]), ("5 · no context", "", "There is nothing to pool."))
        name, other, count = self.names[self.instance], self.names[self.other], int(steps.boundary.sum())
        same = np.ptp(steps.pooled[self.instance]) <= 1e-6 * max(1.0, float(np.abs(steps.pooled).max()))
        numbers = f"{steps.pooled.shape[1]} times the same number" if same else f"{steps.pooled.shape[1]} numbers"
        rows = [(name, steps.pooled[self.instance])]
        if other != name:
            rows.append((other, steps.pooled[self.other]))
        return (
            (
                f"4 · Avg(F), {self.size} × {self.size}",
                image(_colours(steps.blurred, steps.features), "blurred features"),
                _KIND_WORDS[self.kind],
            ),
            (
                "5 · pooled: Q̃",
                bars(rows, "pooled vectors"),
                f"Panel 4, averaged over the {count} cells of panel 3: {numbers}." if count else _UNSEEN,
            ),
        )

    def _alike(self, steps: Steps) -> str:
        """How alike the chosen object's context is to every other one."""
        if self.kind == "none":
            return ""
        lines = []
        for n, name in enumerate(self.names):
            if n == self.instance:
                continue
            value = alike(steps.pooled[self.instance], steps.pooled[n])
            text = "not seen" if np.isnan(value) else f"{value:+.2f}"
            width = 0 if np.isnan(value) else 50 * abs(value)
            side = "left:50%" if value >= 0 else "right:50%"
            mark = " <b>← compared</b>" if n == self.other else ""
            lines.append(
                f'<tr><td>{escape(name)}{mark}</td><td class="cfl-bar">'
                f'<div style="{side};width:{width:.0f}%"></div></td><td>{text}</td></tr>'
            )
        title = f"How alike is the context of {escape(self.names[self.instance])} to that of … (cosine, −1 to 1)"
        return f'<table class="cfl-alike"><caption>{title}</caption>{"".join(lines)}</table>'

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget where there is a kernel, the static panels where there is none."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "text/html": self.view.html, "text/plain": "ContextFilterLab"}


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of two vectors [C]; not a number where one is zero."""
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length else float("nan")


def _check_pictures(pictures: np.ndarray) -> np.ndarray:
    if isinstance(pictures, np.ndarray) and pictures.ndim == 3:
        pictures = pictures[None]
    if not isinstance(pictures, np.ndarray) or pictures.ndim != 4 or len(pictures) == 0:
        raise ValueError(f"expected pictures, uint8 [T, H, W, 3], got {describe(pictures)}")
    check_picture(pictures[0])
    return pictures


def _check_steps(steps: Steps, objects: int) -> Steps:
    """The steps, if all of their arrays fit each other."""
    mask = steps.mask
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"expected a mask, bool [h, w], got {describe(mask)}")
    for name in ("laplacian", "boundary"):
        found = getattr(steps, name)
        if not isinstance(found, np.ndarray) or found.shape != mask.shape:
            raise ValueError(f"expected {name} {list(mask.shape)} like the mask, got {describe(found)}")
    features, blurred, pooled = steps.features, steps.blurred, steps.pooled
    for name, found in (("features", features), ("blurred features", blurred)):
        if not isinstance(found, np.ndarray) or found.ndim != 3 or found.shape[1:] != mask.shape:
            raise ValueError(f"expected {name} [C, {mask.shape[0]}, {mask.shape[1]}], got {describe(found)}")
    if len(features) != len(blurred):
        raise ValueError(f"expected {len(features)} channels before and after the filter, got {len(blurred)}")
    if not isinstance(pooled, np.ndarray) or pooled.shape != (objects, len(blurred)):
        raise ValueError(f"expected pooled vectors [{objects}, {len(blurred)}], got {describe(pooled)}")
    if not all(np.isfinite(values).all() for values in (features, blurred, pooled)):
        raise ValueError("expected features that are numbers, got some that are not finite")
    return steps


def _lit(picture: np.ndarray, lit: np.ndarray, colour: tuple[int, int, int] | None) -> np.ndarray:
    """The picture, pale and grey where ``lit`` [h w] is false, and in one colour (None: its own) where it is true."""
    rows, columns = ((np.arange(side) * n // side) for side, n in zip(picture.shape, lit.shape, strict=False))
    where = lit.astype(bool)[rows][:, columns, None]
    grey = 140 + picture.mean(axis=2, keepdims=True) * 0.35
    return np.where(where, picture if colour is None else np.array(colour), grey).astype(np.uint8)


def _colours(shown: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Features [C h w] as colours, uint8 [h w 3]: the three main directions of ``features``, the same for all filters.

    Where all channels are the same number it is grey, from its own least to its own most.
    """
    if np.ptp(shown, axis=0).max() <= 1e-6 * max(1.0, float(np.abs(shown).max())):
        projected = base = np.repeat(shown[:1].reshape(1, -1).T, 3, axis=1)
    else:
        flat = features.reshape(len(features), -1).T
        mean = flat.mean(axis=0)
        _, _, directions = np.linalg.svd(flat - mean, full_matrices=False)
        directions = directions[:3] * np.sign(directions[:3].sum(axis=1, keepdims=True))
        base, projected = ((values.reshape(len(values), -1).T - mean) @ directions.T for values in (features, shown))
        base, projected = (np.pad(values, ((0, 0), (0, 3 - values.shape[1]))) for values in (base, projected))
    low, high = np.quantile(base, [0.02, 0.98], axis=0)
    scaled = np.clip((projected - low) / np.maximum(high - low, 1e-9), 0, 1)
    return np.round(255 * scaled).astype(np.uint8).reshape(*shown.shape[1:], 3)


def _panel(panel: tuple[str, str, str]) -> str:
    title, picture, words = panel
    return (
        f'<figure class="cfl-panel"><figcaption>{escape(title)}</figcaption><div class="cfl-picture">{picture}</div>'
        f"<p>{escape(words)}</p></figure>"
    )


_STYLE = """<style>
.cfl{font:13px/1.4 system-ui,sans-serif;max-width:1240px}
.cfl-row{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px}
.cfl-panel{margin:0}.cfl-panel figcaption{font-weight:600;margin-bottom:4px}.cfl-panel p{margin:4px 0;font-size:12px}
.cfl-picture{position:relative;aspect-ratio:var(--cfl-shape);border:1px solid #8888}
.cfl-picture img{width:100%;height:100%;image-rendering:pixelated;display:block;margin:0;max-width:none}
.cfl-picture svg.cfl-pointer{position:absolute;inset:0;width:100%;height:100%;pointer-events:none}
.cfl-picture:focus-visible{outline:3px solid #E69F00}
.cfl-alike{border-collapse:collapse;margin-top:8px;font-size:12px}
.cfl-alike caption{text-align:left;font-weight:600;white-space:nowrap}
.cfl-alike td{padding:1px 10px 1px 0;text-align:left}.cfl-bar{width:220px;position:relative;
background:linear-gradient(#888,#888) 50% 0/1px 100% no-repeat}
.cfl-bar div{position:absolute;top:4px;height:10px;background:#0072B2}
.cfl-read{min-height:3em;margin:8px 0;padding:6px 10px;border-left:4px solid #E69F00}
</style>"""
