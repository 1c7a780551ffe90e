"""How alike the tracks of two frames are, and which ones Hungarian matching puts together."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from cavis.analysis.collect import Layer, column, rows_where, unit_length, vectors


@dataclass(frozen=True)
class Association:
    """Two frames of a clip, slot by slot."""

    similarity: Float[np.ndarray, "M N"]
    """Cosine, -1 ... 1."""
    pairs: Int[np.ndarray, "P 2"]
    """The assignment of greatest total similarity: (row, column)."""
    rows: Int[np.ndarray, "M"]
    """Row numbers of the table: the first frame's."""
    columns: Int[np.ndarray, "N"]
    """Row numbers of the table: the second frame's."""


def associate(table: pd.DataFrame, clip: str, first: int, second: int, layer: Layer = "context_aware") -> Association:
    """Compare the rows of two frames of a clip as the model does (Eq. 10), by cosine of one layer.

    A ValueError where a frame has no row.
    """
    inside = column(table, "clip") == clip
    parts = [rows_where(table, inside & (column(table, "frame") == frame)) for frame in (first, second)]
    for frame, part in zip((first, second), parts, strict=True):
        if part.empty:
            raise ValueError(f"expected a frame of {clip!r} in which a track is visible, got {frame}")
    left, right = (unit_length(vectors(part, layer)) for part in parts)
    similarity = left @ right.T
    pairs = np.stack(linear_sum_assignment(-similarity), axis=1)
    return Association(similarity, pairs, *(np.asarray(part.index) for part in parts))
