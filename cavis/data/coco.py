"""Images annotated in the format of COCO: instances as run lengths or polygons, and the panoptic form.

An image is taken for a video of one frame: ``clip(index, [0, 0, 0])`` repeats it (a pseudo-clip). Layouts (``<split>``
is train, valid, val or test, with or without 2017 after it):

=================================================== =============================================================
annotations                                         images
=================================================== =============================================================
``annotations/instances_<split>2017.json``          ``<split>2017/``
``annotations/coco2ytvis2019_train.json`` and so on ``train2017/``
``annotations/panoptic_<split>2017.json``           ``<split>2017/``; maps: ``annotations/panoptic_<split>2017/``
``instances.json``, ``annotations.json``, ...       ``images/``, ``<split>/``, ``JPEGImages/``, or beside the json
=================================================== =============================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int

from cavis import rle
from cavis.categories import CategoryMap
from cavis.data import fields
from cavis.data.annotated import FrameFiles, Frames, find_folder, make_clip, picture_faults, stack_frames
from cavis.data.faults import DataError, Fault, Faults
from cavis.data.json_stream import entries_after
from cavis.data.layouts import locate, split_of
from cavis.data.run_lengths import check_runs
from cavis.data.segmentations import is_polygon, oddities, read_mask
from cavis.records import Clip, Rle


class Objects(NamedTuple):
    """All annotated objects of a data set in columns, sorted by image."""

    first: Int[np.ndarray, "I1"]
    """Where the objects of each image begin; one more entry for the end."""
    ids: Int[np.ndarray, "N"]
    labels: Int[np.ndarray, "N"]
    crowd: Bool[np.ndarray, "N"]
    ends: Int[np.ndarray, "N"]
    """Where the run lengths of each object end in ``counts``."""
    counts: bytes

    def mask(self, n: int, height: int, width: int) -> Rle | None:
        """The mask of object ``n``, run-length encoded; None where it has none."""
        counts = self.counts[int(self.ends[n - 1]) if n else 0 : int(self.ends[n])]
        return Rle(height, width, counts) if counts else None


@dataclass(frozen=True)
class CocoDataset:
    """A folder of images with instances."""

    path: Path
    """The annotation file."""
    images: Path | None
    """The folder that file names are relative to; None where no such folder was found."""
    categories: dict[int, str]
    """Category id of the file -> name, in ascending order of the ids."""
    names: tuple[str, ...]
    """Category names by label; those of the category map, where one was asked for."""
    pictures: tuple[Frames, ...] = field(repr=False)
    table: Objects = field(repr=False)
    known: tuple[tuple[int, ...] | None, ...] = field(repr=False)
    """For each image the labels that were looked for in it (its field ``labelled_categories``, a list of names, or
    "all"), a label of several categories only if the file has all of them and all were; None: all labels."""
    left_out: tuple[Fault, ...] = field(default=(), repr=False)
    """What was left out when it was opened with ``skip_faulty``."""

    def __len__(self) -> int:
        return len(self.pictures)

    def length(self, index: int) -> int:
        """One frame."""
        return len(self.pictures[index])

    def objects(self, index: int) -> int:
        """How many objects are annotated in an image, crowds not counted."""
        return int(np.count_nonzero(~self.table.crowd[self.table.first[index] : self.table.first[index + 1]]))

    def source(self, index: int) -> FrameFiles:
        """The image as a video of one frame; a DataError where the images are not on disk."""
        if self.images is None:
            looked = ", ".join(str(folder) for folder in image_folders(self.path))
            raise DataError(
                f"no images found for {self.path}: expected {self.pictures[0].file_names[0]} in one of {looked}"
            )
        return FrameFiles(self.images, self.pictures[index])

    def clip(self, index: int, frames: Sequence[int]) -> Clip:
        """The image as often as there are ``frames`` (all of them 0), with its objects; crowds are left out.

        Labels that nobody looked for in the image, and those of crowds, are ``unknown`` in the targets.
        """
        picture, wanted = self.pictures[index], list(frames)
        pixels = stack_frames(self.source(index), wanted)
        everything = range(*self.table.first[index : index + 2].tolist())
        rows = [n for n in everything if not self.table.crowd[n]]
        masks = np.zeros((len(rows), len(wanted), picture.height, picture.width), dtype=bool)
        for row, n in enumerate(rows):
            mask = self.table.mask(n, picture.height, picture.width)
            if mask is not None:
                masks[row] = rle.decode(mask)
        present = np.ones(masks.shape[:2], dtype=bool)
        clip = make_clip(pixels, self.table.labels[rows].tolist(), self.table.ids[rows].tolist(), masks, present)
        labels = set(range(len(self.names)))
        known = labels.intersection(labels if (listed := self.known[index]) is None else listed)
        known -= {int(self.table.labels[n]) for n in everything if self.table.crowd[n]}
        unknown = torch.tensor(sorted(labels - known), dtype=torch.int64)
        return replace(clip, targets=replace(clip.targets, unknown=unknown), still=True)


def open_coco(
    path: str | Path,
    split: str | None = None,
    *,
    categories: CategoryMap | None = None,
    keep_empty: bool = False,
    skip_faulty: bool = False,
) -> CocoDataset:
    """Open a folder (see the layouts above) or an annotation file of instances.

    ``categories`` (``cavis.categories.COCO_AS["ytvis19"]``, ...) gives the objects the labels of another data set, by
    the names of the categories; objects without a counterpart are left out. Images without objects, not counting
    crowds, are left out unless ``keep_empty``. Faults and ``skip_faulty``: as in ``open_ytvis``.
    """
    file = locate(path, split, "coco").file
    faults = Faults(file)
    dataset = read_coco(faults, categories)
    keep = np.ones(len(dataset), dtype=bool)
    if skip_faulty and dataset.images is not None:
        keep = ~np.isin(np.arange(len(dataset)), picture_indices_at_fault(dataset, faults))
    if not keep_empty:
        solid = np.concatenate([[0], np.cumsum(~dataset.table.crowd)])
        keep &= np.diff(solid[dataset.table.first]) > 0
    left_out = faults.settle(len(dataset), skip_faulty=skip_faulty)
    if not keep.any():
        raise DataError(f"{file}: expected images with objects of the categories asked for, got none")
    return replace(_choose(dataset, keep), left_out=left_out)


def read_coco(faults: Faults, categories: CategoryMap | None = None) -> CocoDataset:
    """Read the annotation file that ``faults`` belong to, as far as it is sound; faults are noted, not raised.

    A DataError only for a file that cannot be read at all, or has none of the ``categories`` asked for.
    """
    reader = _Reader(faults, categories)
    opened: set[str] = set()
    for key, index, value in entries_after(faults.file, ("images", "categories"), "annotations"):
        opened.add(key)
        if index is not None and index >= 0:
            reader.take(key, value)
    if missing := {"images", "categories"} - opened:
        names = " and ".join(f'"{name}"' for name in sorted(missing))
        raise DataError(
            f'{faults.file}: expected the lists "images", "annotations" and "categories" of COCO, got no {names}'
        )
    if not reader.pictures and not faults.harmful:
        faults.add("expected at least one image, got none")
    return reader.finish()


def picture_indices_at_fault(dataset: CocoDataset, faults: Faults) -> list[int]:
    """Note what is wrong with the images on disk; which ones are concerned."""
    if dataset.images is None:
        looked = ", ".join(str(folder) for folder in image_folders(dataset.path))
        faults.add(f"no images found: expected them in one of {looked}")
        return []
    bad = []
    for index, picture in enumerate(dataset.pictures):
        for message in picture_faults(dataset.images, picture.file_names, picture.height, picture.width):
            faults.add(message, f"image {picture.id}")
            bad.append(index)
    return bad


class _Reader:
    """Collects what is sound, and notes what is not."""

    def __init__(self, faults: Faults, categories: CategoryMap | None) -> None:
        self.faults = faults
        self.map = categories
        self.categories: dict[int, str] = {}
        self.pictures: dict[int, Frames] = {}
        self.labelled: dict[int, Any] = {}
        self.refused: set[int | str] = set()
        self.seen: set[int] = set()
        self.labels: dict[int, int] | None = None
        self.rows: list[tuple[int, int, int, bool, int]] = []
        self.counts = bytearray()

    def take(self, key: str, value: Any) -> None:
        """One element of one of the three lists."""
        item, annotation = "", None
        number = fields.name_of(value, "image_id" if key == "annotations" else "id")
        if key == "annotations":
            annotation = fields.name_of(value, "id")
        if number is not None:
            item = f"{'category' if key == 'categories' else 'image'} {number}"
        try:
            entry = fields.record(value)
            {"images": self.picture, "categories": self.category, "annotations": self.annotation}[key](entry)
        except ValueError as error:
            self.faults.add(str(error), item, annotation)
            if key == "images" and number is not None and number not in self.pictures:
                self.refused.add(number)

    def category(self, entry: dict[str, Any]) -> None:
        number = fields.whole(entry, "id")
        if number in self.categories:
            raise ValueError("expected every category to have its own id, got one twice")
        self.categories[number] = str(fields.present(entry, "name"))

    def picture(self, entry: dict[str, Any]) -> None:
        number = fields.whole(entry, "id")
        if number in self.pictures:
            raise ValueError("expected every image to have its own id, got one twice")
        file = fields.text(entry, "file_name")
        self.pictures[number] = Frames(number, Path(file).stem, (file,), *fields.size(entry))
        if entry.get("labelled_categories", "all") != "all":
            self.labelled[number] = tuple(str(name) for name in fields.listed(entry, "labelled_categories"))

    def annotation(self, entry: dict[str, Any]) -> None:
        number, image_id = fields.whole(entry, "id"), fields.whole(entry, "image_id")
        if image_id in self.refused:
            return
        if image_id not in self.pictures:
            raise ValueError(f"annotation {number} belongs to image {image_id}, which is not listed")
        if number in self.seen:
            raise ValueError("the same id was given to another annotation")
        if (category := fields.whole(entry, "category_id")) not in self.categories:
            raise ValueError(f"category {category} is not listed")
        mask = self.mask(entry, self.pictures[image_id])
        self.seen.add(number)
        self.labels = self.labels or self.label_of_category()
        if category in self.labels:
            crowd = bool(entry.get("iscrowd", 0))
            self.rows.append((image_id, number, self.labels[category], crowd, len(mask.counts)))
            self.counts += mask.counts

    def mask(self, entry: dict[str, Any], picture: Frames) -> Rle:
        segmentation = fields.present(entry, "segmentation")
        mask = read_mask(segmentation, picture.height, picture.width)
        if mask is None:
            raise ValueError("expected a segmentation, got null or an empty list")
        if not is_polygon(segmentation):
            check_runs([mask])
        if self.faults.thorough:
            for message in oddities(segmentation, mask, entry.get("bbox"), entry.get("area")):
                self.faults.add(message, f"image {picture.id}", fields.name_of(entry, "id"), harmless=True)
        return mask

    def label_of_category(self) -> dict[int, int]:
        """Category id -> label; with a map, only those that have a counterpart."""
        if self.map is None:
            return {number: label for label, number in enumerate(sorted(self.categories))}
        labels = self.map.labels(self.categories.values())
        if not labels:
            names = ", ".join(list(self.categories.values())[:5])
            raise DataError(f"{self.faults.file}: expected categories of COCO by their names, got {names}, ...")
        return {number: labels[name] for number, name in self.categories.items() if name in labels}

    def known(self) -> tuple[tuple[int, ...] | None, ...]:
        """For each image the labels all of whose objects are annotated in it; None where those of all labels are."""
        every = tuple(self.categories.values())
        complete = cache(self.complete)  # most images say the same
        known = []
        for number in self.pictures:
            try:
                listed = self.labelled.get(number)
                known.append(complete(every if listed is None else fields.looked_for(listed, every)))
            except ValueError as error:
                self.faults.add(str(error), f"image {number}")
                known.append(())
        return tuple(known)

    def complete(self, looked_for: tuple[str, ...]) -> tuple[int, ...] | None:
        """The labels all of whose objects are annotated where some categories were looked for; None: all labels."""
        if self.map is not None:
            labels, known = len(self.map.names), self.map.complete(looked_for, self.categories.values())
        else:
            names = dict(sorted(self.categories.items())).values()
            labels, known = len(names), {label for label, name in enumerate(names) if name in looked_for}
        return None if len(known) == labels else tuple(sorted(known))

    def finish(self) -> CocoDataset:
        categories = dict(sorted(self.categories.items()))
        if categories:
            self.label_of_category()
        pictures = tuple(self.pictures.values())
        place = {picture.id: index for index, picture in enumerate(pictures)}
        columns = np.array([(place[row[0]], *row[1:]) for row in self.rows], dtype=np.int64).reshape(-1, 5)
        known = self.known()
        names = tuple(categories.values()) if self.map is None else self.map.names
        folder = find_folder(image_folders(self.faults.file), [picture.file_names for picture in pictures])
        objects = _sorted(columns, bytes(self.counts), len(pictures))
        return CocoDataset(self.faults.file, folder, categories, names, pictures, objects, known)


def _sorted(columns: Int[np.ndarray, "N 5"], counts: bytes, images: int) -> Objects:
    """Sort objects by image; ``columns`` are image, id, label, crowd and length of the run lengths."""
    order = np.argsort(columns[:, 0], kind="stable")
    lengths = columns[:, 4]
    if (np.diff(order) != 1).any():
        ends = np.cumsum(lengths)
        counts = b"".join(counts[ends[n] - lengths[n] : ends[n]] for n in order.tolist())
        columns = columns[order]
    first = np.searchsorted(columns[:, 0], np.arange(images + 1))
    return Objects(
        first=first,
        ids=columns[:, 1],
        labels=columns[:, 2].astype(np.int32),
        crowd=columns[:, 3].astype(bool),
        ends=np.cumsum(columns[:, 4]),
        counts=counts,
    )


def _choose(dataset: CocoDataset, keep: Bool[np.ndarray, "I"]) -> CocoDataset:
    """The same with some of the images."""
    if keep.all():
        return dataset
    objects = dataset.table
    image = np.repeat(np.arange(len(dataset)), np.diff(objects.first))
    kept = np.flatnonzero(keep[image])
    starts = np.concatenate([[0], objects.ends[:-1]]) if len(objects.ends) else objects.ends
    counts = b"".join(objects.counts[starts[n] : objects.ends[n]] for n in kept.tolist())
    first = np.concatenate([[0], np.cumsum(np.diff(objects.first)[keep])])
    ends = np.cumsum((objects.ends - starts)[kept])
    chosen = Objects(first, objects.ids[kept], objects.labels[kept], objects.crowd[kept], ends, counts)
    indices = np.flatnonzero(keep).tolist()
    pictures, known = (tuple(values[i] for i in indices) for values in (dataset.pictures, dataset.known))
    return replace(dataset, pictures=pictures, table=chosen, known=known)


def image_folders(file: Path) -> list[Path]:
    """Where the images of an annotation file may lie, most likely first."""
    split = split_of(file) or next((word for word in ("train", "val", "test") if word in file.stem), "")
    bases = [file.parent.parent, file.parent] if file.parent.name == "annotations" else [file.parent]
    names = [f"{split}2017", split, f"images/{split}", f"images/{split}2017"] if split else []
    names += ["images", "JPEGImages"]
    return [*(base / name for base in bases for name in names), *bases]
