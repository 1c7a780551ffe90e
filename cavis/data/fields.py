"""Take fields out of json records; a field that is not as expected is a ValueError with one sentence."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from cavis.categories import plain_name

MAX_PIXELS = 1 << 28
"""Pictures of more pixels than this are taken for a slip of the pen."""


def record(value: Any) -> dict[str, Any]:
    """An object with named fields."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a record with named fields, got {_shown(value)}")
    return value


def present(entry: dict[str, Any], name: str) -> Any:
    """A field that must be there."""
    if name not in entry:
        raise ValueError(f"an entry has no {name!r}")
    return entry[name]


def whole(entry: dict[str, Any], name: str) -> int:
    """A whole number; text that looks like one is refused, for it would not equal the number elsewhere."""
    value = present(entry, name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 62:
        raise ValueError(f"expected a whole number as {name}, got {_shown(value)}")
    return value


def text(entry: dict[str, Any], name: str) -> str:
    """A text that is not empty."""
    value = present(entry, name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected text as {name}, got {_shown(value)}")
    return value


def listed(entry: dict[str, Any], name: str) -> list[Any]:
    """A list."""
    value = present(entry, name)
    if not isinstance(value, list):
        raise ValueError(f"expected a list as {name}, got {_shown(value)}")
    return value


def looked_for(listed: Sequence[str], categories: Collection[str]) -> tuple[str, ...]:
    """The categories that ``labelled_categories`` names, whatever their capitals, spaces and underscores."""
    plain = {plain_name(name): name for name in categories}
    if unlisted := [name for name in listed if plain_name(name) not in plain]:
        raise ValueError(f"expected labelled_categories out of the file's categories, got {unlisted[0]!r}")
    return tuple(plain[plain_name(name)] for name in listed)


def size(entry: dict[str, Any]) -> tuple[int, int]:
    """Height and width of a picture, in pixels."""
    height, width = whole(entry, "height"), whole(entry, "width")
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"expected a height and width of at least 1 pixel, got {height} x {width}")
    return height, width


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def name_of(entry: Any, *names: str) -> int | str | None:
    """The first of some fields that can be shown as an id, for messages about a record that may be broken."""
    if isinstance(entry, dict):
        for name in names:
            if isinstance(entry.get(name), int | str):
                return entry[name]
    return None


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, int | float):
        return str(value)[:40]
    return {dict: "a record", list: "a list"}.get(type(value), type(value).__name__)
