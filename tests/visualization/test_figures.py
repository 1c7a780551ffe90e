import json
from dataclasses import replace

import numpy as np
import pytest

from cavis import rle
from cavis.records import Track, VideoResult
from cavis.visualization.figures import clearest_frame, spans, thumbnail, timeline
from cavis.visualization.palette import hex_colour

HEIGHT, WIDTH = 40, 60


def track(id_, visible, score=0.9):
    masks = []
    for t, seen in enumerate(visible):
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[10 : 20 + t, 30:50] = True
        masks.append(rle.encode(mask) if seen else None)
    zeros = np.zeros((len(visible), 4))
    return Track(id_, np.array([score, 0.0]), tuple(masks), zeros, zeros, zeros)


def result(*tracks, times=(0.0, 0.1, 0.3, 0.6)):
    return VideoResult(tracks, HEIGHT, WIDTH, np.array(times), ("dog", "cat"), "made up")


def test_spans_are_the_runs_of_visible_frames():
    assert spans(track(1, [1, 1, 0, 1, 0, 0, 1, 1])) == [(0, 1), (3, 3), (6, 7)]
    assert spans(track(1, [0, 0])) == []
    assert spans(track(1, [1])) == [(0, 0)]


def test_bars_cover_the_moments_a_track_is_visible():
    (bar,) = timeline(result(track(5, [1, 1, 0, 1]))).data
    assert bar.type == "bar"
    assert list(bar.base) == [0.0, 0.6]
    # A frame lasts until the next one; the last as long as the one before it.
    np.testing.assert_allclose(bar.x, [0.3, 0.3])
    assert bar.marker.color == hex_colour(5)
    assert list(bar.y) == ["dog 5", "dog 5"]


def test_the_timeline_of_a_part_of_a_video_begins_with_the_part():
    figure = timeline(result(track(5, [1, 1, 0, 1]), times=(60.0, 60.1, 60.3, 60.6)))
    np.testing.assert_allclose(figure.layout.xaxis.range, [60, 60.9])
    np.testing.assert_allclose(timeline(result(track(5, [1] * 4))).layout.xaxis.range, [0, 0.9])


def test_the_best_track_has_the_top_lane():
    figure = timeline(result(track(5, [1] * 4), track(2, [1] * 4)))
    assert list(figure.layout.yaxis.categoryarray) == ["dog 2", "dog 5"]


def test_figures_are_plain_lists_of_bars_and_lines():
    figure = timeline(result(track(5, [1, 0, 1, 1]), track(7, [0, 1, 0, 0])), position=0.3)
    text = figure.to_json()
    assert "bdata" not in text
    assert [trace["type"] for trace in json.loads(text)["data"]] == ["bar", "bar", "scatter"]
    assert json.loads(text)["data"][2]["x"] == [0.3, 0.3]


def test_a_result_without_tracks_says_so():
    figure = timeline(result(), position=0.2)
    assert not figure.data
    assert figure.layout.annotations[0].text == "No instance was found."


def test_one_frame_has_a_timeline():
    (bar,) = timeline(result(track(1, [1]), times=(0.0,))).data
    assert bar.x[0] > 0


def test_the_clearest_frame_shows_most_of_the_track():
    assert clearest_frame(track(1, [1, 1, 1, 0])) == 2
    with pytest.raises(ValueError, match="track 4, which never is"):
        clearest_frame(track(4, [0, 0]))


def test_thumbnails_show_the_instance_in_a_square():
    frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    frame[10:20, 30:50] = (255, 0, 0)
    for size in (1, 40, 96):
        image = thumbnail(frame, track(1, [1]), 0, size)
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8
    red = (image[..., 0] > 200).nonzero()
    # 20 x 10 pixels and a margin of 2.4 on each side, fitted into 96.
    assert 70 <= np.ptp(red[1]) <= 82
    assert 34 <= np.ptp(red[0]) <= 42
    assert abs(red[0].mean() - 47.5) < 3
    assert (image[0] == image[-1]).all()


def test_thumbnails_of_what_cannot_be_seen_are_refused():
    frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="in which track 6 is visible, got frame 1"):
        thumbnail(frame, track(6, [1, 0]), 1)
    with pytest.raises(ValueError, match="expected a frame of 40 x 60 pixels, got 40 x 59"):
        thumbnail(frame[:, 1:], track(6, [1]), 0)
    empty = rle.encode(np.zeros((HEIGHT, WIDTH), dtype=bool))
    with pytest.raises(ValueError, match="visible, got frame 0"):
        thumbnail(frame, replace(track(6, [1]), masks=(empty,)), 0)
