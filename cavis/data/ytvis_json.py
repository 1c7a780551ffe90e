"""Videos annotated in the format of YouTube-VIS: the data sets of that name, OVIS, the twins' world, your own.

The annotations are read once, entry by entry, and kept run-length encoded; frames and masks are decoded only when asked
for. Layouts, recognised by what a folder contains (``<split>`` is train, valid, val or test):

==================================================== =======================================
annotations                                          frames
==================================================== =======================================
``annotations.json``, ``instances.json``             ``JPEGImages/``
``<split>.json``, ``<split>/instances.json``         ``<split>/JPEGImages/``
``annotations/annotations_<split>.json`` (OVIS)      ``<split>/``
==================================================== =======================================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from cavis import rle
from cavis.data import fields
from cavis.data.annotated import FrameFiles, Frames, find_folder, make_clip, picture_faults, stack_frames
from cavis.data.faults import DataError, Fault, Faults
from cavis.data.json_stream import entries_after
from cavis.data.layouts import locate, split_of
from cavis.data.run_lengths import check_runs
from cavis.data.segmentations import PackedMasks, is_polygon, oddities, read_mask
from cavis.records import Clip, Rle


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated object of one video."""

    id: int
    """Unique in the data set."""
    category_id: int
    """The data set's own id (see :attr:`YtvisDataset.labels` for the index a model uses)."""
    iscrowd: bool
    packed: PackedMasks = field(repr=False)
    """One entry a frame; None where the object has no mask."""
    present: Bool[np.ndarray, "T"] = field(repr=False)
    """Frames in which the object counts as annotated: it has both a mask and a box."""
    pixels: Float[np.ndarray, "T"] = field(repr=False)
    """Annotated pixels in each frame, 0 where there is none."""

    @property
    def masks(self) -> tuple[Rle | None, ...]:
        """All masks at once."""
        return self.packed[:]

    @property
    def areas(self) -> tuple[float, ...]:
        """The annotated pixels as plain numbers."""
        return tuple(self.pixels.tolist())

    @property
    def mean_area(self) -> float:
        """Mean area over the frames where it is not 0; 0 if it always is."""
        nonzero = self.pixels[self.pixels != 0]
        return float(np.mean(nonzero)) if len(nonzero) else 0.0


@dataclass(frozen=True)
class Video(Frames):
    """One video and what is annotated in it."""

    id: int
    annotations: tuple[Annotation, ...] = field(repr=False)
    known: tuple[int, ...] | None = field(default=None, repr=False)
    """The ids of the categories that were looked for in it (its field ``labelled_categories``, a list of names, or
    "all"); None: all of them."""

    def counts(self, category_id: int) -> bool:
        """Whether objects of a category are annotated wherever they are seen."""
        return self.known is None or category_id in self.known


