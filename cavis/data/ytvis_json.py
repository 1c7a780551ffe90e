"""Videos annotated in the format of YouTube-VIS: the data sets of that name, OVIS, the twins' world, your own.

The annotations are read once and kept run-length encoded; frames and masks are decoded only when asked for.
Layouts, recognised by what a folder contains (``<split>`` is train, valid or test):

==================================================== =======================================
annotations                                          frames
==================================================== =======================================
``annotations.json``, ``instances.json``             ``JPEGImages/``
``<split>.json``, ``<split>/instances.json``         ``<split>/JPEGImages/``
``annotations/annotations_<split>.json`` (OVIS)      ``<split>/``
==================================================== =======================================
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from cavis import rle
from cavis.data.run_lengths import check_runs
from cavis.records import Clip, Rle, Targets
from cavis.video import VideoError, VideoSource

SPLITS = ("train", "valid", "test")
_PLAIN = ("annotations.json", "instances.json")
_SPLIT = ("{0}.json", "{0}/instances.json", "annotations/annotations_{0}.json", "annotations_{0}.json")


@dataclass(frozen=True)
class Annotation:
    """One annotated object of one video."""

    id: int
    """Unique in the data set."""
    category_id: int
    """The data set's own id (see :attr:`YtvisDataset.labels` for the index a model uses)."""
    iscrowd: bool
    masks: tuple[Rle | None, ...] = field(repr=False)
    """One entry a frame; None where the object has no mask."""
    present: Bool[np.ndarray, "T"] = field(repr=False)
    """Frames in which the object counts as annotated: it has both a mask and a box."""
    areas: tuple[float, ...] = field(repr=False)
    """Annotated pixels in each frame, 0 where there is none."""

    @property
    def mean_area(self) -> float:
        """Mean area over the frames where it is not 0; 0 if it always is."""
        nonzero = [area for area in self.areas if area]
        return float(np.mean(nonzero)) if nonzero else 0.0


@dataclass(frozen=True)
class Video:
    """One video and what is annotated in it."""

    id: int
    name: str
    """The folder of its frames."""
    file_names: tuple[str, ...] = field(repr=False)
    """One a frame, relative to the folder of images."""
    height: int
    width: int
    annotations: tuple[Annotation, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.file_names)


