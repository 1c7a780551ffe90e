"""Annotated pictures as annotated videos of one frame, so that what measures videos measures them too."""

import numpy as np

from cavis import rle
from cavis.data.coco import CocoDataset
from cavis.data.segmentations import PackedMasks
from cavis.data.ytvis_json import Annotation, Video, YtvisDataset


def as_videos(dataset: CocoDataset) -> YtvisDataset:
    """Every picture as a video of one frame, crowds included.

    Categories keep their ids; where the data set was given other categories, these count from 1.
    """
    ids = tuple(dataset.categories) if tuple(dataset.categories.values()) == dataset.names else ()
    ids = ids or tuple(range(1, len(dataset.names) + 1))
    videos = tuple(_video(dataset, index, ids) for index in range(len(dataset)))
    categories = dict(zip(ids, dataset.names, strict=True))
    return YtvisDataset(dataset.path, dataset.images, categories, videos, True, dataset.left_out)


def _video(dataset: CocoDataset, index: int, ids: tuple[int, ...]) -> Video:
    picture, table, known = dataset.pictures[index], dataset.table, dataset.known[index]
    assert isinstance(picture.id, int)
    annotations = []
    for n in range(*table.first[index : index + 2].tolist()):
        mask = table.mask(n, picture.height, picture.width)
        annotations.append(
            Annotation(
                id=int(table.ids[n]),
                category_id=ids[int(table.labels[n])],
                iscrowd=bool(table.crowd[n]),
                packed=PackedMasks([mask], picture.height, picture.width),
                present=np.array([mask is not None]),
                pixels=np.array([0.0 if mask is None else float(rle.area(mask))]),
            )
        )
    frames = (picture.id, picture.name, picture.file_names, picture.height, picture.width)
    return Video(*frames, tuple(annotations), None if known is None else tuple(ids[label] for label in known))