@dataclass(frozen=True)
class YtvisDataset:
    """A folder of annotated videos."""

    path: Path
    """The annotation file."""
    images: Path | None
    """The folder that file names are relative to; None where no such folder lies beside the annotations."""
    categories: dict[int, str]
    """Category id -> name, in ascending order of the ids."""
    videos: tuple[Video, ...] = field(repr=False)
    annotated: bool
    """False for a file without annotations (test splits, whose ground truth is kept by a server)."""
    left_out: tuple[Fault, ...] = field(default=(), repr=False)
    """What was left out when it was opened with ``skip_faulty``."""

    @property
    def names(self) -> tuple[str, ...]:
        """Category names by label: the label of a category is the index of its id among the sorted ids."""
        return tuple(self.categories.values())

    @property
    def labels(self) -> dict[int, int]:
        """Category id -> label, 0 ... K-1."""
        return {category_id: label for label, category_id in enumerate(self.categories)}

    def __len__(self) -> int:
        return len(self.videos)

    def length(self, index: int) -> int:
        """How many frames a video has."""
        return len(self.videos[index])

    def objects(self, index: int) -> int:
        """How many objects are annotated in a video, crowds not counted."""
        return sum(not one.iscrowd for one in self.videos[index].annotations)

    def source(self, index: int) -> FrameFiles:
        """All frames of a video, one at a time, for a predictor; a ValueError where there are no frames on disk."""
        if self.images is None:
            looked = ", ".join(str(folder) for folder in _image_folders(self.path))
            raise DataError(
                f"no frames found for {self.path}: expected {self.videos[0].file_names[0]} in one of {looked}"
            )
        return FrameFiles(self.images, self.videos[index])

    def frames(self, index: int, frames: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """Some frames of a video, RGB, in the order given; indices may repeat."""
        return stack_frames(self.source(index), frames)

    def clip(self, index: int, frames: Sequence[int]) -> Clip:
        """Some frames of a video with the objects that are present in any of them; crowds are left out.

        Only these frames and masks are decoded; indices may repeat and come in any order. Labels that nobody looked for
        in the video, and those of crowds in these frames, are ``unknown`` in the targets.
        """
        video = self.videos[index]
        wanted = list(frames)
        kept = [one for one in video.annotations if not one.iscrowd and one.present[wanted].any()]
        masks = np.zeros((len(kept), len(wanted), video.height, video.width), dtype=bool)
        for n, annotation in enumerate(kept):
            for t, frame in enumerate(wanted):
                mask = annotation.packed[frame] if annotation.present[frame] else None
                if mask is not None:
                    masks[n, t] = rle.decode(mask)
        present = np.array([one.present[wanted] for one in kept], dtype=bool).reshape(masks.shape[:2])
        labels = [self.labels[one.category_id] for one in kept]
        clip = make_clip(self.frames(index, wanted), labels, [one.id for one in kept], masks, present)
        crowds = {one.category_id for one in video.annotations if one.iscrowd and one.present[wanted].any()}
        unknown = [label for id_, label in self.labels.items() if id_ in crowds or not video.counts(id_)]
        targets = replace(clip.targets, unknown=torch.tensor(unknown, dtype=torch.int64))
        return replace(clip, targets=targets, still=len(video) == 1)


def open_ytvis(path: str | Path, split: str | None = None, *, skip_faulty: bool = False) -> YtvisDataset:
    """Open a folder (see the layouts above) or an annotation file.

    ``split`` says which one where the folder has several, and has no meaning where it has none. DataErrors (a
    ValueError) name the file, the video and the annotation that are not as they should be, and how many more there
    are. With ``skip_faulty`` faulty annotations, and videos with faulty or missing frames, are left out instead
    (:attr:`YtvisDataset.left_out`); the header of every frame is looked at then.
    """
    file = locate(path, split, "ytvis").file
    faults = Faults(file)
    dataset = read_ytvis(faults)
    if skip_faulty and dataset.images is not None:
        dataset = _without_faulty_frames(dataset, faults)
    left_out = faults.settle(len(dataset), skip_faulty=skip_faulty)
    return replace(dataset, left_out=left_out)


def read_ytvis(faults: Faults) -> YtvisDataset:
    """Read the annotation file that ``faults`` belong to, as far as it is sound; faults are noted, not raised.

    A DataError only for a file that cannot be read at all.
    """
    reader = _Reader(faults)
    for key, index, value in entries_after(faults.file, ("videos", "categories"), "annotations"):
        reader.opened.add(key)
        if index is not None and index >= 0:
            reader.take(key, value)
    if missing := {"videos", "categories"} - reader.opened:
        names = " and ".join(f'"{name}"' for name in sorted(missing))
        raise DataError(
            f'{faults.file}: expected the lists "videos", "annotations" and "categories" of YouTube-VIS, got no {names}'
        )
    if not reader.videos and not faults.harmful:
        faults.add("expected at least one video, got none")
    return reader.finish()


class _Reader:
    """Collects what is sound, and notes what is not."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.opened: set[str] = set()
        self.videos: dict[int, Frames] = {}
        self.labelled: dict[int, tuple[str, ...]] = {}
        self.categories: dict[int, str] = {}
        self.annotations: dict[int, list[Annotation]] = {}
        self.refused: set[int | str] = set()
        self.seen: set[int] = set()

    def take(self, key: str, value: Any) -> None:
        """One element of one of the three lists."""
        readers: dict[str, Callable[[dict[str, Any]], None]] = {
            "videos": self.video,
            "categories": self.category,
            "annotations": self.annotation,
        }
        item, annotation = "", None
        if key == "annotations":
            annotation, number = fields.name_of(value, "id"), fields.name_of(value, "video_id")
        else:
            number = fields.name_of(value, "id")
        if number is not None:
            item = f"{'category' if key == 'categories' else 'video'} {number}"
        try:
            readers[key](fields.record(value))
        except ValueError as error:
            self.faults.add(str(error), item, annotation)
            if key == "videos" and number is not None and number not in self.videos:
                self.refused.add(number)

    def category(self, entry: dict[str, Any]) -> None:
        number = fields.whole(entry, "id")
        if number in self.categories:
            raise ValueError("expected every category to have its own id, got one twice")
        self.categories[number] = str(fields.present(entry, "name"))

    def video(self, entry: dict[str, Any]) -> None:
        number = fields.whole(entry, "id")
        if number in self.videos:
            raise ValueError("expected every video to have its own id, got one twice")
        files = tuple(fields.listed(entry, "file_names"))
        if not files:
            raise ValueError("expected at least one frame, got none")
        if not all(isinstance(name, str) and name for name in files):
            raise ValueError("expected file_names as a list of texts, got something else")
        name = Path(files[0]).parent.name or str(number)
        self.videos[number] = Frames(number, name, files, *fields.size(entry))
        if entry.get("labelled_categories", "all") != "all":
            self.labelled[number] = tuple(str(name) for name in fields.listed(entry, "labelled_categories"))
        declared = entry.get("length")
        if self.faults.thorough and declared not in (None, len(files)):
            message = f"expected a length of {len(files)}, as there are file_names, got {declared}"
            self.faults.add(message, f"video {number}", harmless=True)

    def annotation(self, entry: dict[str, Any]) -> None:
        number, video_id = fields.whole(entry, "id"), fields.whole(entry, "video_id")
        if video_id in self.refused:
            return
        if video_id not in self.videos:
            raise ValueError(f"annotation {number} belongs to video {video_id}, which is not listed")
        if number in self.seen:
            raise ValueError("the same id was given to another annotation")
        if (category := fields.whole(entry, "category_id")) not in self.categories:
            raise ValueError(f"category {category} is not listed")
        read = _read_annotation(entry, self.videos[video_id])
        self.seen.add(number)
        self.annotations.setdefault(video_id, []).append(read)
        if self.faults.thorough:
            for message in _odd_annotation(entry, read):
                self.faults.add(message, f"video {video_id}", number, harmless=True)

    def finish(self) -> YtvisDataset:
        videos = tuple(self._finished(number, one) for number, one in self.videos.items())
        folder = find_folder(_image_folders(self.faults.file), [video.file_names for video in videos])
        categories = dict(sorted(self.categories.items()))
        return YtvisDataset(self.faults.file, folder, categories, videos, annotated="annotations" in self.opened)

    def _finished(self, number: int, one: Frames) -> Video:
        annotations, listed = tuple(self.annotations.get(number, ())), self.labelled.get(number)
        known = None
        if listed is not None:
            try:
                meant = fields.looked_for(listed, self.categories.values())
            except ValueError as error:
                self.faults.add(str(error), f"video {number}")
                meant = ()
            known = tuple(id_ for id_, name in self.categories.items() if name in meant)
        return Video(number, one.name, one.file_names, one.height, one.width, annotations, known)


def _read_annotation(entry: dict[str, Any], video: Frames) -> Annotation:
    segmentations = fields.listed(entry, "segmentations")
    boxes = entry.get("bboxes") or segmentations
    areas = entry.get("areas") or [None] * len(video)
    for name, values in (("segmentations", segmentations), ("boxes", boxes), ("areas", areas)):
        if not isinstance(values, list) or len(values) != len(video):
            got = len(values) if isinstance(values, list) else "no list"
            raise ValueError(f"expected {name} for {len(video)} frames, got {got}")
    masks = [_read_mask(value, t, video) for t, value in enumerate(segmentations)]
    check_runs(masks)
    if entry.get("areas"):
        pixels = [area if fields.is_number(area) else 0 for area in areas]
    else:
        pixels = [0 if mask is None else rle.area(mask) for mask in masks]
    return Annotation(
        id=fields.whole(entry, "id"),
        category_id=fields.whole(entry, "category_id"),
        iscrowd=bool(entry.get("iscrowd", 0)),
        packed=PackedMasks(masks, video.height, video.width),
        present=np.array([mask is not None and bool(box) for mask, box in zip(masks, boxes, strict=True)], dtype=bool),
        pixels=np.array(pixels, dtype=np.float64),
    )


def _read_mask(segmentation: Any, frame: int, video: Frames) -> Rle | None:
    try:
        return read_mask(segmentation, video.height, video.width)
    except ValueError as error:
        raise ValueError(f"frame {frame}: {error}") from error


def _odd_annotation(entry: dict[str, Any], read: Annotation) -> list[str]:
    """What is probably a mistake in a readable annotation; each kind once, with its first frame."""
    segmentations = entry["segmentations"]
    if not any(segmentations):
        return ["expected a mask in at least one frame, got null in all of them"]
    odd: dict[str, str] = {}
    kinds = [is_polygon(one) for one in segmentations if one]
    if any(kinds) and not all(kinds):
        odd["mixed"] = "expected run lengths or polygons, got both"
    boxes, areas = (entry.get(name) or [None] * len(segmentations) for name in ("bboxes", "areas"))
    for t, values in enumerate(zip(segmentations, read.packed, boxes, areas, strict=True)):
        for message in oddities(*values):
            odd.setdefault(message.split(",")[0].rstrip("0123456789 "), f"frame {t}: {message}")
        if bool(values[0]) != bool(values[2]) and entry.get("bboxes"):
            odd.setdefault("half", f"frame {t}: expected both a mask and a box or neither, got one of them")
    return list(odd.values())


def _without_faulty_frames(dataset: YtvisDataset, faults: Faults) -> YtvisDataset:
    """The same without the videos whose frames are missing, unreadable or of another size."""
    bad = set(frame_faults(dataset, faults))
    videos = tuple(video for video in dataset.videos if video.id not in bad)
    return replace(dataset, videos=videos)


def frame_faults(dataset: YtvisDataset, faults: Faults) -> list[int]:
    """Note what is wrong with the frames on disk; the ids of the videos concerned."""
    if dataset.images is None:
        looked = ", ".join(str(folder) for folder in _image_folders(dataset.path))
        faults.add(f"no frames found: expected them in one of {looked}")
        return [video.id for video in dataset.videos]
    bad = []
    for video in dataset.videos:
        for message in picture_faults(dataset.images, video.file_names, video.height, video.width):
            faults.add(message, f"video {video.id}")
            bad.append(video.id)
    return bad


def _image_folders(file: Path) -> list[Path]:
    """Where the frames of an annotation file may lie, most likely first."""
    split = split_of(file) or file.stem.removeprefix("annotations_")
    splits = ["valid", "val"] if split in ("valid", "val") else [split]
    splits.sort(key=lambda name: name != split)
    folders = [file.parent / "JPEGImages"]
    for base in (file.parent, file.parent.parent) if file.parent.name == "annotations" else (file.parent,):
        folders += [base / name / "JPEGImages" for name in splits]
        folders += [base / name for name in splits]
    return [*folders, file.parent]
