"""The files of one clip, without a network."""

import csv
import json
from types import SimpleNamespace

import numpy as np

from cavis import rle
from cavis.inference.clip_files import track_to_files, write_film
from cavis.inference.panoptic import PanopticResult, Segment
from cavis.inference.semantic import ClassRegion, SemanticResult
from cavis.records import Track, VideoResult
from cavis.video import open_video, trim

FRAMES, HEIGHT, WIDTH = 3, 16, 24
CATEGORIES = ("dog", "cat", "sky")


def masks(column):
    """A stripe of the picture, the same in all frames."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, column : column + 4] = True
    return (rle.encode(mask),) * FRAMES


def track(number, scores):
    zeros = np.zeros((FRAMES, 4), np.float32)
    return Track(number, np.array(scores, np.float32), masks(4 * number), zeros, zeros, zeros)


def source(start=0):
    whole = open_video(np.zeros((start + FRAMES, HEIGHT, WIDTH, 3), np.uint8), fps=1)
    return trim(whole, start=start)


def written(task, result, folder, top_k=2):
    """results.json after a predictor of ``task`` has found ``result``."""
    predictor = SimpleNamespace(top_k=top_k, ready=SimpleNamespace(inference=SimpleNamespace(task=task)))
    runs = {"instance": "run_instances", "panoptic": "run_panoptic", "semantic": "run_semantic"}
    setattr(predictor, runs[task], lambda source, watch: result)
    track_to_files(predictor, source(), folder)
    return [(e["category_id"], round(e["score"], 2)) for e in json.loads((folder / "results.json").read_text())]


def test_every_segment_of_a_panoptic_result_is_listed_once_under_its_best_class(tmp_path):
    # The two best pairs of segment and class are of the first segment.
    tracks = (track(1, (0.95, 0.9, 0)), track(2, (0.05, 0, 0.85)))
    segments = tuple(Segment(one, isthing=True, slot=n) for n, one in enumerate(tracks))
    result = PanopticResult(segments, HEIGHT, WIDTH, source().timestamps, CATEGORIES, "made up")
    assert written("panoptic", result, tmp_path) == [(1, 0.95), (3, 0.85)]


def test_a_panoptic_result_without_segments_is_an_empty_list(tmp_path):
    assert written("panoptic", PanopticResult((), HEIGHT, WIDTH, np.arange(3.0), CATEGORIES, "made up"), tmp_path) == []


def test_every_class_of_a_semantic_result_is_listed_once(tmp_path):
    regions = (ClassRegion(1, masks(4), 0.4), ClassRegion(2, masks(8), 0.9))
    result = SemanticResult(regions, HEIGHT, WIDTH, source().timestamps, CATEGORIES, "made up")
    assert written("semantic", result, tmp_path) == [(3, 0.9), (2, 0.4)]


def test_of_instances_the_best_pairs_of_track_and_class_are_listed(tmp_path):
    tracks = (track(1, (0.95, 0.9, 0)), track(2, (0, 0, 0.85)))
    result = VideoResult(tracks, HEIGHT, WIDTH, source().timestamps, CATEGORIES, "made up")
    assert written("instance", result, tmp_path) == [(1, 0.95), (2, 0.9)]


def test_a_part_keeps_the_times_of_the_whole_in_its_table_and_starts_its_film_at_zero(tmp_path):
    part = source(start=60)
    result = VideoResult((track(1, (0.9, 0, 0)),), HEIGHT, WIDTH, part.timestamps, CATEGORIES, "made up")
    written("instance", result, tmp_path)
    rows = list(csv.DictReader((tmp_path / "tracks.csv").open()))
    assert [(int(row["frame"]), float(row["time"])) for row in rows] == [(0, 60), (1, 61), (2, 62)]
    write_film(tmp_path / "tracked.mp4", part, result)
    with open_video(tmp_path / "tracked.mp4") as film:
        np.testing.assert_allclose(film.timestamps, [0, 1, 2], atol=1e-4)


def test_frames_a_millionth_of_a_second_apart_do_not_fail_the_film(tmp_path):
    times = np.array([0, 0.04, 0.040001])
    result = VideoResult((track(1, (0.9, 0, 0)),), HEIGHT, WIDTH, times, CATEGORIES, "made up")
    write_film(tmp_path / "tracked.mp4", source(), result)
    with open_video(tmp_path / "tracked.mp4") as film:
        np.testing.assert_allclose(film.timestamps, times, atol=2 / 90_000)
