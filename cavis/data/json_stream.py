"""Read large annotation files entry by entry: what is in memory is one entry, not the file.

Annotation files are one object whose values are long lists. Python's own decoder reads each element of such a list;
what is done here is only to find where the elements begin.
"""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from cavis.data.faults import DataError

_CHUNK = 1 << 20
_SPACE = " \t\n\r"
_AFTER = {*_SPACE, ",", ":", "]", "}"}
_DECODER = json.JSONDecoder()


class Entry(NamedTuple):
    """One element of a list, or one other value, at the top of a json file."""

    key: str
    index: int | None
    """Place in the list; -1 where the list begins (it may be empty); None for a value that is no list."""
    value: Any


def entries(file: Path) -> Iterator[Entry]:
    """The entries of a json file whose top is an object, in the order of the file.

    A DataError if the file is no such thing, as soon as that is seen.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            yield from _Window(stream).entries()
    except OSError as error:
        raise DataError(f"{file}: expected a readable file, got {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: expected a json file, got something else ({error})") from error


def entries_after(file: Path, heads: Collection[str], body: str) -> Iterator[Entry]:
    """The entries of the lists ``heads``, and after them those of ``body``, wherever in the file they are.

    The file is read a second time if the body comes before one of the heads.
    """
    opened: set[str] = set()
    late = False
    for entry in entries(file):
        if entry.key == body:
            late = late or not opened.issuperset(heads)
            if not late:
                yield entry
        elif entry.key in heads:
            opened.add(entry.key)
            yield entry
    if late:
        yield from (entry for entry in entries(file) if entry.key == body)


class _Window:
    """The part of a text that is being decoded."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text = ""
        self.at = 0
        self.ended = False

    def entries(self) -> Iterator[Entry]:
        if self.peek() == "[":
            raise ValueError('expected lists by name, such as "videos" and "annotations", got a list')
        self.expect("{")
        first = True
        while self.next_of("}", first):
            first = False
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"expected a name in quotes, got {key!r:.40}")
            self.expect(":")
            if self.peek() == "[":
                yield from self.elements(key)
            else:
                yield Entry(key, None, self.value())
        if self.peek():
            raise ValueError(f"expected the end of the file, got {self.peek()!r}")

    def elements(self, key: str) -> Iterator[Entry]:
        self.expect("[")
        yield Entry(key, -1, None)
        index = 0
        while self.next_of("]", index == 0):
            yield Entry(key, index, self.value())
            index += 1

    def next_of(self, close: str, first: bool) -> bool:
        """Step over what is between two elements; False at the end of them."""
        if self.peek() == close:
            self.at += 1
            return False
        if not first:
            self.expect(",")
        return True

    def expect(self, sign: str) -> None:
        got = self.peek()
        if got != sign:
            raise ValueError(
                f"expected {sign!r}, got {got!r}" if got else f"expected {sign!r}, got the end of the file"
            )
        self.at += 1

    def peek(self) -> str:
        """The next sign that is no space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if not self.more():
                    raise
                continue
            # A number may go on after the window, or be cut in two by it (0. and 5).
            if self.text[end : end + 1] in _AFTER or not self.more():
                self.at = end
                return value

    def more(self) -> bool:
        """Widen the window: by as much as it has, so that a long element is not tried too often."""
        if self.ended:
            return False
        rest = self.text[self.at :]
        piece = self.stream.read(max(_CHUNK, len(rest)))
        self.text, self.at, self.ended = rest + piece, 0, not piece
        return not self.ended
