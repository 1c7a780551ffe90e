import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cavis.demo import tracking
from cavis.demo.jobs import Job
from cavis.demo.limits import DemoLimits, Part
from cavis.demo.models import Models
from cavis.demo.pace import STAGES, Pace
from cavis.demo.tracking import Run, Tracker, Watcher, follow
from cavis.demo.viewer import View
from cavis.inference.online import Cancelled, OnlinePredictor
from cavis.video import VideoError, open_video

EVERYTHING = View(min_score=0.0)
Upload = Callable[[], Job]


def working() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cavis-demo-work"]


def test_a_run_leaves_a_result_and_a_video_of_the_chosen_part(tracker: Tracker, uploaded: Upload):
    job = uploaded()
    list(tracker.track(job, Part(0.5, 2.0, 3), EVERYTHING))
    assert len(job.result) == 5
    assert job.result.model == "nano"
    video = open_video(job.video)
    assert len(video) == 5
    assert (video.height, video.width) == (job.result.height, job.result.width) == (48, 72)


def test_the_result_is_that_of_the_predictor(tracker: Tracker, uploaded: Upload):
    job = uploaded()
    list(tracker.track(job, Part(0.0, 1.0, 1), EVERYTHING))
    alone = OnlinePredictor(tracker.models.first.ready).run(open_video(job.clip))
    assert [track.masks for track in job.result.tracks] == [track.masks for track in alone.tracks]


def test_updates_tell_stage_after_stage_how_far_the_work_is(tracker: Tracker, uploaded: Upload, monkeypatch):
    monkeypatch.setattr(tracking, "_PREVIEW_SECONDS", 0.0)
    job = uploaded()
    model = tracker.models.first
    watcher = Watcher(STAGES, 10, model.pace, 100.0, job.stop)
    seen = []
    report = watcher.report

    def spy(*arguments):
        report(*arguments)
        seen.append(watcher.update())

    watcher.report = spy
    tracker._work(job, Part(0.0, 1.0, 1), EVERYTHING, Run(model.predictor, watcher))
    stages = list(dict.fromkeys(update.stage for update in seen))
    assert stages == list(STAGES)
    assert all(0 <= update.fraction <= 1 and update.remaining >= 0 for update in seen)
    assert all(update.done <= update.total == 10 for update in seen)
    assert sum(update.preview is not None for update in seen) >= 9
    assert seen[-1].done == 10
    assert seen[-1].remaining < 0.5


def test_the_pace_is_learnt(tracker: Tracker, uploaded: Upload):
    job = uploaded()
    before = tracker.estimate(job, 100)
    list(tracker.track(job, Part(0.0, 1.0, 1), EVERYTHING))
    assert tracker.estimate(job, 100) != before


def test_an_estimate_is_what_the_measurements_say():
    pace = Pace()
    for _ in range(40):
        pace.learn("tracking", 10, 5.0)
    assert pace.estimate(20, ("tracking",)) == pytest.approx(10.0)


def test_closing_the_updates_stops_the_work(tracker: Tracker, uploaded: Upload, monkeypatch):
    job = uploaded()
    begun = threading.Event()

    def slow(self, source, watch, stop):
        begun.set()
        while not stop.is_set():
            time.sleep(0.005)
        raise Cancelled

    monkeypatch.setattr(OnlinePredictor, "run", slow)
    updates = tracker.track(job, Part(0.0, 1.0, 1), EVERYTHING)
    next(updates)
    assert begun.wait(20)
    updates.close()
    assert not working()
    assert not job.running
    assert job.result is None


def test_a_stopped_run_ends_before_the_next_window(tracker: Tracker, uploaded: Upload, report_once_stopped):
    job = uploaded()
    stopping = (job.stop.set() for _ in tracker.track(job, Part(0.0, 1.5, 1), EVERYTHING))
    with pytest.raises(Cancelled):
        list(stopping)
    assert not working()
    assert job.result is None


def test_a_stopped_job_can_be_run_again(tracker: Tracker, uploaded: Upload):
    job = uploaded()
    job.stop.set()
    list(tracker.track(job, Part(0.0, 0.5, 1), EVERYTHING))
    assert len(job.result) == 5


def test_a_run_may_take_so_long_and_no_longer(ready, limits: DemoLimits, uploaded: Upload):
    hasty = Tracker(Models(ready), replace(limits, seconds=0.0))
    job = uploaded()
    with pytest.raises(VideoError, match="took longer than"):
        list(hasty.track(job, Part(0.0, 1.0, 1), EVERYTHING))
    assert not job.stop.is_set()  # it failed; nobody stopped it


def test_what_the_work_raises_is_raised_to_the_listener():
    def work() -> None:
        raise VideoError("It is broken.")

    stop = threading.Event()
    with pytest.raises(VideoError, match="broken"):
        list(follow(work, Watcher(STAGES, 1, Pace(), 10.0, stop)))


def test_drawing_again_does_not_run_the_network(tracker: Tracker, uploaded: Upload, monkeypatch):
    job = uploaded()
    list(tracker.track(job, Part(0.0, 0.5, 1), EVERYTHING))
    result, first = job.result, job.video
    monkeypatch.setattr(OnlinePredictor, "run", None)
    list(tracker.redraw(job, View(min_score=0.0, drawn=("boxes",))))
    assert job.result is result
    assert job.video != first
    assert not first.exists()
    assert len(open_video(job.video)) == 5


def test_a_damaged_upload_is_tracked_with_a_note(tracker: Tracker, uploaded: Upload, tmp_path: Path):
    job = uploaded()
    content = bytearray(job.upload.read_bytes())
    content[len(content) * 6 // 10 : len(content) * 8 // 10] = bytes(len(content) * 8 // 10 - len(content) * 6 // 10)
    job.upload.unlink()
    job.upload.write_bytes(content)
    list(tracker.track(job, Part(0.0, 1.5, 1), EVERYTHING))
    assert any("frames" in note for note in job.result.notes)
