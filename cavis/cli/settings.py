"""``--set``: values of a preset or of a model's file that a command changes by their names."""

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from cavis.config import OURS, PAPER, RELEASED, Reading

Record = TypeVar("Record")
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="A value to change, by its name: model.reading.alignment=none; may be given several times.",
        show_default=False,
    ),
]
READINGS = {"ours": OURS, "paper": PAPER, "released": RELEASED}
"""What ``model.reading=...`` may be as a whole."""


def with_settings(record: Record, settings: Sequence[str], parts: Sequence[str]) -> Record:
    """A frozen record with values changed, one after the other, each written ``part.name=value``.

    ``parts`` are the fields that may be changed, or in which something may. A value is JSON (``7``, ``true``,
    ``[0.5, 1]``) or a word as it stands; ``model.reading`` also takes one of :data:`READINGS` as a whole. A ValueError
    says which names there are, or what a value has to be.
    """
    for setting in settings:
        name, separator, text = setting.partition("=")
        path = name.strip().split(".")
        if not separator or path[0] not in parts:
            raise ValueError(
                f"expected --set NAME=VALUE, such as model.reading.context_filter_size=7, with a name that begins with "
                f"{', '.join(parts)}; got {setting!r}"
            )
        record = _changed(record, path, text.strip(), name)
    return record


def _changed(record: Any, path: Sequence[str], text: str, name: str) -> Any:
    first, *rest = path
    names = [field.name for field in fields(record)]
    if first not in names:
        raise ValueError(f"expected a name out of {', '.join(names)} in {name}, got {first!r}")
    inner = getattr(record, first)
    if rest and not is_dataclass(inner):
        raise ValueError(f"expected a name without parts in {name}: {first} is {inner!r}")
    value = _changed(inner, rest, text, name) if rest else _value(get_type_hints(type(record))[first], text, name)
    return replace(record, **{first: value})


def _value(kind: Any, text: str, name: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    if kind is Reading and text in READINGS:
        return READINGS[text]
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        wanted = error.errors()[0]["msg"].lower()
        raise ValueError(f"expected another value of {name}: {wanted}; got {text!r}") from error
