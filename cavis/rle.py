"""Run-length masks: the one form in which masks are kept, compared and exported (COCO's compressed RLE)."""

from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask

from cavis.records import Rle

coco_mask: Any = mask  # its type stubs know less than it does


def encode(pixels: Bool[np.ndarray, "H W"]) -> Rle:
    """Encode a binary mask."""
    packed = coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return Rle(pixels.shape[0], pixels.shape[1], packed["counts"])


def decode(rle: Rle) -> Bool[np.ndarray, "H W"]:
    """Decode to a binary mask."""
    return coco_mask.decode(as_coco(rle)).astype(bool)


def area(rle: Rle) -> int:
    """Number of pixels."""
    return int(coco_mask.area(as_coco(rle)))


def box(rle: Rle) -> tuple[float, float, float, float]:
    """The tight box: x, y, width, height in pixels."""
    x, y, width, height = coco_mask.toBbox(as_coco(rle))
    return float(x), float(y), float(width), float(height)


def as_coco(rle: Rle) -> dict[str, Any]:
    """The dictionary pycocotools works with (``counts`` as bytes)."""
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def to_json(rle: Rle) -> dict[str, Any]:
    """The dictionary of a COCO or YouTube-VIS json (``counts`` as text)."""
    return {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")}


def from_json(segmentation: Any, height: int, width: int) -> Rle:
    """Read a json segmentation: compressed RLE, run lengths as a list, or polygons.

    ``height`` and ``width`` are those of the image; a segmentation of another size is a ValueError.
    """
    if isinstance(segmentation, list):
        parts = coco_mask.frPyObjects(segmentation, height, width)
        packed = coco_mask.merge(parts)
    elif isinstance(segmentation, dict) and "counts" in segmentation and "size" in segmentation:
        if isinstance(segmentation["counts"], list):
            packed = coco_mask.frPyObjects(segmentation, height, width)
        else:
            packed = segmentation
    else:
        raise ValueError(f"expected a run-length mask or polygons, got {type(segmentation).__name__}")
    if list(packed["size"]) != [height, width]:
        raise ValueError(f"expected a mask of {height} x {width}, got {packed['size'][0]} x {packed['size'][1]}")
    counts = packed["counts"]
    return Rle(height, width, counts.encode("ascii") if isinstance(counts, str) else counts)
