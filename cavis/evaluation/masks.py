"""Overlap of whole tracks: areas, intersections and IoU summed over the frames of a video.

Everything stays run-length encoded: no mask is ever decoded. Legend: N tracks of T frames; D predicted, G annotated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from pycocotools import mask

from cavis.records import Rle

coco_mask: Any = mask  # its stubs know single masks only

_MOST_PAIRS = 8_000
"""How many pairs of masks are handed to pycocotools at once."""
_PARTS = 3
"""Into how many parts, spread over the video, its frames go: after each of them, pairs without hope are dropped."""


@dataclass(frozen=True)
class TrackMasks:
    """The masks of some tracks of one video, measured once: what overlaps are computed from."""

    packed: Sequence[dict[str, Any] | None]
    """Masks for pycocotools, T for each of some tracks, None where there is no mask (widths: see `_shared`)."""
    starts: Int[np.ndarray, "N"]
    """Where in ``packed`` each track begins."""
    kinds: Int[np.ndarray, "N"]
    """Only tracks of the same kind are compared; 0, 1, 2, ..."""
    areas: Int[np.ndarray, "N T"]
    """Pixels of each track in each frame; 0 where it has no mask or an empty one."""
    size: tuple[int, int] | None
    """Height and width of all masks; None if there is none."""

    @classmethod
    def measure(cls, tracks: Sequence[Sequence[Rle | None]], kinds: Int[np.ndarray, "N"] | None = None) -> "TrackMasks":
        """Measure tracks given as one mask (or None) a frame; a ValueError if their lengths or mask sizes differ.

        ``kinds``: small numbers from 0; None: all tracks are of one kind.
        """
        lengths = {len(track) for track in tracks}
        if len(lengths) > 1:
            raise ValueError(f"expected tracks of one length, got {sorted(lengths)} frames")
        number, length = len(tracks), max(lengths, default=0)
        masks = list(chain.from_iterable(tracks))
        sizes = set(map(attrgetter("height", "width"), filter(None, masks)))
        if len(sizes) > 1:
            raise ValueError(f"expected masks of one size, got {_listed(sizes)}")
        size = next(iter(sizes), None)
        kinds = np.zeros(number, dtype=np.int64) if kinds is None else kinds
        height, width = size or (0, 0)
        marked = [
            [(height, width + kind * length + t) for t in range(length)] for kind in range(kinds.max(initial=0) + 1)
        ]
        marks = chain.from_iterable(marked[kind] for kind in kinds.tolist())
        # Lists are built faster than tuples from generators, and of masks there are many.
        packed = [mask and {"size": one, "counts": mask.counts} for mask, one in zip(masks, marks, strict=True)]
        present = np.array([mask is not None for mask in packed], dtype=bool)
        areas = np.zeros(number * length, dtype=np.int64)
        areas[present] = _areas([mask for mask in packed if mask is not None])
        return cls(packed, np.arange(number) * length, kinds, areas.reshape(number, length), size)

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, rows: Sequence[int] | Int[np.ndarray, "n"]) -> "TrackMasks":
        """Only these tracks, in this order."""
        return TrackMasks(self.packed, self.starts[rows], self.kinds[rows], self.areas[rows], self.size)

    @property
    def mean_areas(self) -> Float[np.ndarray, "N"]:
        """Mean area of each track over the frames in which it has any pixel; 0 if it never has."""
        return self.areas.sum(1) / np.maximum((self.areas > 0).sum(1), 1)


def intersections(
    predicted: TrackMasks, truth: TrackMasks, frames: Int[np.ndarray, "F"] | None = None
) -> Int[np.ndarray, "D G"]:
    """Pixels that each predicted track shares with each annotated one, summed over the frames (None: all)."""
    shared = np.zeros(len(predicted) * len(truth))
    for d, g, _, pixels in _shared(predicted, truth, frames):
        shared += np.bincount(d * len(truth) + g, pixels, len(shared))
    return shared.astype(np.int64).reshape(len(predicted), len(truth))


def frame_intersections(predicted: TrackMasks, truth: TrackMasks) -> Int[np.ndarray, "D G T"]:
    """Pixels that each predicted track shares with each annotated one in each frame.

    A ValueError if the two sides, neither of them empty, differ in length or in mask size.
    """
    if len(predicted) and len(truth):
        _check_alike(predicted, truth)
    shared = np.zeros((len(predicted), len(truth), truth.areas.shape[1]), dtype=np.int64)
    for d, g, t, pixels in _shared(predicted, truth):
        shared[d, g, t] = pixels
    return shared


class _Shared(NamedTuple):
    """Pairs of masks that overlap."""

    predicted: Int[np.ndarray, "n"]
    truth: Int[np.ndarray, "n"]
    frame: Int[np.ndarray, "n"]
    pixels: Int[np.ndarray, "n"]


def _shared(predicted: TrackMasks, truth: TrackMasks, wanted: Int[np.ndarray, "F"] | None = None) -> Iterator[_Shared]:
    """All pairs of masks of the same frame that overlap, some frames at a time.

    One call of pycocotools costs far more than one pair of masks, so a call gets many frames. It compares all masks
    with all, but skips those of unequal size, and nothing but that check ever reads the width: the masks of each
    frame and kind claim a width of their own (see `TrackMasks.measure`), so only those are compared.
    """
    if len(predicted) == 0 or len(truth) == 0:
        return
    frames = np.arange(predicted.areas.shape[1]) if wanted is None else wanted
    frames = frames[predicted.areas[:, frames].any(0) & truth.areas[:, frames].any(0)]
    block = max(1, int((_MOST_PAIRS / (len(predicted) * len(truth))) ** 0.5))
    for start in range(0, len(frames), block):
        d, d_frame = _present(predicted, frames[start : start + block])
        g, g_frame = _present(truth, frames[start : start + block])
        # With "crowd" set, pycocotools divides the intersection by the prediction's own area: multiplying by it and
        # rounding gives the integer back exactly.
        first = [predicted.packed[place] for place in (predicted.starts[d] + d_frame).tolist()]
        second = [truth.packed[place] for place in (truth.starts[g] + g_frame).tolist()]
        share = np.asarray(coco_mask.iou(first, second, [1] * len(second)))
        i, j = (share > 0).nonzero()
        pixels = np.rint(share[i, j] * predicted.areas[d[i], d_frame[i]])
        yield _Shared(d[i], g[j], d_frame[i], pixels.astype(np.int64))


def video_iou(predicted: TrackMasks, truth: TrackMasks, at_least: float = 0.0) -> Float[np.ndarray, "D G"]:
    """Spatio-temporal IoU of each predicted track with each annotated one, 0 ... 1.

    The intersections of all frames over the unions of all frames: a frame in which only one of the two has a mask
    adds its area to the union, a frame in which neither has adds nothing. Two tracks without any pixel, or of different
    kinds, overlap by 0.
    What is below ``at_least`` may be given as 0: pairs are dropped when their areas, and what they share in some of the
    frames, leave no hope. A ValueError if the two sides differ in length or in mask size.
    """
    if len(predicted) == 0 or len(truth) == 0:
        return np.zeros((len(predicted), len(truth)))
    _check_alike(predicted, truth)
    sizes = predicted.areas.sum(1)[:, None] + truth.areas.sum(1)
    shared = np.zeros(sizes.shape, dtype=np.int64)
    hopeful = predicted.kinds[:, None] == truth.kinds
    parts = [frames for start in range(_PARTS) if len(frames := np.arange(start, predicted.areas.shape[1], _PARTS))]
    for frames, most in zip(parts, _most_shared(predicted, truth, parts), strict=True):
        hopeful &= _iou(shared + most, sizes) >= at_least
        d, g = hopeful.any(1).nonzero()[0], hopeful.any(0).nonzero()[0]
        if not len(d):
            break
        shared[d[:, None], g] += intersections(predicted.select(d), truth.select(g), frames)
    return np.where(hopeful, _iou(shared, sizes), 0.0)


def _most_shared(
    predicted: TrackMasks, truth: TrackMasks, parts: Sequence[Int[np.ndarray, "F"]]
) -> Int[np.ndarray, "P D G"]:
    """What two tracks can share at most in each part of the frames and all later ones.

    Two masks share no more pixels than the smaller one has.
    """
    if not parts:
        return np.zeros((0, len(predicted), len(truth)), dtype=np.int64)
    order = np.concatenate(parts)
    starts = np.cumsum([0, *map(len, parts[:-1])])
    areas = predicted.areas[:, order]
    most = [np.add.reduceat(np.minimum(areas, row), starts, axis=1) for row in truth.areas[:, order]]
    return np.stack(most, axis=-1).transpose(1, 0, 2)[::-1].cumsum(0)[::-1]


def _iou(shared: Int[np.ndarray, "D G"], sizes: Int[np.ndarray, "D G"]) -> Float[np.ndarray, "D G"]:
    """From what two tracks share and what they have together, shared pixels counted twice; 0 if both have nothing."""
    return shared / np.maximum(sizes - shared, 1)


def _check_alike(predicted: TrackMasks, truth: TrackMasks) -> None:
    if predicted.areas.shape[1] != truth.areas.shape[1]:
        raise ValueError(f"expected tracks of {truth.areas.shape[1]} frames, got {predicted.areas.shape[1]}")
    if predicted.size and truth.size and predicted.size != truth.size:
        raise ValueError(f"expected masks of {_listed({truth.size})}, got {_listed({predicted.size})}")


def _areas(packed: list[dict[str, Any]]) -> Int[np.ndarray, "M"]:
    # pycocotools fails from 256 masks on: on its way it stores their number in one byte.
    parts = [coco_mask.area(packed[start : start + 255]) for start in range(0, len(packed), 255)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _present(tracks: TrackMasks, frames: Int[np.ndarray, "F"]) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "M"]]:
    """Which track has pixels in which of the frames."""
    rows, columns = tracks.areas[:, frames].nonzero()
    return rows, frames[columns]


def _listed(sizes: set[tuple[int, int]]) -> str:
    return " and ".join(f"{height} x {width}" for height, width in sorted(sizes))
