"""Videos annotated by pictures in which the value of a pixel names its segment: VIPSeg, COCO panoptic, VSPW.

Stuff is treated like things: every segment id is one object. What is in memory are file names and the categories of the
segments; frames and maps are read when asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from cavis.data import fields
from cavis.data.annotated import FrameFiles, Frames, make_clip, picture_faults, read_picture, stack_frames
from cavis.data.faults import DataError, Fault, Faults
from cavis.records import Clip

VOID = 0
"""The segment id of pixels that belong to nothing."""
Coding = Literal["rgb", "labels"]
"""How a map's picture says the segment: R + 256 G + 65536 B (COCO), or a value in which 0 and 255 are void (VSPW)."""


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of one video; an id is the same segment in all frames."""

    ids: Int[np.ndarray, "N"]
    """Ascending, none of them 0."""
    labels: Int[np.ndarray, "N"]
    """0 ... K-1, things first."""
    crowd: Bool[np.ndarray, "N"]


@dataclass(frozen=True)
class MappedVideo(Frames):
    """One video, or one image, with a map for each frame."""

    maps: tuple[str, ...] = field(repr=False)
    """One file a frame, relative to the folder of maps; none where nothing is annotated."""
    segments: Segments = field(repr=False)


@dataclass(frozen=True)
class MappedDataset:
    """Videos or images in which every pixel belongs to a segment, or to none."""

    path: Path
    """The annotation file."""
    images: Path | None
    """The folder that the names of frames are relative to; None where no such folder was found."""
    maps: Path | None
    """The folder that the names of maps are relative to; None where no such folder was found."""
    names: tuple[str, ...]
    """Category names by label: things first."""
    category_ids: tuple[int, ...]
    """The data set's own id of each label."""
    things: int
    """How many of the categories are things."""
    coding: Coding
    videos: tuple[MappedVideo, ...] = field(repr=False)
    left_out: tuple[Fault, ...] = field(default=(), repr=False)
    """What was left out when it was opened with ``skip_faulty``."""

    def __len__(self) -> int:
        return len(self.videos)

    def length(self, index: int) -> int:
        """How many frames a video has; 1 for an image."""
        return len(self.videos[index])

    def objects(self, index: int) -> int:
        """How many segments a video has, crowds not counted; of VSPW's videos this is only known to be all classes."""
        return int(np.count_nonzero(~self.videos[index].segments.crowd))

    def source(self, index: int) -> FrameFiles:
        """All frames of a video, one at a time, for a predictor; a DataError where there are none on disk."""
        if self.images is None:
            raise DataError(f"no frames found for {self.path}: expected {self.videos[0].file_names[0]} near it")
        return FrameFiles(self.images, self.videos[index])

    def id_map(self, index: int, frame: int) -> Int32[np.ndarray, "H W"]:
        """The segment id of each pixel of a frame; 0 where there is none."""
        video = self.videos[index]
        if self.maps is None or not video.maps:
            raise DataError(f"no panoptic maps found for video {video.id} of {self.path}")
        return read_map(self.maps / video.maps[frame], self.coding, video, frame)

    def clip(self, index: int, frames: Sequence[int]) -> Clip:
        """Some frames with the segments seen in any of them, crowds left out; indices may repeat, in any order."""
        wanted = list(frames)
        maps = {frame: self.id_map(index, frame) for frame in dict.fromkeys(wanted)}
        segments = self.videos[index].segments
        seen = np.unique(np.concatenate([np.unique(one) for one in maps.values()]))
        rows = np.flatnonzero(np.isin(segments.ids, seen) & ~segments.crowd)
        ids = segments.ids[rows]
        masks = np.stack([maps[frame] == ids[:, None, None] for frame in wanted], axis=1)
        present = np.asarray(masks.any(axis=(2, 3)))
        pixels = stack_frames(self.source(index), wanted)
        clip = make_clip(pixels, segments.labels[rows].tolist(), ids.tolist(), masks, present)
        return replace(clip, still=len(self.videos[index]) == 1)


def read_map(path: Path, coding: Coding, video: Frames, frame: int) -> Int32[np.ndarray, "H W"]:
    """Read the segment ids of a frame; a ValueError if the file is missing, broken or of another size."""
    if coding == "labels":
        values = read_labels(path, video, frame).astype(np.int32)
        values[values == 255] = VOID
        return values
    colours = np.asarray(read_picture(path, "RGB", video, frame)).astype(np.int32)
    return colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]


def read_labels(path: Path, video: Frames, frame: int) -> UInt8[np.ndarray, "H W"]:
    """Read a picture of labels as it is; errors as for :func:`read_map`."""
    values = np.asarray(read_picture(path, "", video, frame))
    values = values if values.ndim == 2 else values[..., 0]
    return values.astype(np.uint8)


