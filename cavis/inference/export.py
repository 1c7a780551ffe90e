"""Results as files: a YouTube-VIS results list, a table of tracks, panoptic and semantic PNGs."""

import csv
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cavis import rle
from cavis.checkpoints.files import write_atomically
from cavis.inference.panoptic import PanopticResult
from cavis.inference.semantic import SemanticResult
from cavis.records import Track, VideoResult
from cavis.visualization.palette import colour

TRACK_COLUMNS = (
    *("frame", "time", "track", "category", "score"),
    *("x", "y", "width", "height", "area"),
)


def results_list(
    result: VideoResult, video_id: int, top_k: int | None, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """One video's entries of a YouTube-VIS results list.

    They are the ``top_k`` best (track, class) pairs, or with None each track once, under its best class.
    ``category_ids`` gives the data set's id of each of the model's classes; by default they count from 1.
    """
    ids = category_ids or range(1, len(result.categories) + 1)
    best_classes = ((track, track.label, track.score) for track in result.tracks)
    segmentations = {track.id: [mask and rle.to_json(mask) for mask in track.masks] for track in result.tracks}
    return [
        {
            "video_id": video_id,
            "score": score,
            "category_id": int(ids[label]),
            "segmentations": segmentations[track.id],
        }
        for track, label, score in (best_classes if top_k is None else result.predictions(top_k))
    ]


def write_results(path: Path, result: VideoResult, top_k: int | None) -> None:
    """Write ``results.json``; ``top_k`` as for :func:`results_list`."""
    text = json.dumps(results_list(result, video_id=1, top_k=top_k))
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def tracks_csv(result: VideoResult) -> str:
    """One row for each track in each frame it is visible in; boxes and areas in pixels, times in seconds."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(TRACK_COLUMNS)
    for track in result.tracks:
        for t in np.flatnonzero(track.visible):
            writer.writerow(_row(result, track, int(t)))
    return table.getvalue()


def write_tracks(path: Path, result: VideoResult) -> None:
    """Write ``tracks.csv``."""
    text = tracks_csv(result)
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_panoptic(
    folder: Path, result: PanopticResult, video: str, frames: Sequence[str], category_ids: Sequence[int]
) -> dict[str, Any]:
    """Write ``pan_pred/<video>/<frame>.png`` for every frame, in VIPSeg's form; the video's entry of ``pred.json``.

    Red + 256 green + 65536 blue of a pixel is the id of its segment in the entry; black is void. ``video`` and
    ``frames`` are the names of the data set, without an extension; ``category_ids`` gives its id of each of the model's
    classes. A ValueError for names that do not fit, a FileExistsError if the video's folder is there already.
    """
    if len(category_ids) != len(result.categories):
        raise ValueError(f"expected {len(result.categories)} category ids, got {len(category_ids)}")
    palette = _segment_colours(result)
    pictures = (Image.fromarray(palette[ids]) for ids in result.id_maps())
    _write_pictures(folder / "pan_pred", video, frames, len(result), pictures)
    ids = palette.astype(np.int64) @ (1, 256, 65536)
    annotations = [
        {
            "file_name": f"{name}.png",
            "segments_info": [
                _segment_info(segment.track, t, int(ids[segment.track.id]), int(category_ids[segment.track.label]))
                for segment in result.segments
                if segment.track.masks[t] is not None
            ],
        }
        for t, name in enumerate(frames)
    ]
    return {"video_id": video, "annotations": annotations}


def write_panoptic_list(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write ``pred.json`` of the entries :func:`write_panoptic` returned."""
    text = json.dumps({"annotations": list(entries)})
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_semantic(
    folder: Path, result: SemanticResult, video: str, frames: Sequence[str], category_ids: Sequence[int] | None = None
) -> None:
    """Write ``<video>/<frame>.png`` for every frame: grey, each pixel the id of its class (0 ... 255).

    ``category_ids`` gives the data set's id of each of the model's classes; by default they count from 0. Names and
    errors as for :func:`write_panoptic`.
    """
    ids = np.array(range(len(result.categories)) if category_ids is None else category_ids)
    if len(ids) != len(result.categories) or ids.min() < 0 or ids.max() > 255:
        raise ValueError(f"expected {len(result.categories)} category ids of 0 ... 255, got {ids.tolist()}")
    table = ids.astype(np.uint8)
    _write_pictures(folder, video, frames, len(result), (Image.fromarray(table[map_]) for map_ in result.class_maps()))


def discard_pictures(parent: Path, video: str) -> None:
    """Delete what was written of a video, and what a program that was killed meanwhile left half written."""
    shutil.rmtree(parent / video, ignore_errors=True)
    unfinished = re.compile(re.escape(f".{video}.") + "[a-z0-9_]{8}")  # as mkdtemp names it
    for folder in [path for path in parent.glob(".*") if unfinished.fullmatch(path.name)]:
        shutil.rmtree(folder, ignore_errors=True)


def _segment_info(track: Track, t: int, number: int, category_id: int) -> dict[str, Any]:
    mask = track.masks[t]
    assert mask is not None
    box = [int(value) for value in track.boxes[t]]
    return {"id": number, "category_id": category_id, "iscrowd": 0, "area": rle.area(mask), "bbox": box}


def _segment_colours(result: PanopticResult) -> UInt8[np.ndarray, "S 3"]:
    """One colour for each id of the result, no two alike; black for void."""
    colours = [(0, 0, 0)]
    for segment in result.segments:
        red, green, blue = colour(segment.track.id)
        while (red, green, blue) in colours:  # the palette begins anew after some ids
            blue = (blue + 1) % 256
        colours.append((red, green, blue))
    return np.array(colours, dtype=np.uint8)


def _write_pictures(
    parent: Path, video: str, frames: Sequence[str], expected: int, pictures: Iterator[Image.Image]
) -> None:
    """Write one PNG a frame into a new folder, which is there when all of them are."""
    if len(frames) != expected or len(set(frames)) != expected:
        raise ValueError(f"expected {expected} different frame names, got {len(set(frames))}")
    strange = [name for name in (video, *frames) if not name or name.startswith(".") or Path(name).name != name]
    if strange:
        raise ValueError(f"expected names of files without a folder, got {strange[0]!r}")
    target = parent / video
    if target.exists():
        raise FileExistsError(f"expected a new folder, but {target} is there already")
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{video}."))
    try:
        for name, picture in zip(frames, pictures, strict=True):
            picture.save(temporary / f"{name}.png")
        temporary.chmod(0o755)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _row(result: VideoResult, track: Track, t: int) -> list[Any]:
    mask = track.masks[t]
    assert mask is not None
    box = [round(float(value), 1) for value in track.boxes[t]]
    time = round(float(result.timestamps[t]), 4)
    return [t, time, track.id, result.category(track), round(track.score, 4), *box, rle.area(mask)]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