class FrameFiles(VideoSource):
    """The frames of one annotated video, read from their image files one at a time; a source for a predictor."""

    def __init__(self, folder: Path, video: Video, fps: float = 10.0) -> None:
        self.video = video
        self.height = video.height
        self.width = video.width
        self.timestamps: Float[np.ndarray, "T"] = np.arange(len(video)) / fps
        self._folder = folder

    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        path = self._folder / self.video.file_names[index]
        where = f"frame {index} of video {self.video.id} ({path})"
        try:
            with Image.open(path) as image:
                frame = np.asarray(image.convert("RGB"))
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else "not a readable image"
            raise VideoError(f"{where}: {reason}") from error
        if frame.shape[:2] != (self.height, self.width):
            expected, got = f"{self.height} x {self.width}", f"{frame.shape[0]} x {frame.shape[1]}"
            raise VideoError(f"{where}: expected {expected} pixels, got {got}")
        return frame


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

    def source(self, video_index: int) -> FrameFiles:
        """All frames of a video, one at a time, for a predictor; a ValueError where there are no frames on disk."""
        if self.images is None:
            looked = ", ".join(str(folder) for folder in _image_folders(self.path))
            raise ValueError(
                f"no frames found for {self.path}: expected {self.videos[0].file_names[0]} in one of {looked}"
            )
        return FrameFiles(self.images, self.videos[video_index])

    def frames(self, video_index: int, frame_indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """Some frames of a video, RGB, in the order given; indices may repeat."""
        source = self.source(video_index)
        return np.stack([source[index] for index in frame_indices])

    def clip(self, video_index: int, frame_indices: Sequence[int]) -> Clip:
        """Some frames of a video with the objects that are present in any of them; crowds are left out.

        Only these frames and masks are decoded; indices may repeat and come in any order.
        """
        video = self.videos[video_index]
        wanted = list(frame_indices)
        kept = [one for one in video.annotations if not one.iscrowd and one.present[wanted].any()]
        masks = np.zeros((len(kept), len(wanted), video.height, video.width), dtype=bool)
        for n, annotation in enumerate(kept):
            for t, frame in enumerate(wanted):
                mask = annotation.masks[frame] if annotation.present[frame] else None
                if mask is not None:
                    masks[n, t] = rle.decode(mask)
        present = np.array([one.present[wanted] for one in kept], dtype=bool).reshape(masks.shape[:2])
        labels = self.labels
        targets = Targets(
            labels=torch.tensor([labels[one.category_id] for one in kept], dtype=torch.int64),
            ids=torch.tensor([one.id for one in kept], dtype=torch.int64),
            masks=torch.from_numpy(masks),
            present=torch.from_numpy(present),
        )
        frames = torch.from_numpy(self.frames(video_index, wanted)).permute(0, 3, 1, 2).contiguous()
        return Clip(frames, targets)


def open_ytvis(path: str | Path, split: str | None = None) -> YtvisDataset:
    """Open a folder (see the layouts above) or an annotation file.

    ``split`` says which one where the folder has several, and has no meaning where it has none. ValueErrors name the
    file, the video and the annotation that are not as they should be.
    """
    file = _locate(Path(path), split)
    content = _load(file)
    try:
        return _build(file, content)
    except KeyError as error:
        raise ValueError(f"{file}: an entry has no {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _build(file: Path, content: dict[str, Any]) -> YtvisDataset:
    listed = content.get("annotations")
    by_video: dict[int, list[dict[str, Any]]] = {}
    for entry in listed or ():
        by_video.setdefault(entry["video_id"], []).append(entry)
    videos = tuple(_read_video(entry, by_video.pop(entry["id"], [])) for entry in content["videos"])
    if by_video:
        strays = [entry["id"] for entries in by_video.values() for entry in entries]
        raise ValueError(f"annotation {strays[0]} belongs to video {next(iter(by_video))}, which is not listed")
    categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    categories = dict(sorted(categories.items()))
    _check_ids(videos, categories)
    first = videos[0].file_names[0]
    images = next((folder for folder in _image_folders(file) if (folder / first).is_file()), None)
    return YtvisDataset(file, images, categories, videos, annotated=listed is not None)


def _check_ids(videos: tuple[Video, ...], categories: dict[int, str]) -> None:
    if not videos:
        raise ValueError("expected at least one video, got none")
    if len({video.id for video in videos}) < len(videos):
        raise ValueError("expected every video to have its own id, got one twice")
    seen: set[int] = set()
    for video in videos:
        for annotation in video.annotations:
            where = f"video {video.id}, annotation {annotation.id}"
            if annotation.id in seen:
                raise ValueError(f"{where}: the same id was given to another annotation")
            if annotation.category_id not in categories:
                raise ValueError(f"{where}: category {annotation.category_id} is not listed")
            seen.add(annotation.id)


def _read_video(entry: dict[str, Any], annotations: list[dict[str, Any]]) -> Video:
    files = tuple(str(name) for name in entry["file_names"])
    if not files:
        raise ValueError(f"video {entry['id']}: expected at least one frame, got none")
    height, width = int(entry["height"]), int(entry["width"])
    read = []
    for annotation in annotations:
        try:
            read.append(_read_annotation(annotation, len(files), height, width))
        except ValueError as error:
            raise ValueError(f"video {entry['id']}, annotation {annotation['id']}: {error}") from error
    name = Path(files[0]).parent.name or str(entry["id"])
    return Video(int(entry["id"]), name, files, height, width, tuple(read))


def _read_annotation(entry: dict[str, Any], frames: int, height: int, width: int) -> Annotation:
    segmentations = entry["segmentations"]
    boxes = entry.get("bboxes") or segmentations
    for name, values in (("segmentations", segmentations), ("boxes", boxes)):
        if len(values) != frames:
            raise ValueError(f"expected {name} for {frames} frames, got {len(values)}")
    masks = tuple(_read_mask(value, t, height, width) for t, value in enumerate(segmentations))
    check_runs(masks)
    areas = entry.get("areas") or [0 if mask is None else rle.area(mask) for mask in masks]
    return Annotation(
        id=int(entry["id"]),
        category_id=int(entry["category_id"]),
        iscrowd=bool(entry.get("iscrowd", 0)),
        masks=masks,
        present=np.array([mask is not None and bool(box) for mask, box in zip(masks, boxes, strict=True)], dtype=bool),
        areas=tuple(float(area or 0) for area in areas),
    )


def _read_mask(segmentation: Any, frame: int, height: int, width: int) -> Rle | None:
    if not segmentation:
        return None
    if isinstance(segmentation, Rle):
        if (segmentation.height, segmentation.width) == (height, width):
            return segmentation
        got = f"{segmentation.height} x {segmentation.width}"
        raise ValueError(f"frame {frame}: expected a mask of {height} x {width}, got {got}")
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    if isinstance(counts, list) and sum(counts) != height * width:
        raise ValueError(f"frame {frame}: expected run lengths that add up to {height * width}, got {sum(counts)}")
    try:
        return rle.from_json(segmentation, height, width)
    except Exception as error:  # pycocotools raises bare exceptions
        raise ValueError(f"frame {frame}: {error}") from error


def _compress(entry: dict[str, Any]) -> Any:
    """Turn run lengths into a compressed mask as soon as they are parsed, so that the long lists never pile up.

    What does not look right stays as it is: it is refused later, where the video and the annotation are known.
    """
    if entry.keys() != {"counts", "size"}:
        return entry
    counts, size = entry["counts"], entry["size"]
    if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
        return entry
    return rle.from_json(entry, *size)


def _load(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = json.load(stream, object_hook=_compress)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: expected a json file, got something else ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("videos"), list) or "categories" not in content:
        raise ValueError(f'{file}: expected the lists "videos", "annotations" and "categories" of YouTube-VIS')
    return content


def _locate(path: Path, split: str | None) -> Path:
    """The annotation file of a folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"expected a folder of annotated videos, got {path}, which does not exist")
    if path.name in SPLITS and (path.parent / f"{path.name}.json").is_file():
        return path.parent / f"{path.name}.json"
    wanted = SPLITS if split is None else (split,)
    found = {name: file for name in wanted for form in reversed(_SPLIT) if (file := path / form.format(name)).is_file()}
    plain = next((path / name for name in _PLAIN if (path / name).is_file()), None)
    if plain is not None and (split is None or not found):
        return plain
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ValueError(f"{path} has several splits ({', '.join(found)}): say which one to open")
    forms = ", ".join((*_PLAIN, *(form.format(split or "<split>") for form in _SPLIT)))
    raise ValueError(f"expected annotations in {path} as one of {forms}, found none of them")


def _image_folders(file: Path) -> list[Path]:
    """Where the frames of an annotation file may lie, most likely first."""
    split = file.stem.removeprefix("annotations_")
    folders = [file.parent / "JPEGImages", file.parent / split / "JPEGImages", file.parent / split]
    if file.parent.name == "annotations":
        folders += [file.parent.parent / split / "JPEGImages", file.parent.parent / split]
    return [*folders, file.parent]
