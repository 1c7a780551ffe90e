import csv
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cavis import rle
from cavis.demo import viewer
from cavis.demo.exports import draw_video, load_result, save_result, write_files
from cavis.demo.jobs import GoneError, Job
from cavis.demo.limits import Part
from cavis.demo.tracking import Tracker
from cavis.demo.viewer import View
from cavis.video import open_video
from cavis.visualization.overlay import render_frame

ALL = View(min_score=0.0)


@pytest.fixture
def job(tracker: Tracker, uploaded: Callable[[], Job]) -> Job:
    job = uploaded()
    list(tracker.track(job, Part(0.0, 0.8, 1), ALL))
    assert len(job.result.tracks) > 1
    assert job.result.tracks[0].visible.any()
    return job


@pytest.fixture
def between(job: Job) -> float:
    """A threshold that some tracks pass and some do not."""
    scores = [track.score for track in job.result.tracks]
    return (scores[0] + scores[-1]) / 2


def test_a_kept_result_comes_back_as_it_was(job: Job, tmp_path):
    save_result(tmp_path / "result.json", job.result)
    back = load_result(tmp_path / "result.json")
    assert [track.masks for track in back.tracks] == [track.masks for track in job.result.tracks]
    assert [track.id for track in back.tracks] == [track.id for track in job.result.tracks]
    for kept, track in zip(back.tracks, job.result.tracks, strict=True):
        np.testing.assert_allclose(kept.class_scores, track.class_scores, atol=1e-6)
        np.testing.assert_array_equal(kept.boxes, track.boxes)
    np.testing.assert_allclose(back.timestamps, job.result.timestamps, atol=1e-6)
    assert (back.height, back.width, back.categories, back.model) == (48, 72, job.result.categories, "nano")


def test_files_and_page_tell_the_same_tracks(job: Job, between: float):
    view = View(between)
    shown = view.of(job).tracks
    assert 0 < len(shown) < len(job.result.tracks)
    files = write_files(job, view)
    entries = json.loads(files.results.read_text())
    assert [entry["score"] for entry in entries] == pytest.approx([track.score for track in shown])
    assert [entry["category_id"] - 1 for entry in entries] == [track.label for track in shown]
    for entry, track in zip(entries, shown, strict=True):
        masks = [mask and rle.from_json(mask, 48, 72) for mask in entry["segmentations"]]
        assert masks == list(track.masks)
    rows = list(csv.DictReader(files.tracks.read_text().splitlines()))
    assert {int(row["track"]) for row in rows} == {track.id for track in shown if track.visible.any()}
    assert viewer.table(job, view).count("<tr>") == 1 + len(shown)
    assert viewer.headline(job, view).startswith(f"{len(shown)} track")


def test_exports_at_the_same_time_leave_each_other_alone(job: Job, between: float):
    together, answers = threading.Barrier(2), []

    def export(view: View) -> None:
        for _ in range(10):
            together.wait(20)
            files = write_files(job, view)
            answers.append(files.tracks.exists() and len(json.loads(files.results.read_text())))
            assert answers[-1] == len(view.of(job).tracks)

    threads = [threading.Thread(target=export, args=(view,)) for view in (ALL, View(between))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(10 * [len(ALL.of(job).tracks), len(View(between).of(job).tracks)])
    assert len(list(job.folder.glob("files-*"))) <= 4  # of 20


def test_drawing_again_leaves_a_video_alone_that_is_being_drawn(job: Job):
    half, go_on, videos = threading.Event(), threading.Event(), []

    def hold(done: int) -> None:
        half.set()
        assert go_on.wait(20)

    slow = threading.Thread(target=lambda: videos.append(draw_video(job, ALL, hold)))
    slow.start()
    assert half.wait(20)
    videos.append(draw_video(job, View(1.0), lambda done: None))
    go_on.set()
    slow.join(20)
    assert [len(open_video(video)) for video in videos] == [8, 8]


def test_a_threshold_above_all_scores_gives_a_sentence_and_empty_files(job: Job):
    view = View(1.0)
    assert "<table" not in viewer.table(job, view)
    assert f"{job.result.tracks[0].score:.2f}" in viewer.table(job, view)
    files = write_files(job, view)
    assert json.loads(files.results.read_text()) == []
    assert len(files.tracks.read_text().splitlines()) == 1


def test_a_frame_is_the_one_that_was_tracked(job: Job):
    frame = open_video(job.clip)[5]
    np.testing.assert_array_equal(viewer.picture(job, ALL, 5), render_frame(frame, job.result, 5, ALL.style))
    bare = View(min_score=1.0)
    np.testing.assert_array_equal(viewer.picture(job, bare, 5), frame)


@pytest.mark.parametrize(("asked", "given"), [(-3, 0), (10**9, 7)])
def test_a_frame_number_outside_of_the_clip_means_its_ends(job: Job, asked: int, given: int):
    np.testing.assert_array_equal(viewer.picture(job, ALL, asked), viewer.picture(job, ALL, given))


def test_each_choice_of_what_to_draw_shows(job: Job):
    drawn = [
        viewer.picture(job, View(0.0, choice), 7) for choice in ((), ("masks",), ("boxes",), ("labels",), ("trails",))
    ]
    for index, picture in enumerate(drawn):
        assert not any(np.array_equal(picture, other) for other in drawn[:index])


def test_a_track_brought_out_changes_the_others(job: Job):
    first = job.result.tracks[0].id
    assert not np.array_equal(viewer.picture(job, View(0.0, only=(first,)), 0), viewer.picture(job, ALL, 0))


def test_a_click_finds_the_best_track_under_it(job: Job):
    track = job.result.tracks[0]
    t = int(np.flatnonzero(track.visible)[0])
    y, x = np.argwhere(rle.decode(track.masks[t]))[0]
    assert viewer.track_at(job, ALL, t, int(x), int(y)) == track.id
    assert viewer.track_at(job, View(1.0), t, int(x), int(y)) is None
    assert viewer.track_at(job, ALL, t, -1, 10**6) is None


def test_names_are_escaped(job: Job):
    job.result = replace(job.result, categories=("<script>alert(1)</script>",) * 3)
    assert "<script" not in viewer.table(job, ALL) + viewer.kinds(job.result.categories)
    assert "&lt;script&gt;" in viewer.table(job, ALL)


def test_the_table_tells_how_often_each_track_is_seen(job: Job):
    table = viewer.table(job, ALL)
    told = [int(number) for number in re.findall(r"<td>(\d+) of 8</td>", table)]
    assert told == [int(track.visible.sum()) for track in job.result.tracks]


def test_without_a_result_there_is_a_sentence(uploaded: Callable[[], Job]):
    with pytest.raises(GoneError, match="press Track"):
        viewer.table(uploaded(), ALL)
