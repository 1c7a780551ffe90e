"""All that is known of one clip as files in a folder: lists and tables, and pictures of the panoptic and semantic task.

For results of whole data sets in the form of their servers see :mod:`cavis.inference.export`.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cavis.categories import VIPSEG, VIPSEG_IDS
from cavis.config import Task
from cavis.inference.export import (
    write_panoptic,
    write_panoptic_list,
    write_results,
    write_semantic,
    write_tracks,
)
from cavis.inference.panoptic import PanopticResult
from cavis.inference.predictor import Predictor, Watch
from cavis.inference.second_pass import RgbFrame
from cavis.inference.semantic import SemanticResult
from cavis.records import VideoResult
from cavis.video import VideoSource, VideoWriter
from cavis.visualization.overlay import render_video

FILES: dict[Task, tuple[str, ...]] = {
    "instance": ("results.json", "tracks.csv"),
    "panoptic": ("results.json", "tracks.csv", "panoptic.json", "panoptic"),
    "semantic": ("results.json", "tracks.csv", "semantic"),
}
"""What :func:`track_to_files` writes for each task; the last two names are folders."""


def track_to_files(predictor: Predictor, source: VideoSource, out: Path, watch: Watch | None = None) -> VideoResult:
    """Track a clip by the model's own task, and write what was found into the folder ``out``, which must be there.

    ``results.json`` is a YouTube-VIS results list (panoptic and semantic: each track once, under its best class),
    ``tracks.csv`` a table. Panoptic: ``panoptic/<frame>.png`` and ``panoptic.json`` in VIPSeg's form (the id of a
    pixel's segment is red + 256 green + 65536 blue, 0 is void). Semantic: ``semantic/<frame>.png``, grey, each pixel
    the id of its class. Frames count from 00000; class ids are the data set's for VIPSeg's classes, else those of
    ``results.json``, and in grey pictures the model's own from 0. What is there is replaced; pictures all at once.
    """
    match predictor.ready.inference.task:
        case "panoptic":
            divided = predictor.run_panoptic(source, watch=watch)
            _write_panoptic(out, divided)
            result = divided.as_video()
        case "semantic":
            named = predictor.run_semantic(source, watch=watch)
            _write_semantic(out, named)
            result = named.as_video()
        case _:
            result = predictor.run_instances(source, watch=watch)
    in_pairs = predictor.ready.inference.task == "instance"
    write_results(out / "results.json", result, predictor.top_k if in_pairs else None)
    write_tracks(out / "tracks.csv", result)
    return result


def write_film(path: Path, source: Iterable[RgbFrame], result: VideoResult) -> None:
    """Write the frames of a clip with its tracks drawn on them (H.264)."""
    with VideoWriter(path, result.height, result.width, timestamps=result.timestamps) as writer:
        for frame in render_video(source, result):
            writer.write(frame)


def require_free(out: Path, names: Sequence[str], overwrite: bool) -> list[str]:
    """Which of ``names`` are in the folder already: a FileExistsError if any are, unless ``overwrite``."""
    there = [name for name in names if (out / name).exists()]
    if there and not overwrite:
        raise FileExistsError(f"{out} already holds {', '.join(there)}; expected --overwrite to replace them")
    return there


@contextmanager
def output_folder(out: Path, names: Sequence[str], overwrite: bool) -> Iterator[None]:
    """The folder for some files and folders: nothing is replaced unasked, and nothing of a failed work stays.

    A FileExistsError if one of ``names`` is there already, unless ``overwrite``.
    """
    there = require_free(out, names, overwrite)
    created = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for name in set(names) - set(there):
            _remove(out / name)
        for folder in created:
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


def _write_panoptic(out: Path, result: PanopticResult) -> None:
    classes = result.categories
    ids = VIPSEG_IDS if classes == VIPSEG else range(1, len(classes) + 1)
    with _workshop(out) as folder:
        entry = write_panoptic(folder, result, "panoptic", _frame_names(len(result)), ids)
        _put(folder / "pan_pred" / "panoptic", out / "panoptic")
    write_panoptic_list(out / "panoptic.json", [entry])


def _write_semantic(out: Path, result: SemanticResult) -> None:
    ids = VIPSEG_IDS if result.categories == VIPSEG else None
    with _workshop(out) as folder:
        write_semantic(folder, result, "semantic", _frame_names(len(result)), ids)
        _put(folder / "semantic", out / "semantic")


def _frame_names(frames: int) -> list[str]:
    return [f"{t:05d}" for t in range(frames)]


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=out, prefix=".pictures-") as folder:
        yield Path(folder)


def _put(new: Path, place: Path) -> None:
    _remove(place)
    new.replace(place)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
