"""VIPSeg: videos with panoptic maps, things and stuff, whose segment ids stay the same through a video.

::

    VIPSeg_720P/
        images/<video>/<frame>.jpg
        panomasksRGB/<video>/<frame>.png
        panoptic_gt_VIPSeg_<train|val|test>.json
"""

from pathlib import Path
from typing import Any

from cavis.data import fields
from cavis.data.annotated import find_folder
from cavis.data.faults import DataError, Faults
from cavis.data.json_stream import entries_after
from cavis.data.layouts import locate
from cavis.data.panoptic_maps import Categories, MappedDataset, MappedVideo, collect_segments, map_faults, settle

_IMAGES = ("images", "JPEGImages", "imgs")
_MAPS = ("panomasksRGB", "panoptic_maps", "gt", "panomasks")


def open_vipseg(path: str | Path, split: str | None = None, *, skip_faulty: bool = False) -> MappedDataset:
    """Open a folder or an annotation file of VIPSeg; labels are things first, then stuff, each by id.

    Faults and ``skip_faulty``: as in ``open_ytvis``.
    """
    faults = Faults(locate(path, split, "vipseg").file)
    return settle(read_vipseg(faults), faults, "video", skip_faulty=skip_faulty)


def read_vipseg(faults: Faults) -> MappedDataset:
    """Read the annotation file that ``faults`` belong to, as far as it is sound; faults are noted, not raised."""
    reader = _Reader(faults)
    opened: set[str] = set()
    for key, index, value in entries_after(faults.file, ("videos", "categories"), "annotations"):
        opened.add(key)
        if index is None or index < 0:
            continue
        if key == "categories":
            reader.categories.take(value)
        else:
            reader.take(key, value)
    if missing := {"videos", "categories", "annotations"} - opened:
        names = " and ".join(f'"{name}"' for name in sorted(missing))
        raise DataError(
            f'{faults.file}: expected the lists "videos", "annotations" and "categories" of VIPSeg, got no {names}'
        )
    return reader.finish()


class _Reader:
    """Collects what is sound, and notes what is not."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.categories = Categories(faults)
        self.listed: dict[int | str, dict[int | str, tuple[str, int, int]]] = {}
        self.refused: set[int | str] = set()
        self.videos: dict[int | str, MappedVideo] = {}

    def take(self, key: str, value: Any) -> None:
        """One video, or all annotations of one."""
        number = fields.name_of(value, "video_id", "id")
        try:
            entry = fields.record(value)
            if number is None:
                raise ValueError("an entry has no 'video_id'")
            (self.video if key == "videos" else self.annotation)(number, entry)
        except ValueError as error:
            self.faults.add(str(error), "" if number is None else f"video {number}")
            if key == "videos" and number is not None and number not in self.listed:
                self.refused.add(number)

    def video(self, number: int | str, entry: dict[str, Any]) -> None:
        if number in self.listed:
            raise ValueError("expected every video to have its own id, got one twice")
        images: dict[int | str, tuple[str, int, int]] = {}
        for image in fields.listed(entry, "images"):
            name = fields.name_of(fields.record(image), "id")
            if name is None or name in images:
                raise ValueError(f"expected every image to have its own id, got {name}")
            images[name] = (fields.text(image, "file_name"), *fields.size(image))
        if not images:
            raise ValueError("expected at least one frame, got none")
        if len({(height, width) for _, height, width in images.values()}) > 1:
            raise ValueError("expected images of one size in a video, got several")
        self.listed[number] = images

    def annotation(self, number: int | str, entry: dict[str, Any]) -> None:
        if number in self.refused:
            return
        if number not in self.listed:
            raise ValueError("annotations belong to a video that is not listed")
        if number in self.videos:
            raise ValueError("expected the annotations of a video in one entry, got a second one")
        images = self.listed[number]
        files, maps, infos = [], [], []
        for one in fields.listed(entry, "annotations"):
            name = fields.name_of(fields.record(one), "image_id")
            if name is None or name not in images:
                raise ValueError(f"image {name} is annotated, but not listed")
            files.append(str(Path(str(number), f"{Path(images[name][0]).stem}.jpg")))
            maps.append(str(Path(str(number), fields.text(one, "file_name"))))
            infos.append(fields.listed(one, "segments_info"))
        if not files:
            raise ValueError("expected at least one annotated frame, got none")
        labels = {category: label for label, category in enumerate(self.categories.ids)}
        segments = collect_segments(infos, labels)
        _, height, width = next(iter(images.values()))
        self.videos[number] = MappedVideo(number, str(number), tuple(files), height, width, tuple(maps), segments)

    def finish(self) -> MappedDataset:
        for number in self.listed:
            if number not in self.videos and not any(f.item == f"video {number}" for f in self.faults.found):
                self.faults.add("expected annotations, got none", f"video {number}")
        if not self.listed and not self.faults.harmful:
            self.faults.add("expected at least one video, got none")
        videos, root = tuple(self.videos.values()), self.faults.file.parent
        dataset = MappedDataset(
            path=self.faults.file,
            images=find_folder([root / name for name in _IMAGES], [video.file_names for video in videos]),
            maps=find_folder([root / name for name in _MAPS], [video.maps for video in videos]),
            names=self.categories.names,
            category_ids=self.categories.ids,
            things=self.categories.things,
            coding="rgb",
            videos=videos,
        )
        if self.faults.thorough and dataset.maps is not None:
            for index, video in enumerate(videos):
                for message in map_faults(dataset, index):
                    self.faults.add(message, f"video {video.id}", harmless=True)
        return dataset
