"""What the views share: a selection of rows, a title, a note, and a still picture where there is no kernel."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from widgets.still import Still

HERE = Path(__file__).parent


def script(name: str) -> str:
    """A view's ES module: what views share, then its own file; joined here, for there is no bundler."""
    return "\n".join((HERE / part).read_text(encoding="utf-8") for part in ("parts.js", name))


class Rows(traitlets.TraitType[list[int], Any]):
    """Row numbers: a list of whole numbers of at least 0, given as a list or an array [N]."""

    default_value = ()
    info_text = "row numbers"

    def validate(self, obj: Any, value: Any) -> list[int]:
        """A plain list; a ValueError for anything but whole numbers in one row."""
        array = as_array(value, "row numbers of at least 0 in one row")
        if array.size == 0:
            return []
        if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0:
            raise ValueError(f"expected row numbers of at least 0 in one row, got {array.dtype} of shape {array.shape}")
        return array.tolist()


class View(anywidget.AnyWidget):
    """A view of some rows of a table.

    ``selection``: the numbers of the rows that are brought out, in no particular order; link it with other views'.
    ``title`` stands above, ``note`` (how the picture was made) below.
    """

    _css = HERE / "style.css"
    selection = Rows().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)

    @abstractmethod
    def still(self) -> Still:
        """The view as a picture that needs no kernel; the note is in it."""

    def save(self, path: str | Path) -> Path:
        """Save the picture (``.svg``)."""
        return self.still().save(path)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        try:
            still = self.still().svg
        except Exception as error:  # the live view is worth more than the still one
            still = f"<p>No picture: {escape(str(error))}</p>"
        return {**data, "text/html": still}, metadata

    def _answer(self, kind: str, answer: Callable[[dict[str, Any]], tuple[dict[str, Any], list[bytes]]]) -> None:
        """Answer the front end's questions of one kind; one that cannot be answered is told so."""

        def handle(_: Any, question: Any, buffers: Any) -> None:
            if not isinstance(question, dict) or question.get("kind") != kind:
                return
            try:
                content, data = answer(question)
            except Exception as error:  # the picture stays; the reader is told why there is no answer
                content, data = {"error": str(error)}, []
            self.send({**question, **content}, data)

        self.on_msg(handle)


def as_array(values: Any, what: str) -> np.ndarray:
    """``values`` as an array; a ValueError names ``what`` was expected where rows differ in length."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"expected {what}, got rows of different lengths") from error


def texts(values: Any, count: int, what: str) -> list[str]:
    """``values`` as a list of ``count`` strings; a ValueError names ``what`` was expected."""
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise ValueError(f"expected {count} {what}, got {type(values).__name__}")
    if len(values) != count:
        raise ValueError(f"expected {count} {what}, got {len(values)}")
    return [str(value) for value in values]


def whole_numbers(values: Any, count: int, what: str) -> np.ndarray:
    """``values`` as int64 [count]; a ValueError names ``what`` was expected."""
    array = as_array(values, f"{what} as {count} whole numbers")
    if array.shape != (count,) or (array.dtype.kind not in "iu" and array.size):
        raise ValueError(f"expected {what} as {count} whole numbers, got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def picture(pixels: Any) -> np.ndarray:
    """An RGB picture [H, W, 3], uint8; a ValueError says what came instead."""
    array = np.asarray(pixels)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise ValueError(f"expected an RGB picture [H, W, 3] of uint8, got {array.dtype} of shape {array.shape}")
    return np.ascontiguousarray(array)
