"""A small training set out of a large one in COCO's form: some categories, some pictures, in a small size.

The official files are read entry by entry, so a large one needs little memory. What is written is ``train.json`` and
``val.json`` beside ``images/``, in COCO's form with the ids of the source; crowds and ``labelled_categories`` stay.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from cavis import rle
from cavis.categories import plain_name
from cavis.data.coco import image_folders
from cavis.data.faults import DataError
from cavis.data.fields import record
from cavis.data.json_stream import entries, entries_after
from cavis.data.layouts import locate
from cavis.data.segmentations import read_mask

IMAGES = "images"
SPLITS = ("train", "val")
_JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which pictures are taken, and how they are divided."""

    categories: tuple[str, ...] = ()
    """Pictures with an object of one of these; none: all pictures."""
    most: int | None = None
    """So many pictures of each category, chosen at random; None: all there are."""
    held_out: float = 0.1
    """The share of pictures in ``val.json``; 0: there is none."""
    side: int = 384
    """The longest side of a picture afterwards, in pixels; smaller ones stay as they are."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"expected held_out of at least 0 and below 1, got {self.held_out}")
        if self.side < 32 or (self.most is not None and self.most < 1):
            raise ValueError(f"expected a side of at least 32 and at least 1 picture, got {self.side} and {self.most}")


class _Source(NamedTuple):
    """What is known of a large file before its annotations are taken."""

    file: Path
    images: dict[int, dict[str, Any]]
    categories: list[dict[str, Any]]
    shown: dict[int, set[int]]
    """Category id -> the images that show it, crowds not counted."""


def select(
    path: Path,
    out: Path,
    selection: Selection,
    split_file: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, int]:
    """Write a selection of the data set at ``path``; how many pictures each split has.

    ``split_file``: a json with the image ids of ``train`` and ``val``, instead of a division at random. DataErrors name
    what is missing; a FileExistsError if ``out`` is not empty. ``progress`` is told how many pictures are done, and of
    how many.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"expected a new or empty folder, but {out} is not")
    source = _look(locate(path, form="coco").file)
    chosen = _choose(source, selection)
    splits = _divide(chosen, selection) if split_file is None else _read_splits(split_file, chosen)
    kept = [number for numbers in splits.values() for number in numbers]
    if not kept:
        raise DataError(f"expected pictures of {', '.join(selection.categories) or 'anything'} in {path}, got none")
    folder = _folder(source, kept[0])
    (out / IMAGES).mkdir(parents=True)
    scaled: dict[int, dict[str, Any]] = {}
    for done, number in enumerate(kept, start=1):
        scaled[number] = _write_picture(source.images[number], folder, out / IMAGES, selection.side)
        progress(done, len(kept))
    annotations = _annotations(source, scaled)
    for name, numbers in splits.items():
        content = {
            "images": [scaled[number] for number in numbers],
            "categories": source.categories,
            "annotations": [one for number in numbers for one in annotations.get(number, [])],
        }
        (out / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return {name: len(numbers) for name, numbers in splits.items()}


def _look(file: Path) -> _Source:
    """Read the images, the categories, and what the images show."""
    source = _Source(file, {}, [], {})
    for key, index, value in entries(file):
        if index is None or index < 0:
            continue
        if key == "images":
            image = record(value)
            source.images[int(image["id"])] = image
        elif key == "categories":
            source.categories.append(record(value))
        elif key == "annotations" and not value.get("iscrowd", 0):
            source.shown.setdefault(int(value["category_id"]), set()).add(int(value["image_id"]))
    return source


def _choose(source: _Source, selection: Selection) -> list[int]:
    """The images to take, in ascending order."""
    if not selection.categories:
        return sorted(source.images)
    ids = {plain_name(str(one["name"])): int(one["id"]) for one in source.categories}
    if missing := [name for name in selection.categories if plain_name(name) not in ids]:
        raise DataError(f"{source.file}: expected the category {missing[0]}, got {', '.join(ids)}")
    rng = np.random.default_rng(selection.seed)
    chosen: set[int] = set()
    for name in selection.categories:
        there = np.array(sorted(source.shown.get(ids[plain_name(name)], ())), dtype=np.int64)
        most = len(there) if selection.most is None else min(selection.most, len(there))
        chosen.update(rng.choice(there, most, replace=False).tolist())
    return sorted(chosen)


def _divide(chosen: list[int], selection: Selection) -> dict[str, list[int]]:
    """Training and validation pictures, at random."""
    order = np.random.default_rng([selection.seed, 1]).permutation(chosen).tolist()
    if not selection.held_out:
        return {"train": sorted(order)}
    held_out = min(max(1, round(selection.held_out * len(order))), max(len(order) - 1, 0))
    return {"train": sorted(order[held_out:]), "val": sorted(order[:held_out])}


def _read_splits(file: Path, chosen: Collection[int]) -> dict[str, list[int]]:
    """The division a file asks for, of what was chosen."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        splits = {name: [int(number) for number in said[name]] for name in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{file}: expected lists "train" and "val" of image ids, got something else') from error
    kept = set(chosen)
    return {name: sorted(kept.intersection(numbers)) for name, numbers in splits.items()}


def _folder(source: _Source, number: int) -> Path:
    """The folder of the pictures, told by one of them."""
    name, folders = str(source.images[number]["file_name"]), image_folders(source.file)
    for folder in folders:
        if (folder / name).is_file():
            return folder
    raise DataError(f"no images found for {source.file}: expected {name} in one of {', '.join(map(str, folders))}")


def _write_picture(image: Mapping[str, Any], folder: Path, out: Path, side: int) -> dict[str, Any]:
    """Write a picture in its new size, and its entry; one that is small enough is copied as it is."""
    name = str(image["file_name"])
    scale = side / max(image["height"], image["width"])
    if scale >= 1:
        target = out / Path(name).name
        target.write_bytes((folder / name).read_bytes())
        return {**image, "file_name": target.name}
    height, width = (max(1, round(image[key] * scale)) for key in ("height", "width"))
    target = out / f"{Path(name).stem}.jpg"
    with Image.open(folder / name) as picture:
        small = picture.convert("RGB").resize((width, height), Resampling.LANCZOS)
    small.save(target, quality=_JPEG_QUALITY)
    return {**image, "file_name": target.name, "height": height, "width": width}


def _annotations(source: _Source, scaled: Mapping[int, dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The annotations of the chosen images, in their new sizes; an object too small to have a pixel is left out."""
    found: dict[int, list[dict[str, Any]]] = {}
    for key, index, value in entries_after(source.file, (), "annotations"):
        if key != "annotations" or index is None or index < 0 or int(value["image_id"]) not in scaled:
            continue
        number = int(value["image_id"])
        old, new = source.images[number], scaled[number]
        segmentation = value["segmentation"]
        if (old["height"], old["width"]) != (new["height"], new["width"]):
            mask = read_mask(segmentation, old["height"], old["width"])
            if mask is None:
                continue
            pixels = Image.fromarray(rle.decode(mask)).resize((new["width"], new["height"]), Resampling.NEAREST)
            segmentation = rle.to_json(rle.encode(np.asarray(pixels)))
        mask = read_mask(segmentation, new["height"], new["width"])
        if mask is not None and (area := rle.area(mask)):
            entry = {**value, "segmentation": segmentation, "bbox": list(rle.box(mask)), "area": area}
            found.setdefault(number, []).append(entry)
    return found
