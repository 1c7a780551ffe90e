"""VSPW: videos in which every pixel has a class (VSS).

::

    VSPW_480p/
        data/<video>/origin/<frame>.jpg
        data/<video>/mask/<frame>.png
        train.txt, val.txt, test.txt        (names of videos, one a line)

Category ids are those of VIPSeg, 0 ... 123, as the authors' VSPW_baseline writes them into its results. A mask's values
are the ids + 1; 0 and 255 are void. All pixels of a class are one object, whose segment id is the mask's value.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from cavis.categories import VIPSEG_IDS, VIPSEG_THING_IDS, VSPW
from cavis.data.faults import DataError, Faults
from cavis.data.layouts import locate
from cavis.data.panoptic_maps import MappedDataset, MappedVideo, Segments, map_faults, settle
from cavis.video.sources import PICTURE_SUFFIXES

_BY_VALUE = sorted((number + 1, label) for label, number in enumerate(VIPSEG_IDS))
_CLASSES = Segments(
    ids=np.array([value for value, _ in _BY_VALUE], dtype=np.int64),
    labels=np.array([label for _, label in _BY_VALUE], dtype=np.int32),
    crowd=np.zeros(len(_BY_VALUE), dtype=bool),
)


def open_vspw(path: str | Path, split: str | None = None, *, skip_faulty: bool = False) -> MappedDataset:
    """Open VSPW's folder, or the text file of a split; the test split has no masks, and no clips then.

    Faults and ``skip_faulty``: as in ``open_ytvis``.
    """
    faults = Faults(locate(path, split, "vspw").file)
    return settle(read_vspw(faults), faults, "video", skip_faulty=skip_faulty)


def read_vspw(faults: Faults) -> MappedDataset:
    """Read the list of videos that ``faults`` belong to, as far as it is sound; faults are noted, not raised."""
    root = faults.file if faults.file.is_dir() else faults.file.parent / "data"
    videos = []
    for name in _listed(faults, root):
        try:
            videos.append(_video(root, name, faults))
        except ValueError as error:
            faults.add(str(error), f"video {name}")
    if not videos and not faults.harmful:
        faults.add("expected at least one video, got none")
    dataset = MappedDataset(
        path=faults.file,
        images=root,
        maps=root,
        names=VSPW,
        category_ids=VIPSEG_IDS,
        things=len(VIPSEG_THING_IDS),
        coding="labels",
        videos=tuple(videos),
    )
    if faults.thorough:
        for index, video in enumerate(videos):
            for message in map_faults(dataset, index):
                faults.add(message, f"video {video.id}", harmless=True)
    return dataset


def _listed(faults: Faults, root: Path) -> Iterable[str]:
    if faults.file.is_dir():
        return sorted(video.name for video in root.iterdir() if (video / "origin").is_dir())
    try:
        names = [line.strip() for line in faults.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{faults.file}: expected a list of videos, one a line, got something else ({error})"
        ) from error
    for name in {name for name in names if names.count(name) > 1}:
        faults.add("expected every video once, got it twice", f"video {name}")
    return dict.fromkeys(names)


def _video(root: Path, name: str, faults: Faults) -> MappedVideo:
    folder = root / name
    frames = _pictures(folder / "origin")
    if not frames:
        raise ValueError(f"expected frames in {folder / 'origin'}, got none")
    masks = {file.stem: file for file in _pictures(folder / "mask")}
    without = [file.name for file in frames if file.stem not in masks]
    if masks and without:
        raise ValueError(f"expected a mask for every frame, got none for {without[0]} ({len(without)} in all)")
    try:
        with Image.open(frames[0]) as image:
            width, height = image.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"expected frames that can be read, got {frames[0]}, which is not a readable image") from error
    if faults.thorough and (extra := masks.keys() - {file.stem for file in frames}):
        faults.add(f"expected a frame for every mask, got none for {min(extra)}", f"video {name}", harmless=True)
    files = tuple(f"{name}/origin/{file.name}" for file in frames)
    maps = tuple(f"{name}/mask/{masks[file.stem].name}" for file in frames) if masks else ()
    return MappedVideo(name, name, files, height, width, maps, _CLASSES)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
