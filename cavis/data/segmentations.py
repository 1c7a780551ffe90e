"""From the segmentations of a json file to packed run-length masks, and what can be odd about them."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from jaxtyping import Int

from cavis import rle
from cavis.data.fields import is_number
from cavis.records import Rle


class PackedMasks(Sequence[Rle | None]):
    """Run-length masks in one piece of memory; one is unpacked, still run-length encoded, when it is asked for.

    All have the size ``height`` x ``width``; None stands where there is no mask.
    """

    __slots__ = ("_counts", "_ends", "height", "width")

    def __init__(self, masks: Sequence[Rle | None], height: int, width: int) -> None:
        parts = [b"" if mask is None else mask.counts for mask in masks]
        self.height, self.width = height, width
        self._counts = b"".join(parts)
        self._ends: Int[np.ndarray, "T"] = np.cumsum([len(part) for part in parts], dtype=np.int64).astype(np.uint32)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Rle | None: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Rle | None, ...]: ...
    def __getitem__(self, index: int | slice) -> Rle | tuple[Rle | None, ...] | None:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        start = int(self._ends[place - 1]) if place else 0
        counts = self._counts[start : int(self._ends[place])]
        return Rle(self.height, self.width, counts) if counts else None


def read_mask(segmentation: Any, height: int, width: int) -> Rle | None:
    """Read compressed RLE, RLE with a list of run lengths, or polygons; None for null and for an empty list.

    A ValueError says what came instead, also for a mask of another size than the image's ``height`` x ``width``.
    Whether compressed runs cover the image is left to ``check_runs``, which looks at many at a time.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        _check_polygons(segmentation, height, width)
    elif isinstance(segmentation, dict):
        _check_run_lengths(segmentation, height, width)
    try:
        return rle.from_json(segmentation, height, width)
    except Exception as error:  # pycocotools raises bare exceptions
        raise ValueError(str(error)) from error


def is_polygon(segmentation: Any) -> bool:
    """Whether a segmentation is a list of polygons, and not of run lengths."""
    return isinstance(segmentation, list) and bool(segmentation)


def oddities(segmentation: Any, mask: Rle | None, box: Any, area: Any) -> Iterator[str]:
    """What does no harm, but is probably a mistake: masks of no pixels, boxes outside the image, wrong areas.

    ``box`` and ``area`` are what the file says, None where it says nothing. The area of a polygon differs from that of
    its pixels: up to a quarter and 32 pixels are let pass.
    """
    if mask is None:
        return
    pixels = rle.area(mask)
    if pixels == 0:
        yield "expected a mask with pixels, got one of none"
    if box is not None and (message := _odd_box(box, mask.height, mask.width)):
        yield message
    if area is not None:
        slack = pixels / 4 + 32 if is_polygon(segmentation) else 1
        if not is_number(area) or abs(area - pixels) > slack:
            yield f"expected an area of {pixels} pixels, as the mask has, got {area}"


def _odd_box(box: Any, height: int, width: int) -> str | None:
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        return f"expected a box of four numbers (x, y, width, height), got {str(box)[:60]}"
    x, y, wide, high = box
    # Some tools count from 1, some to the last pixel: one pixel is let pass.
    if min(x, y) < -1 or min(wide, high) < 0 or x + wide > width + 1 or y + high > height + 1:
        return f"expected a box inside the image of {height} x {width} pixels (height x width), got {box}"
    return None


def _check_run_lengths(segmentation: dict[str, Any], height: int, width: int) -> None:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if "size" in segmentation and size != [height, width]:
        got = " x ".join(str(side) for side in size) if isinstance(size, list) else str(size)
        raise ValueError(f"expected a mask of {height} x {width}, got {got[:60]}")
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts):
            raise ValueError("expected run lengths that are whole numbers of at least 0, got something else")
        if sum(counts) != height * width:
            raise ValueError(f"expected run lengths that add up to {height * width}, got {sum(counts)}")
    elif not isinstance(counts, str) or not counts.isascii():
        raise ValueError("expected run lengths as a list or as ASCII text, got something else")


def _check_polygons(polygons: list[Any], height: int, width: int) -> None:
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            got = f"{len(polygon)} numbers" if isinstance(polygon, list) else "no list"
            raise ValueError(f"expected polygons as lists x, y, x, y, ... of at least three points, got {got}")
        if not all(is_number(value) for value in polygon):
            raise ValueError("expected polygons of finite numbers, got something else")
        if min(polygon) < -max(height, width) or max(polygon[::2]) > 2 * width or max(polygon[1::2]) > 2 * height:
            raise ValueError(f"expected polygons inside the image of {height} x {width}, got one far outside")
