"""Annotated pictures set in motion and written to disk in YouTube-VIS form: validation clips where there are no videos.

The camera turns, drifts and zooms, and objects of another picture pass before it in half of the clips. Nothing moves by
itself, so that numbers on such clips say less than those on videos.
"""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cavis import rle
from cavis.config import Augmentation
from cavis.data.annotated import AnnotatedVideos
from cavis.data.augmentation import augment, draw_paste, draw_steps, paste
from cavis.data.mixing import repeat
from cavis.records import Clip

MOTION = Augmentation(rotation=10.0, drift=0.25, paste=0.5, paste_scale=(0.5, 1.2))
_JPEG_QUALITY = 92
_ANNOTATIONS = "annotations.json"
_IMAGES = "JPEGImages"


def animate(
    dataset: AnnotatedVideos,
    out: Path,
    frames: int,
    seed: int = 0,
    motion: Augmentation = MOTION,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Write a clip of ``frames`` frames for every picture: ``annotations.json`` and ``JPEGImages/<clip>/<frame>.jpg``.

    Clip i is a function of the seed and i. What nobody looked for in a picture is told by ``labelled_categories``. All
    is written beside ``out`` first and moved there when it is complete. A FileExistsError if ``out`` is not empty; a
    ValueError for fewer than one frame.
    """
    out = out.resolve()
    if frames < 1:
        raise ValueError(f"expected at least one frame, got {frames}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"expected a new or empty folder, but {out} is not")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as workshop:
        clips = (moving_clip(dataset, index, frames, seed, motion) for index in range(len(dataset)))
        _write(Path(workshop), clips, dataset, progress)
        _deliver(Path(workshop), out)


def _write(folder: Path, clips: Iterable[Clip], dataset: AnnotatedVideos, progress: Callable[[int, int], None]) -> None:
    videos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, clip in enumerate(clips):
        video: dict[str, Any] = {"id": index + 1}
        video["height"], video["width"] = clip.frames.shape[-2:]
        video["file_names"] = _write_frames(clip, folder / _IMAGES, f"{index:05d}")
        unknown = set(clip.targets.unknown.tolist())
        if unknown:
            video["labelled_categories"] = [name for k, name in enumerate(dataset.names) if k not in unknown]
        videos.append(video)
        for entry in _tracks(clip):
            annotations.append({"id": len(annotations) + 1, "video_id": index + 1, **entry})
        progress(index + 1, len(dataset))
    categories = [{"id": number, "name": name} for number, name in enumerate(dataset.names, start=1)]
    content = {"videos": videos, "categories": categories, "annotations": annotations}
    (folder / _ANNOTATIONS).write_text(json.dumps(content), encoding="utf-8")


def _deliver(done: Path, out: Path) -> None:
    """Move a finished data set to its place; ``annotations.json`` comes last."""
    out.mkdir(exist_ok=True)
    for name in (_IMAGES, _ANNOTATIONS):
        (done / name).rename(out / name)


def moving_clip(dataset: AnnotatedVideos, index: int, frames: int, seed: int, motion: Augmentation) -> Clip:
    """One picture of a data set in motion, perhaps with objects of another one before it."""
    rng = np.random.default_rng([seed, index])
    clip = _moved(dataset, index, frames, motion, rng)
    if rng.random() < motion.paste:
        other = _moved(dataset, int(rng.integers(len(dataset))), frames, motion, rng)
        clip = paste(clip, other, draw_paste(motion, other, rng))
    return clip


def _moved(dataset: AnnotatedVideos, index: int, frames: int, motion: Augmentation, rng: np.random.Generator) -> Clip:
    clip = repeat(dataset.clip(index, [0]), frames)
    size = (clip.frames.shape[-2], clip.frames.shape[-1])
    return augment(clip, draw_steps(motion, size, frames, rng, still=True))


def _write_frames(clip: Clip, folder: Path, name: str) -> list[str]:
    """Write the frames; their names."""
    (folder / name).mkdir(parents=True)
    names = []
    for t, frame in enumerate(clip.frames.permute(0, 2, 3, 1).numpy()):
        names.append(f"{name}/{t:05d}.jpg")
        Image.fromarray(frame).save(folder / names[-1], quality=_JPEG_QUALITY)
    return names


def _tracks(clip: Clip) -> list[dict[str, Any]]:
    """The annotated objects, with a mask, a box and an area where they are seen."""
    targets, tracks = clip.targets, []
    for label, masks in zip(targets.labels.tolist(), targets.masks, strict=True):
        packed = [rle.encode(mask.numpy()) if torch.any(mask) else None for mask in masks]
        tracks.append(
            {
                "category_id": label + 1,
                "iscrowd": 0,
                "bboxes": [None if mask is None else list(rle.box(mask)) for mask in packed],
                "areas": [None if mask is None else rle.area(mask) for mask in packed],
                "segmentations": [None if mask is None else rle.to_json(mask) for mask in packed],
            }
        )
    return tracks
