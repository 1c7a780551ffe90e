"""Run-length masks in COCO's compressed form, decoded with numpy alone."""

from typing import Any

import numpy as np


def decode(mask: Any) -> np.ndarray:
    """The pixels of a mask that has ``height``, ``width`` and ``counts`` (bytes): bool [H, W].

    A ValueError for runs that do not fill the picture.
    """
    lengths = run_lengths(mask.counts)
    if sum(lengths) != mask.height * mask.width:
        raise ValueError(f"expected runs of {mask.height} x {mask.width} pixels together, got {sum(lengths)} pixels")
    values = np.arange(len(lengths)) % 2 == 1  # the first run is background
    return np.repeat(values, lengths).reshape(mask.width, mask.height).T


def run_lengths(counts: bytes) -> list[int]:
    """The lengths of the runs.

    Numbers of 5-bit digits, the lowest first; from the fourth on they are differences to the number two before.
    """
    lengths: list[int] = []
    value, shift = 0, 0
    for byte in counts:
        digit = byte - 48
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:  # more digits follow
            continue
        if digit & 0x10:  # a negative number
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value, shift = 0, 0
    if shift or min(lengths, default=0) < 0:
        raise ValueError("expected run lengths of at least 0 in COCO's compressed form, got something else")
    return lengths
