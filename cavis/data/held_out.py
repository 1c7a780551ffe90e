"""Videos kept out of training, to measure with: which ones, and as a data set of their own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cavis import rle
from cavis.data.annotated import AnnotatedVideos, Frames
from cavis.data.coco import CocoDataset
from cavis.data.faults import Fault
from cavis.data.ytvis_json import YtvisDataset
from cavis.records import Clip, Rle
from cavis.video import VideoSource


@dataclass(frozen=True)
class Part:
    """Some of the videos of a data set."""

    dataset: AnnotatedVideos
    indices: tuple[int, ...]
    """Of the videos in the data set."""

    @property
    def names(self) -> tuple[str, ...]:
        """Category names by label."""
        return self.dataset.names

    @property
    def left_out(self) -> tuple[Fault, ...]:
        """What was left out of the data set as faulty."""
        return self.dataset.left_out

    def __len__(self) -> int:
        return len(self.indices)

    def length(self, index: int) -> int:
        """How many frames a video has."""
        return self.dataset.length(self.indices[index])

    def objects(self, index: int) -> int:
        """How many objects are annotated in a video, crowds not counted."""
        return self.dataset.objects(self.indices[index])

    def clip(self, index: int, frames: Sequence[int]) -> Clip:
        """Some frames with the objects seen in any of them."""
        return self.dataset.clip(self.indices[index], frames)

    def source(self, index: int) -> VideoSource:
        """All frames, one at a time."""
        return self.dataset.source(self.indices[index])


class Divided(NamedTuple):
    """The two parts of a data set."""

    training: Part
    held_out: Part


def divide(dataset: AnnotatedVideos, share: float, seed: int) -> Divided:
    """Hold out a share of the videos, rounded to whole ones and drawn from ``seed``; at least one is left to train on.

    A ValueError for a share that is not at least 0 and less than 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"expected a share of at least 0 and less than 1 to hold out, got {share:g}")
    number = len(dataset)
    order = np.random.default_rng([seed, number]).permutation(number).tolist()
    held_out = sorted(order[: min(round(share * number), number - 1)])
    training = sorted(set(range(number)).difference(held_out))
    return Divided(Part(dataset, tuple(training)), Part(dataset, tuple(held_out)))


def can_be_written(dataset: AnnotatedVideos) -> bool:
    """Whether :func:`as_ytvis` knows the form of a data set: videos and images with instances."""
    return isinstance(dataset, YtvisDataset | CocoDataset)


def as_ytvis(parts: Sequence[Part]) -> dict[str, Any]:
    """Parts of data sets with the same categories as the content of one annotation file in YouTube-VIS form.

    Images become videos of one frame. Ids are numbered anew; the names of frames are absolute, so that the file can lie
    anywhere.
    """
    names = parts[0].names
    videos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for part in parts:
        for index in part.indices:
            frames, folder, objects = _video(part.dataset, index)
            video_id = len(videos) + 1
            files = [str((folder / name).absolute()) for name in frames.file_names]
            video = {"id": video_id, "height": frames.height, "width": frames.width, "file_names": files}
            known = _known(part.dataset, index)
            videos.append(video if known is None else video | {"labelled_categories": [names[k] for k in known]})
            annotations += [
                {"id": number, "video_id": video_id} | one.as_json()
                for number, one in enumerate(objects, start=len(annotations) + 1)
            ]
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(names)]
    return {"videos": videos, "categories": categories, "annotations": annotations}


class _Object(NamedTuple):
    """One annotated object; one entry a frame."""

    label: int
    crowd: bool
    masks: Sequence[Rle | None]
    present: Sequence[bool]
    areas: Sequence[float]

    def as_json(self) -> dict[str, Any]:
        seen = zip(self.masks, self.present, strict=True)
        return {
            "category_id": self.label + 1,
            "iscrowd": int(self.crowd),
            "segmentations": [None if mask is None else rle.to_json(mask) for mask in self.masks],
            "bboxes": [list(rle.box(mask)) if mask and here else None for mask, here in seen],
            "areas": list(self.areas),
        }


def _video(dataset: AnnotatedVideos, index: int) -> tuple[Frames, Path, Iterator[_Object]]:
    """A video, the folder of its frames and its objects."""
    if isinstance(dataset, YtvisDataset):
        return dataset.videos[index], dataset.images or Path(), _tracks(dataset, index)
    if isinstance(dataset, CocoDataset):
        return dataset.pictures[index], dataset.images or Path(), _instances(dataset, index)
    raise ValueError(f"expected videos or images with instances to hold out, got {type(dataset).__name__}")


def _known(dataset: AnnotatedVideos, index: int) -> Sequence[int] | None:
    """The labels that were looked for in a video; None: all of them."""
    if isinstance(dataset, CocoDataset):
        return dataset.known[index]
    if isinstance(dataset, YtvisDataset) and (known := dataset.videos[index].known) is not None:
        return [dataset.labels[id_] for id_ in known]
    return None


def _tracks(dataset: YtvisDataset, index: int) -> Iterator[_Object]:
    for one in dataset.videos[index].annotations:
        label = dataset.labels[one.category_id]
        yield _Object(label, one.iscrowd, one.masks, one.present.tolist(), one.areas)


def _instances(dataset: CocoDataset, index: int) -> Iterator[_Object]:
    table, picture = dataset.table, dataset.pictures[index]
    for n in range(*table.first[index : index + 2].tolist()):
        mask = table.mask(n, picture.height, picture.width)
        area = 0.0 if mask is None else float(rle.area(mask))
        yield _Object(int(table.labels[n]), bool(table.crowd[n]), [mask], [True], [area])
