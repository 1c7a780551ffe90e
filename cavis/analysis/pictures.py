"""What a row of the table looks like."""

import numpy as np
from jaxtyping import Float, UInt8

_MARGIN = 0.15


def crop(frame: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, "4"]) -> UInt8[np.ndarray, "h w 3"]:
    """The part of a frame inside a box (x, y, width, height), with a margin; at least one pixel."""
    x, y, width, height = (float(side) for side in box)
    margin = _MARGIN * max(width, height)
    rows, columns = frame.shape[:2]
    left, top = int(np.clip(x - margin, 0, columns - 1)), int(np.clip(y - margin, 0, rows - 1))
    right, bottom = (
        int(np.clip(x + width + margin, left + 1, columns)),
        int(np.clip(y + height + margin, top + 1, rows)),
    )
    return frame[top:bottom, left:right]
