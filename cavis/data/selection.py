"""A small training set out of a large one in COCO's form: some categories, some pictures, in a small size.

The official files are read entry by entry, so a large one needs little memory. What is written is ``train.json`` and
``val.json`` beside ``images/``, in COCO's form with the ids of the source; crowds and ``labelled_categories`` stay.
"""

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from cavis import rle
from cavis.categories import plain_name
from cavis.data import fields
from cavis.data.coco import image_folders
from cavis.data.faults import DataError
from cavis.data.json_stream import entries, entries_after
from cavis.data.layouts import locate
from cavis.data.run_lengths import check_runs
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
    what is missing or not as it should be; a FileExistsError if ``out`` is not empty. What fails or is interrupted
    leaves no folder. ``progress`` is told how many pictures are done, and of how many.
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
    scaled = _scaled(source, kept, selection.side)
    annotations = _annotations(source, scaled)
    (out / IMAGES).mkdir(parents=True)
    try:
        for done, number in enumerate(kept, start=1):
            _write_picture(source.images[number], scaled[number], folder, out / IMAGES)
            progress(done, len(kept))
        for name, numbers in splits.items():
            content = {
                "images": [scaled[number] for number in numbers],
                "categories": source.categories,
                "annotations": [one for number in numbers for one in annotations.get(number, [])],
            }
            (out / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    except BaseException:  # also Ctrl-C: half a data set looks like a whole one
        shutil.rmtree(out)
        raise
    return {name: len(numbers) for name, numbers in splits.items()}


def _look(file: Path) -> _Source:
    """Read the images, the categories, and what the images show."""
    source = _Source(file, {}, [], {})
    for key, index, value in entries(file):
        if index is None or index < 0 or key not in ("images", "categories", "annotations"):
            continue
        with _telling(file, key, value):
            entry = fields.record(value)
            if key == "images":
                fields.text(entry, "file_name")
                fields.size(entry)
                source.images[fields.whole(entry, "id")] = entry
            elif key == "categories":
                source.categories.append({**entry, "id": fields.whole(entry, "id"), "name": fields.text(entry, "name")})
            elif not entry.get("iscrowd", 0):
                shows = source.shown.setdefault(fields.whole(entry, "category_id"), set())
                shows.add(fields.whole(entry, "image_id"))
    if stray := set().union(*source.shown.values()).difference(source.images):
        raise DataError(f"{file}: expected annotations of listed images, got one of image {min(stray)}")
    return source


@contextmanager
def _telling(file: Path, key: str, value: Any) -> Iterator[None]:
    """What is wrong with an entry, with the file and its id."""
    try:
        yield
    except ValueError as error:
        number = fields.name_of(value, "id")
        where = f"{file}: {key}" if number is None else f"{file}: {key}, id {number}"
        raise DataError(f"{where}: {error}") from error


def _choose(source: _Source, selection: Selection) -> list[int]:
    """The images to take, in ascending order."""
    if not selection.categories:
        return sorted(source.images)
    ids = {plain_name(one["name"]): one["id"] for one in source.categories}
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
    if both := set(splits["train"]).intersection(splits["val"]):
        raise DataError(f"{file}: expected every image in one of train and val, got image {min(both)} in both")
    kept = set(chosen)
    return {name: sorted(kept.intersection(numbers)) for name, numbers in splits.items()}


def _folder(source: _Source, number: int) -> Path:
    """The folder of the pictures, told by one of them."""
    name, folders = str(source.images[number]["file_name"]), image_folders(source.file)
    for folder in folders:
        if (folder / name).is_file():
            return folder
    raise DataError(f"no images found for {source.file}: expected {name} in one of {', '.join(map(str, folders))}")


def _scaled(source: _Source, kept: Sequence[int], side: int) -> dict[int, dict[str, Any]]:
    """The entries of the images in their new size, all in one folder; one that is small enough stays as it is."""
    scaled: dict[int, dict[str, Any]] = {}
    by_name: dict[str, str] = {}
    for number in kept:
        image = source.images[number]
        name, scale = Path(image["file_name"]), side / max(image["height"], image["width"])
        target = name.name if scale >= 1 else f"{name.stem}.jpg"
        if (other := by_name.setdefault(target, str(name))) != str(name):
            raise DataError(
                f"{source.file}: expected pictures that differ in their names, for they go into one folder, "
                f"got {other} and {name}"
            )
        size = {key: max(1, round(image[key] * min(scale, 1))) for key in ("height", "width")}
        scaled[number] = {**image, "file_name": target, **size}
    return scaled


def _write_picture(image: Mapping[str, Any], scaled: Mapping[str, Any], folder: Path, out: Path) -> None:
    """Write a picture in its new size; a DataError if it is not there, or not of the size that was said."""
    path, target = folder / image["file_name"], out / scaled["file_name"]
    said, wanted = ((one["width"], one["height"]) for one in (image, scaled))
    try:
        with Image.open(path) as picture:
            if picture.size != said:
                raise DataError(
                    f"expected {path} to have {said[0]} x {said[1]} pixels, got {picture.width} x {picture.height}"
                )
            if wanted != said:
                small = picture.convert("RGB").resize(wanted, Resampling.LANCZOS)
                small.save(target, quality=_JPEG_QUALITY)
                return
    except OSError as error:
        raise DataError(f"expected a picture in {path}, got none that can be read ({error})") from error
    shutil.copyfile(path, target)


def _annotations(source: _Source, scaled: Mapping[int, dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The annotations of the chosen images, in their new sizes; an object too small to have a pixel is left out."""
    found: dict[int, list[dict[str, Any]]] = {}
    for key, index, value in entries_after(source.file, (), "annotations"):
        if key != "annotations" or index is None or index < 0:
            continue
        with _telling(source.file, key, value):
            number = fields.whole(value, "image_id")
            entry = _rescaled(value, source.images[number], scaled[number]) if number in scaled else None
        if entry is not None:
            found.setdefault(number, []).append(entry)
    return found


def _rescaled(value: dict[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """An annotation in the new size of its image; None where no pixel is left."""
    segmentation = fields.present(value, "segmentation")
    if (old["height"], old["width"]) != (new["height"], new["width"]):
        mask = read_mask(segmentation, old["height"], old["width"])
        if mask is None:
            return None
        check_runs([mask])
        pixels = Image.fromarray(rle.decode(mask)).resize((new["width"], new["height"]), Resampling.NEAREST)
        segmentation = rle.to_json(rle.encode(np.asarray(pixels)))
    mask = read_mask(segmentation, new["height"], new["width"])
    check_runs([mask])
    if mask is None or not (area := rle.area(mask)):
        return None
    return {**value, "segmentation": segmentation, "bbox": list(rle.box(mask)), "area": area}
