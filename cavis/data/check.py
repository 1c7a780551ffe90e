"""Look a data set through and say everything that is wrong with it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cavis.data.coco import picture_indices_at_fault, read_coco
from cavis.data.coco_panoptic import read_coco_panoptic
from cavis.data.faults import DataError, Fault, Faults
from cavis.data.layouts import Format, locate
from cavis.data.panoptic_maps import file_faults
from cavis.data.vipseg import read_vipseg
from cavis.data.vspw import read_vspw
from cavis.data.ytvis_json import frame_faults, read_ytvis


class Counts(NamedTuple):
    """What a data set has, as far as it could be read."""

    videos: int
    """Videos, or images."""
    frames: int
    categories: int
    objects: int
    """Annotated objects or segments, crowds included."""
    crowds: int


@dataclass(frozen=True)
class Report:
    """What was found in a data set."""

    path: Path
    """The annotation file."""
    format: Format | None
    """None where it is no data set."""
    counts: Counts
    faults: tuple[Fault, ...] = field(repr=False)
    """In the order of the file; those on frames come last."""

    @property
    def sound(self) -> bool:
        """Whether every record can be used; there may be oddities that do no harm."""
        return all(fault.harmless for fault in self.faults)

    def __str__(self) -> str:
        c = self.counts
        what = "images" if self.format in ("coco", "coco_panoptic") else "videos"
        lines = [
            f"{self.path}: {self.format or 'no data set'}, {c.videos} {what}, {c.frames} frames, {c.categories} "
            f"categories, {c.objects} objects, {c.crowds} of them crowds",
            *(f"{'odd' if fault.harmless else 'fault'}: {fault}" for fault in self.faults),
        ]
        harmful = sum(not fault.harmless for fault in self.faults)
        return "\n".join([*lines, f"faults: {harmful}; oddities that do no harm: {len(self.faults) - harmful}"])


def check(path: str | Path, format: Format | None = None, split: str | None = None) -> Report:
    """Read all annotations and the headers of all frames (of panoptic data sets also all maps), and report every fault.

    ``format`` and ``split`` say which annotations are meant where a folder has several. Nothing is raised for what is
    wrong with the data: a path that is no data set is a report with one fault.
    """
    file = Path(path)
    try:
        file, found = locate(path, split, format)
        faults = Faults(file, thorough=True)
        counts = _CHECKS[found](faults)
    except DataError as error:
        fault = Fault(file, str(error).removeprefix(f"{file}: "))
        return Report(file, None, Counts(0, 0, 0, 0, 0), (fault,))
    return Report(file, found, counts, tuple(faults.found))


def _ytvis(faults: Faults) -> Counts:
    dataset = read_ytvis(faults)
    frame_faults(dataset, faults)
    objects = [one for video in dataset.videos for one in video.annotations]
    frames = sum(len(video) for video in dataset.videos)
    return Counts(len(dataset), frames, len(dataset.categories), len(objects), sum(one.iscrowd for one in objects))


def _coco(faults: Faults) -> Counts:
    dataset = read_coco(faults)
    picture_indices_at_fault(dataset, faults)
    objects = dataset.table
    counts = (len(dataset.categories), len(objects.ids), int(np.count_nonzero(objects.crowd)))
    return Counts(len(dataset), len(dataset), *counts)


def _maps(faults: Faults, form: Format) -> Counts:
    readers = {"vipseg": read_vipseg, "vspw": read_vspw, "coco_panoptic": read_coco_panoptic}
    dataset = readers[form](faults)
    file_faults(dataset, faults, "image" if form == "coco_panoptic" else "video")
    videos = dataset.videos
    segments = () if form == "vspw" else tuple(video.segments for video in videos)
    return Counts(
        videos=len(videos),
        frames=sum(len(video) for video in videos),
        categories=len(dataset.names),
        objects=sum(len(one.ids) for one in segments),
        crowds=sum(int(np.count_nonzero(one.crowd)) for one in segments),
    )


_CHECKS = {
    "ytvis": _ytvis,
    "coco": _coco,
    "vipseg": lambda faults: _maps(faults, "vipseg"),
    "vspw": lambda faults: _maps(faults, "vspw"),
    "coco_panoptic": lambda faults: _maps(faults, "coco_panoptic"),
}
