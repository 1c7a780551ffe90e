"""Check run-length masks that come from files, before pycocotools meets them.

Its overlap routine never returns when two masks do not cover the same number of pixels, its decoder takes a mask that
ends too early for a whole one, and a run below 0 is a huge one to it: a damaged file has to be found out here.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from cavis.records import Rle

_NO_MASK, _BELOW_ZERO = -1, -2
_FOUND = {_NO_MASK: "text that is no run-length mask", _BELOW_ZERO: "a run of less than 0 pixels"}


def check_runs(masks: Sequence[Rle | None]) -> None:
    """A ValueError naming the first frame whose runs are below 0 or do not add up to the pixels of its image.

    ``masks``: one entry a frame, None where there is no mask.
    """
    frames = [t for t, mask in enumerate(masks) if mask is not None]
    present = [mask for mask in masks if mask is not None]
    expected = np.array([mask.height * mask.width for mask in present], dtype=np.int64)
    got = covered_pixels([mask.counts for mask in present])
    wrong = np.flatnonzero(got != expected)
    if len(wrong):
        first = wrong[0]
        found = _FOUND.get(int(got[first]), str(got[first]))
        raise ValueError(f"frame {frames[first]}: expected run lengths that add up to {expected[first]}, got {found}")


def covered_pixels(counts: Sequence[bytes]) -> Int[np.ndarray, "N"]:
    """How many pixels the runs of each compressed mask cover; -1 for text that is no such mask, -2 for runs below 0.

    COCO writes a number as characters of five bits, lowest first, each 48 up, with 32 added where more follow; from
    the fourth run on the number is the difference from the run before the previous one.
    """
    lengths = np.array([len(text) for text in counts], dtype=np.int64)
    covered = np.full(len(counts), _NO_MASK, dtype=np.int64)
    characters = np.frombuffer(b"".join(counts), dtype=np.uint8)
    if len(characters) == 0:
        return covered
    owner = np.repeat(np.arange(len(counts)), lengths)
    last = np.cumsum(lengths)[lengths > 0] - 1
    sound = lengths > 0
    sound[owner[(characters < 48) | (characters > 48 + 63)]] = False
    sound[owner[last[((characters[last] - 48) & 32) != 0]]] = False
    keep = sound[owner]
    if keep.any():
        values, owner = _numbers(characters[keep] - np.uint8(48), owner[keep])
        runs = np.bincount(owner, minlength=len(counts))
        index = np.arange(len(values)) - (np.cumsum(runs) - runs)[owner]
        values = _summed(values, index)
        covered[sound] = np.add.reduceat(values, np.flatnonzero(index == 0))
        covered[owner[values < 0]] = _BELOW_ZERO
    return covered


def _summed(values: Int[np.ndarray, "R"], index: Int[np.ndarray, "R"]) -> Int[np.ndarray, "R"]:
    """The runs of all masks, from their numbers; ``index``: the place of each number in its mask."""
    sums = np.zeros(len(values) + 1, dtype=np.int64)  # of every second number, over all masks, behind a 0
    for odd in (0, 1):
        sums[1 + odd :: 2] = np.cumsum(values[odd::2])
    # What was summed up to the mask's begin is not its own, and its first number is never built upon.
    begin = np.arange(len(values)) - index
    return np.where(index == 0, values, sums[1:] - sums[begin + 1 - (index & 1)])


def _numbers(
    digits: UInt8[np.ndarray, "M"], owner: Int[np.ndarray, "M"]
) -> tuple[Int[np.ndarray, "R"], Int[np.ndarray, "R"]]:
    """The numbers that runs of six-bit digits stand for, and whose each one is."""
    ends = np.flatnonzero((digits & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    # No run needs more than 35 bits; what is longer is nonsense, and must only not overflow.
    values = np.add.reduceat((digits & 31).astype(np.int64) << (5 * np.minimum(place, 7)), starts)
    negative = (digits[ends] & 16) != 0
    values -= negative * (np.int64(1) << (5 * np.minimum(ends - starts + 1, 8)))
    return values, owner[ends]
