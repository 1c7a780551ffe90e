"""Results as files: a YouTube-VIS results list, a table of tracks."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cavis import rle
from cavis.checkpoints.files import write_atomically
from cavis.records import Track, VideoResult

TRACK_COLUMNS = (
    *("frame", "time", "track", "category", "score"),
    *("x", "y", "width", "height", "area"),
)


def results_list(
    result: VideoResult, video_id: int, top_k: int, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """One video's entries of a YouTube-VIS results list.

    ``category_ids`` gives the data set's id of each of the model's classes; by default they count from 1.
    """
    ids = category_ids or range(1, len(result.categories) + 1)
    segmentations = {track.id: [mask and rle.to_json(mask) for mask in track.masks] for track in result.tracks}
    return [
        {
            "video_id": video_id,
            "score": score,
            "category_id": int(ids[label]),
            "segmentations": segmentations[track.id],
        }
        for track, label, score in result.predictions(top_k)
    ]


def write_results(path: Path, result: VideoResult, top_k: int) -> None:
    """Write ``results.json``."""
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


def _row(result: VideoResult, track: Track, t: int) -> list[Any]:
    mask = track.masks[t]
    assert mask is not None
    box = [round(float(value), 1) for value in track.boxes[t]]
    time = round(float(result.timestamps[t]), 4)
    return [t, time, track.id, result.category(track), round(track.score, 4), *box, rle.area(mask)]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
