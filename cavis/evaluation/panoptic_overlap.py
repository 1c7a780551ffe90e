"""Panoptic videos: what is annotated, what is predicted, and how many pixels each segment shares with each other one.

Every panoptic measure here is computed from these counts, so the pixels of a frame are looked at once.

Legend: F frames, G annotated and P predicted segments of one video, in the order in which they are first listed (then
the annotated ones that are listed nowhere); G1 = G + 1 and P1 = P + 1, with the void (pixels of no segment) in front.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer

VOID = 0
"""The id of pixels that belong to no segment."""
ABSENT = -1
"""Stands for the category where a segment is not listed in a frame."""


class PanopticCategory(NamedTuple):
    """One category of a panoptic data set."""

    id: int
    name: str
    isthing: bool
    """False for stuff."""


class PanopticSegment(NamedTuple):
    """One segment of one frame; the same id is the same segment in the whole video."""

    id: int
    category_id: int
    iscrowd: bool = False
    area: int | None = None
    """Annotated pixels; None: counted."""


class PanopticFrame(NamedTuple):
    """One frame divided among segments."""

    ids: Integer[np.ndarray, "H W"]
    """Which segment each pixel belongs to; 0 (void) for none."""
    segments: Sequence[PanopticSegment]


@dataclass(frozen=True)
class VideoOverlap:
    """What annotated and predicted segments of one video share, frame by frame."""

    shared: Int[np.ndarray, "F G1 P1"]
    """Pixels that an annotated segment (0: void) has in common with a predicted one (0: void)."""
    truth_areas: Int[np.ndarray, "F G"]
    """Pixels as annotated."""
    truth_categories: Int[np.ndarray, "F G"]
    """Category ids; -1 in frames in which the segment is not listed."""
    truth_crowd: Bool[np.ndarray, "F G"]
    predicted_categories: Int[np.ndarray, "F P"]
    """Category ids; -1 in frames in which the segment is not listed."""


def measure_overlap(truth: Iterable[PanopticFrame], predicted: Iterable[PanopticFrame]) -> VideoOverlap:
    """Compare the frames of one video, two at a time.

    Annotated pixels may be of segments that their frame does not list, as in the released evaluations. A ValueError
    that names the frame (from 0) if the sides differ in length or size, if the segment of a predicted pixel is not
    listed, if a segment is listed twice, or if a predicted one is listed without a pixel.
    """
    tables, truth_rows, predicted_rows = [], _Rows(), _Rows()
    for t, (annotated, found) in enumerate(zip_longest(truth, predicted)):
        try:
            if annotated is None or found is None:
                longer = "ground truth" if found is None else "prediction"
                raise ValueError(f"expected both sides to have as many frames, got one of the {longer} only")
            tables.append(_frame_table(annotated, found))
            truth_rows.add(annotated.segments)
            predicted_rows.add(found.segments)
        except ValueError as error:
            raise ValueError(f"frame {t}: {error}") from error
    places = [(truth_rows.of(table.truth_ids), predicted_rows.of(table.predicted_ids)) for table in tables]
    shape = (len(tables), len(truth_rows.numbers), len(predicted_rows.numbers))
    shared = np.zeros(shape, dtype=np.int64)
    for t, table in enumerate(tables):
        shared[t][np.ix_(*places[t])] = table.counts
    crowd = truth_rows.table(shape[0], lambda segment: segment.iscrowd, 0).astype(bool)
    areas = truth_rows.table(shape[0], lambda segment: ABSENT if segment.area is None else segment.area, 0)
    areas = np.where(areas == ABSENT, shared[:, 1:].sum(2), areas)
    categories = [rows.table(shape[0], lambda segment: segment.category_id) for rows in (truth_rows, predicted_rows)]
    return VideoOverlap(shared, areas, categories[0], crowd, categories[1])


class _Rows:
    """Numbers the segments of one side, the void as 0, and remembers what each frame lists."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {VOID: 0}
        self._frames: list[Sequence[PanopticSegment]] = []

    def add(self, segments: Sequence[PanopticSegment]) -> None:
        """What the next frame lists."""
        self._frames.append(segments)
        for segment in segments:
            self.numbers.setdefault(segment.id, len(self.numbers))

    def of(self, ids: Int[np.ndarray, "n"]) -> list[int]:
        """The rows of segments; one that no frame lists gets the next."""
        return [self.numbers.setdefault(id_, len(self.numbers)) for id_ in ids.tolist()]

    def table(self, frames: int, value, absent: int = ABSENT) -> Int[np.ndarray, "F n"]:
        """A value of each segment in each frame, the void left out."""
        result = np.full((frames, len(self.numbers)), absent, dtype=np.int64)
        for t, segments in enumerate(self._frames):
            for segment in segments:
                result[t, self.numbers[segment.id]] = value(segment)
        return result[:, 1:]


class _FrameTable(NamedTuple):
    counts: Int[np.ndarray, "g p"]
    truth_ids: Int[np.ndarray, "g"]
    predicted_ids: Int[np.ndarray, "p"]


def _frame_table(truth: PanopticFrame, predicted: PanopticFrame) -> _FrameTable:
    if truth.ids.shape != predicted.ids.shape:
        expected, got = (f"{side.ids.shape[0]} x {side.ids.shape[1]}" for side in (truth, predicted))
        raise ValueError(f"expected a prediction of {expected} pixels, got {got}")
    g, g_ids = _places(truth, "annotated")
    p, p_ids = _places(predicted, "predicted")
    shape = (len(g_ids), len(p_ids))
    counts = np.bincount((g * shape[1] + p).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    unseen = np.flatnonzero(counts.sum(0)[1:] == 0)
    if len(unseen):
        raise ValueError(f"expected a pixel of every predicted segment, got none of segment {p_ids[1 + unseen[0]]}")
    return _FrameTable(counts, g_ids, p_ids)


def _places(frame: PanopticFrame, side: str) -> tuple[Int[np.ndarray, "H W"], Int[np.ndarray, "n"]]:
    """The place of each pixel's segment among the void, the listed ids, and the annotated ones that are not: sorted."""
    listed = np.array(sorted([VOID, *(segment.id for segment in frame.segments)]), dtype=np.int64)
    if (listed[1:] == listed[:-1]).any() or listed[0] != VOID:
        wrong = listed[1:][listed[1:] == listed[:-1]] if listed[0] == VOID else listed[:1]
        raise ValueError(f"expected {side} segments of different ids above 0, got {wrong[0]} again or below")
    # Neighbouring pixels mostly belong together, so runs are looked up instead of pixels.
    flat = frame.ids.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    values = flat[starts].astype(np.int64)
    strays = np.setdiff1d(values, listed)
    if len(strays) and side == "predicted":
        raise ValueError(f"expected every {side} pixel to belong to a listed segment, got segment {strays[0]}")
    ids = np.union1d(listed, strays)
    lengths = np.diff(np.append(starts, len(flat)))
    return np.repeat(np.searchsorted(ids, values), lengths).reshape(frame.ids.shape), ids
