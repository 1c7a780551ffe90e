"""A job's result as files: for the visitor (video, json, table), and for the shelf (the shipped examples)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cavis import rle
from cavis.checkpoints.files import write_atomically
from cavis.demo.jobs import Job
from cavis.demo.viewer import View
from cavis.inference.export import write_results, write_tracks
from cavis.records import Rle, Track, VideoResult
from cavis.video import VideoWriter
from cavis.visualization.overlay import render_video


class Files(NamedTuple):
    """What a visitor can take home beside the video."""

    results: Path
    """A YouTube-VIS results list, one entry a track."""
    tracks: Path
    """A table, one row for each track and frame."""


def draw_video(job: Job, view: View, watch: Callable[[int], None], crf: int = 20) -> Path:
    """Write the clip with the tracks drawn on it (H.264); ``watch`` is told the number of frames done."""
    result = view.of(job)
    with job.writing("video") as folder:
        path = folder / "tracked.mp4"
        with VideoWriter(path, result.height, result.width, timestamps=result.timestamps, crf=crf) as writer:
            for done, frame in enumerate(render_video(job.source(), result, view.style, view.selected), 1):
                writer.write(frame)
                watch(done)
    job.video = path
    return path


def write_files(job: Job, view: View) -> Files:
    """Write the tracks that are shown as json and as a table."""
    result = view.of(job)
    with job.writing("files") as folder:
        files = Files(folder / "results.json", folder / "tracks.csv")
        write_results(files.results, result, top_k=None)
        write_tracks(files.tracks, result)
    return files


def save_result(path: Path, result: VideoResult) -> None:
    """Keep a result as json: all but the embeddings; scores to six digits."""
    content = {
        "format": "cavis video result 1",
        "height": result.height,
        "width": result.width,
        "timestamps": [round(float(time), 6) for time in result.timestamps],
        "categories": result.categories,
        "model": result.model,
        "notes": result.notes,
        "tracks": [
            {
                "id": track.id,
                "class_scores": [round(float(score), 6) for score in track.class_scores],
                "masks": [mask and mask.counts.decode("ascii") for mask in track.masks],
            }
            for track in result.tracks
        ],
    }
    text = json.dumps(content, separators=(",", ":"))
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def load_result(path: Path) -> VideoResult:
    """Read what :func:`save_result` wrote; the embeddings have zero columns."""
    content = json.loads(path.read_text(encoding="utf-8"))
    height, width = content["height"], content["width"]
    return VideoResult(
        tracks=tuple(_track(entry, height, width) for entry in content["tracks"]),
        height=height,
        width=width,
        timestamps=np.array(content["timestamps"]),
        categories=tuple(content["categories"]),
        model=content["model"],
        notes=tuple(content["notes"]),
    )


def _track(entry: dict, height: int, width: int) -> Track:
    masks = tuple(None if counts is None else Rle(height, width, counts.encode("ascii")) for counts in entry["masks"])
    boxes = np.array([rle.box(mask) if mask else (0.0, 0.0, 0.0, 0.0) for mask in masks])
    nothing = np.zeros((len(masks), 0), dtype=np.float32)
    return Track(entry["id"], np.array(entry["class_scores"]), masks, boxes, nothing, nothing)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
