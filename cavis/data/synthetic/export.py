"""Writing clips of the twins' world to disk in YouTube-VIS format."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cavis import rle
from cavis.data.synthetic.clip import TwinsClip
from cavis.data.synthetic.config import CATEGORIES, TwinsConfig

_JPEG_QUALITY = 92
_ANNOTATIONS = "annotations.json"
_IMAGES = "JPEGImages"


def clip_seed(seed: int, index: int) -> int:
    """The seed of clip ``index`` of the data set ``seed``: 63 bits hashed from both by numpy's ``SeedSequence``.

    Both are non-negative integers (else ValueError). Two different pairs give the same seed with a probability of
    about 10⁻¹⁹, so data sets of different seeds share no clip.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"expected a seed and an index of at least 0, got {seed} and {index}")
    # Words of fixed width: SeedSequence itself cannot tell [1, 2] from [1 + 2 * 2**32].
    words = [seed & 0xFFFFFFFF, seed >> 32, index & 0xFFFFFFFF, index >> 32]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def synthesize(
    out: Path,
    clips: int,
    seed: int,
    config: TwinsConfig = TwinsConfig(),  # noqa: B008 - frozen
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write ``clips`` annotated clips to ``out``: ``annotations.json`` and ``JPEGImages/<clip>/<frame>.jpg``.

    The annotations follow YouTube-VIS 2019: ids from 1, a box (x, y, width, height), an area and a compressed
    run-length mask with text counts for each frame, null where the object does not show; an object that never shows is
    left out. ``info`` holds the seed and the config, and clip ``i`` is ``TwinsClip(clip_seed(seed, i), config)``.
    ``progress`` is called after each clip with the number of clips done. All is written beside ``out`` first and moved
    there when it is complete. With ``overwrite`` an existing data set is replaced; other files in ``out`` stay.
    Raises ValueError for fewer than one clip or a negative seed, FileExistsError if ``out`` is a file, or a folder that
    is not empty and ``overwrite`` is false.
    """
    out = Path(out).resolve()
    if clips < 1:
        raise ValueError(f"expected at least 1 clip, got {clips}")
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, got {seed}")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"expected a folder to write to, but {out} is a file")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise FileExistsError(f"expected a new or empty folder, but {out} is not empty")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as workshop:
        # A folder inside of the temporary one: that one is readable by its owner only.
        done = Path(workshop) / "data"
        _write(done, (clips, seed), config, progress)
        _deliver(done, out)


def _deliver(done: Path, out: Path) -> None:
    """Move a finished data set to its place; ``annotations.json`` goes first and comes last."""
    if not out.exists():
        done.rename(out)
        return
    (out / _ANNOTATIONS).unlink(missing_ok=True)
    if (out / _IMAGES).exists():
        shutil.rmtree(out / _IMAGES)
    (done / _IMAGES).rename(out / _IMAGES)
    (done / _ANNOTATIONS).rename(out / _ANNOTATIONS)


def _write(
    folder: Path, clips_seed: tuple[int, int], config: TwinsConfig, progress: Callable[[int], None] | None
) -> None:
    clips, seed = clips_seed
    videos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(clips):
        clip = TwinsClip(clip_seed(seed, index), config)
        names, masks = _write_frames(folder / _IMAGES, f"{index:05d}", clip)
        video = {"id": index + 1, "file_names": names, "length": config.frames}
        videos.append(video | {"height": config.height, "width": config.width})
        for label, track in zip(clip.labels, masks, strict=True):
            if any(mask is not None for mask in track):
                place = {"id": len(annotations) + 1, "video_id": index + 1, "category_id": int(label) + 1}
                annotations.append(place | _annotation(track, config))
        if progress is not None:
            progress(index + 1)
    info = {"description": "The twins' world", "clips": clips, "seed": seed, "config": asdict(config)}
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
    content = {"info": info, "videos": videos, "categories": categories, "annotations": annotations}
    (folder / _ANNOTATIONS).write_text(json.dumps(content), encoding="utf-8")


def _write_frames(folder: Path, name: str, clip: TwinsClip) -> tuple[list[str], list[list[rle.Rle | None]]]:
    """Write the frames; returns their names and, for each object, its mask in each frame."""
    (folder / name).mkdir(parents=True)
    names: list[str] = []
    tracks: list[list[rle.Rle | None]] = [[] for _ in clip.labels]
    for t in range(len(clip)):
        image, masks = clip.render(t)
        names.append(f"{name}/{t:05d}.jpg")
        Image.fromarray(image).save(folder / names[-1], quality=_JPEG_QUALITY)
        for track, mask in zip(tracks, masks, strict=True):
            track.append(rle.encode(mask) if mask.any() else None)
    return names, tracks


def _annotation(track: list[rle.Rle | None], config: TwinsConfig) -> dict[str, Any]:
    return {
        "iscrowd": 0,
        "height": config.height,
        "width": config.width,
        "length": len(track),
        "bboxes": [None if mask is None else list(rle.box(mask)) for mask in track],
        "areas": [None if mask is None else rle.area(mask) for mask in track],
        "segmentations": [None if mask is None else rle.to_json(mask) for mask in track],
    }