class Categories:
    """The categories of a panoptic json: things first, then stuff, each by id."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.found: dict[int, tuple[str, bool]] = {}

    def take(self, value: Any) -> None:
        """One entry of the list."""
        try:
            entry = fields.record(value)
            number = fields.whole(entry, "id")
            if number in self.found:
                raise ValueError("expected every category to have its own id, got one twice")
            self.found[number] = (str(fields.present(entry, "name")), bool(entry.get("isthing", 1)))
        except ValueError as error:
            self.faults.add(str(error), f"category {fields.name_of(value, 'id')}")

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids in label order."""
        return tuple(sorted(self.found, key=lambda number: (not self.found[number][1], number)))

    @property
    def names(self) -> tuple[str, ...]:
        """The names in label order."""
        return tuple(self.found[number][0] for number in self.ids)

    @property
    def things(self) -> int:
        """How many are things."""
        return sum(thing for _, thing in self.found.values())


def collect_segments(frames: Sequence[Sequence[dict[str, Any]]], labels: dict[int, int]) -> Segments:
    """Put together what the frames of a video say of their segments (``segments_info``).

    ``labels``: category id -> label. A ValueError for an unknown category, a repeated id, or an id whose category
    changes from frame to frame.
    """
    found: dict[int, tuple[int, bool]] = {}
    for t, infos in enumerate(frames):
        here: set[int] = set()
        for info in infos:
            number, category = (fields.whole(fields.record(info), name) for name in ("id", "category_id"))
            if category not in labels:
                raise ValueError(f"frame {t}: segment {number}: category {category} is not listed")
            if number in here or not 0 < number < 1 << 24:
                raise ValueError(f"frame {t}: expected segment ids of 1 ... 16777215, each once, got {number}")
            here.add(number)
            label, crowd = found.get(number, (labels[category], False))
            if label != labels[category]:
                raise ValueError(f"frame {t}: segment {number}: expected one category in all frames, got two")
            found[number] = (label, crowd or bool(info.get("iscrowd", 0)))
    ids = sorted(found)
    return Segments(
        ids=np.array(ids, dtype=np.int64),
        labels=np.array([found[number][0] for number in ids], dtype=np.int32),
        crowd=np.array([found[number][1] for number in ids], dtype=bool),
    )


def file_faults(dataset: MappedDataset, faults: Faults, word: str) -> set[int]:
    """Note what is wrong with frames and maps on disk, from their headers; the indices of the videos concerned."""
    for folder, what in ((dataset.images, "frames"), (dataset.maps, "maps")):
        if folder is None and any(video.maps for video in dataset.videos):
            faults.add(f"no {what} found: expected a folder of them near the annotations")
    bad: set[int] = set()
    for index, video in enumerate(dataset.videos):
        for folder, files in ((dataset.images, video.file_names), (dataset.maps, video.maps)):
            for message in picture_faults(folder, files, video.height, video.width) if folder else ():
                faults.add(message, f"{word} {video.id}")
                bad.add(index)
    return bad


def map_faults(dataset: MappedDataset, index: int) -> Iterator[str]:
    """What the maps of a video show that its segments do not explain, and the other way round; each kind once."""
    video = dataset.videos[index]
    unknown: dict[int, int] = {}
    seen: set[int] = {VOID}
    for frame in range(len(video.maps)):
        try:
            here = np.unique(dataset.id_map(index, frame))
        except ValueError:
            continue  # the file itself is at fault: noted elsewhere
        seen.update(here.tolist())
        for number in here[~np.isin(here, video.segments.ids) & (here != VOID)].tolist():
            unknown.setdefault(number, frame)
    for number, frame in list(unknown.items())[:1]:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        yield f"frame {frame}: expected segments that are listed, got the id {number}{more} in the map"
    unseen = [number for number in video.segments.ids.tolist() if number not in seen]
    if unseen and dataset.coding == "rgb":
        more = f" (and {len(unseen) - 1} more)" if len(unseen) > 1 else ""
        yield f"expected every segment in a map, got none with the id {unseen[0]}{more}"


def settle(dataset: MappedDataset, faults: Faults, word: str, *, skip_faulty: bool) -> MappedDataset:
    """End the opening: refuse faults, or leave out what they concern."""
    if skip_faulty:
        bad = file_faults(dataset, faults, word)
        dataset = replace(dataset, videos=tuple(video for i, video in enumerate(dataset.videos) if i not in bad))
    return replace(dataset, left_out=faults.settle(len(dataset), skip_faulty=skip_faulty))
