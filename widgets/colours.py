"""One colour and one shape for each group, told apart by every kind of colour vision."""

from typing import NamedTuple

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Okabe and Ito's (jfly.uni-koeln.de/color); after the last one the first comes again, with another shape."""
SHAPES = ("circle", "square", "triangle", "diamond")
UNKNOWN = "#8a8a8a"
"""Of what belongs to no group."""


class Mark(NamedTuple):
    """How the things of one group are drawn."""

    colour: str
    shape: str


def mark(group: int) -> Mark:
    """The mark of a group, counted from 0; a negative number means no group."""
    if group < 0:
        return Mark(UNKNOWN, SHAPES[0])
    return Mark(COLOURS[group % len(COLOURS)], SHAPES[group // len(COLOURS) % len(SHAPES)])


def rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as red, green, blue, 0 ... 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
