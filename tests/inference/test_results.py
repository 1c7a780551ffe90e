"""What can be asked of a result needs no network."""

import csv
import io
import json

import numpy as np
import pytest

from cavis import rle
from cavis.inference.export import TRACK_COLUMNS, results_list, tracks_csv, write_results, write_tracks
from cavis.records import Track, VideoResult


def track(number, scores, visible=(True, False, True)):
    mask = np.zeros((20, 30), dtype=bool)
    mask[4 : 8 + number, 5:9] = True
    masks = tuple(rle.encode(mask) if shown else None for shown in visible)
    boxes = np.array([rle.box(m) if m else (0.0, 0.0, 0.0, 0.0) for m in masks])
    features = np.zeros((3, 2), np.float32)
    return Track(number, np.array(scores, np.float32), masks, boxes, features, features)


@pytest.fixture
def result():
    tracks = (track(7, (0.1, 0.8)), track(2, (0.5, 0.45)), track(4, (0.3, 0.2), (False, False, True)))
    return VideoResult(tracks, 20, 30, np.array([0.0, 0.5, 1.25]), ("cat", "dog"), "nano")


@pytest.mark.parametrize(
    ("min_score", "top_k", "kept"),
    [(0.0, None, [7, 2, 4]), (0.4, None, [7, 2]), (0.5, None, [7, 2]), (0.9, None, []), (0.0, 1, [7]), (0.0, 0, [])],
)
def test_filters_keep_the_best_tracks(result, min_score, top_k, kept):
    filtered = result.filter(min_score, top_k)
    assert [track.id for track in filtered.tracks] == kept
    assert [track.id for track in result.tracks] == [7, 2, 4]
    assert len(filtered) == len(result) == 3


def test_predictions_come_in_order_and_one_track_may_come_twice(result):
    found = [(track.id, label, round(score, 3)) for track, label, score in result.predictions(4)]
    assert found == [(7, 1, 0.8), (2, 0, 0.5), (2, 1, 0.45), (4, 0, 0.3)]
    assert len(list(result.predictions(99))) == 6


def test_results_and_tracks_say_in_one_line_what_they_are(result):
    assert repr(result) == "VideoResult(3 tracks in 3 frames of 30 x 20, model='nano')"
    assert repr(result.tracks[0]) == "Track(id=7, label=1, score=0.80, visible in 2 of 3 frames)"


def test_a_track_knows_its_class_its_score_and_its_frames(result):
    best = result.tracks[0]
    assert (best.label, result.category(best)) == (1, "dog")
    assert best.score == pytest.approx(0.8)
    assert best.visible.tolist() == [True, False, True]


def test_the_results_list_has_an_entry_for_each_prediction(result):
    entries = results_list(result, video_id=9, top_k=3, category_ids=[11, 12])
    assert [(e["video_id"], e["category_id"], round(e["score"], 3)) for e in entries] == [
        (9, 12, 0.8),
        (9, 11, 0.5),
        (9, 12, 0.45),
    ]
    read = json.loads(json.dumps(entries))
    for entry, source in zip(read, (result.tracks[0], result.tracks[1], result.tracks[1]), strict=True):
        for segmentation, mask in zip(entry["segmentations"], source.masks, strict=True):
            assert (segmentation is None) == (mask is None)
            if mask is not None:
                np.testing.assert_array_equal(rle.decode(rle.from_json(segmentation, 20, 30)), rle.decode(mask))


def test_without_a_number_of_pairs_each_track_is_listed_once_under_its_best_class(result):
    entries = results_list(result, video_id=9, top_k=None)
    assert [(e["category_id"], round(e["score"], 3)) for e in entries] == [(2, 0.8), (1, 0.5), (1, 0.3)]


def test_the_table_has_a_row_for_each_track_in_each_frame_it_is_seen(result):
    rows = list(csv.DictReader(io.StringIO(tracks_csv(result))))
    assert tuple(rows[0]) == TRACK_COLUMNS
    assert [(int(row["track"]), int(row["frame"])) for row in rows] == [(7, 0), (7, 2), (2, 0), (2, 2), (4, 2)]
    for row in rows:
        source = next(t for t in result.tracks if t.id == int(row["track"]))
        mask = rle.decode(source.masks[int(row["frame"])])
        assert int(row["area"]) == mask.sum()
        ys, xs = mask.nonzero()
        box = [float(row[name]) for name in ("x", "y", "width", "height")]
        assert box == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert float(row["time"]) == result.timestamps[int(row["frame"])]
        assert row["category"] == result.category(source)


def test_files_hold_what_the_functions_say(result, tmp_path):
    write_results(tmp_path / "results.json", result, top_k=2)
    write_tracks(tmp_path / "tracks.csv", result)
    assert json.loads((tmp_path / "results.json").read_text()) == results_list(result, 1, 2)
    assert (tmp_path / "tracks.csv").read_text() == tracks_csv(result)
