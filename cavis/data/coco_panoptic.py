"""COCO's panoptic form: images with one map each, in which every pixel belongs to a thing or to stuff.

::

    coco/
        annotations/panoptic_<split>2017.json
        annotations/panoptic_<split>2017/<image>.png      (or beside annotations/)
        <split>2017/<image>.jpg

An image is taken for a video of one frame: ``clip(index, [0, 0, 0])`` repeats it (a pseudo-clip).
"""

from pathlib import Path
from typing import Any

from cavis.data import fields
from cavis.data.annotated import Frames, find_folder
from cavis.data.coco import image_folders
from cavis.data.faults import DataError, Faults
from cavis.data.json_stream import entries_after
from cavis.data.layouts import locate
from cavis.data.panoptic_maps import Categories, MappedDataset, MappedVideo, collect_segments, map_faults, settle


def open_coco_panoptic(path: str | Path, split: str | None = None, *, skip_faulty: bool = False) -> MappedDataset:
    """Open a folder or an annotation file of panoptic images; labels are things first, then stuff, each by id.

    Images without annotations are left out. Faults and ``skip_faulty``: as in ``open_ytvis``.
    """
    faults = Faults(locate(path, split, "coco_panoptic").file)
    return settle(read_coco_panoptic(faults), faults, "image", skip_faulty=skip_faulty)


def read_coco_panoptic(faults: Faults) -> MappedDataset:
    """Read the annotation file that ``faults`` belong to, as far as it is sound; faults are noted, not raised."""
    reader = _Reader(faults)
    opened: set[str] = set()
    for key, index, value in entries_after(faults.file, ("images", "categories"), "annotations"):
        opened.add(key)
        if index is None or index < 0:
            continue
        if key == "categories":
            reader.categories.take(value)
        else:
            reader.take(key, value)
    if missing := {"images", "categories", "annotations"} - opened:
        names = " and ".join(f'"{name}"' for name in sorted(missing))
        raise DataError(
            f'{faults.file}: expected the lists "images", "annotations" and "categories" of COCO, got no {names}'
        )
    return reader.finish()


class _Reader:
    """Collects what is sound, and notes what is not."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.categories = Categories(faults)
        self.labels: dict[int, int] | None = None
        self.pictures: dict[int, Frames] = {}
        self.refused: set[int | str] = set()
        self.videos: dict[int, MappedVideo] = {}

    def take(self, key: str, value: Any) -> None:
        """One image, or the annotations of one."""
        number = fields.name_of(value, "id" if key == "images" else "image_id")
        try:
            (self.picture if key == "images" else self.annotation)(fields.record(value))
        except ValueError as error:
            self.faults.add(str(error), "" if number is None else f"image {number}")
            if key == "images" and number is not None and number not in self.pictures:
                self.refused.add(number)

    def picture(self, entry: dict[str, Any]) -> None:
        number = fields.whole(entry, "id")
        if number in self.pictures:
            raise ValueError("expected every image to have its own id, got one twice")
        file = fields.text(entry, "file_name")
        self.pictures[number] = Frames(number, Path(file).stem, (file,), *fields.size(entry))

    def annotation(self, entry: dict[str, Any]) -> None:
        number = fields.whole(entry, "image_id")
        if number in self.refused:
            return
        if number not in self.pictures:
            raise ValueError(f"annotations belong to image {number}, which is not listed")
        if number in self.videos:
            raise ValueError("expected the annotations of an image in one entry, got a second one")
        if self.labels is None:
            self.labels = {category: label for label, category in enumerate(self.categories.ids)}
        segments = collect_segments([fields.listed(entry, "segments_info")], self.labels)
        one, maps = self.pictures[number], (fields.text(entry, "file_name"),)
        self.videos[number] = MappedVideo(number, one.name, one.file_names, one.height, one.width, maps, segments)

    def finish(self) -> MappedDataset:
        if not self.videos and not self.faults.harmful:
            self.faults.add("expected at least one annotated image, got none")
        videos, file = tuple(self.videos.values()), self.faults.file
        folders = [
            base / name for base in (file.parent, file.parent.parent) for name in (file.stem, "panoptic", "maps")
        ]
        dataset = MappedDataset(
            path=file,
            images=find_folder(image_folders(file), [video.file_names for video in videos]),
            maps=find_folder(folders, [video.maps for video in videos]),
            names=self.categories.names,
            category_ids=self.categories.ids,
            things=self.categories.things,
            coding="rgb",
            videos=videos,
        )
        if self.faults.thorough and dataset.maps is not None:
            for index, video in enumerate(videos):
                for message in map_faults(dataset, index):
                    self.faults.add(message, f"image {video.id}", harmless=True)
        return dataset
