import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cavis.demo import tracking
from cavis.demo.jobs import Job, JobStore
from cavis.demo.limits import DemoLimits, Part
from cavis.demo.models import Models
from cavis.demo.pace import STAGES, Pace
from cavis.demo.tracking import Tracker, Watcher, follow
from cavis.demo.viewer import View
from cavis.inference.online import Cancelled, OnlinePredictor
from cavis.video import VideoError, open_video

EVERYTHING = View(min_score=0.0)
Upload = Callable[[], Job]


def working() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cavis-demo-work"]


def wait_for_the_end() -> None:
    for thread in working():
        thread.join(60)
    assert not working()


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
    watcher = Watcher(STAGES, 10, model.pace, 100.0, threading.Event())
    seen = []
    report = watcher.report

    def spy(*arguments):
        report(*arguments)
        seen.append(watcher.update())

    watcher.report = spy
    tracker._work(job, Part(0.0, 1.0, 1), EVERYTHING, watcher)
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
    assert not job.running
    wait_for_the_end()
    assert job.result is None


class Forward:
    """The network, which is held up in its first call until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        """That of each call."""
        self.begun, self.go_on = threading.Event(), threading.Event()
        forward = OnlinePredictor._forward

        def slow(predictor, *arguments):
            self.threads.append(threading.current_thread())
            self.begun.set()
            if len(self.threads) == 1:
                assert self.go_on.wait(60)
            return forward(predictor, *arguments)

        monkeypatch.setattr(OnlinePredictor, "_forward", slow)


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forward]:
    forward = Forward(monkeypatch)
    yield forward
    forward.go_on.set()
    wait_for_the_end()


def closed_in_the_first_window(tracker: Tracker, job: Job, forward: Forward) -> None:
    """Begin a run and close it, as gradio does where it serves all visitors."""
    updates = tracker.track(job, Part(0.0, 1.0, 1), EVERYTHING)
    next(updates)
    assert forward.begun.wait(60)
    before = time.monotonic()
    updates.close()
    assert time.monotonic() - before < 10, "closing waited for the network"
    assert working()
    assert not job.running


def test_closing_the_updates_does_not_wait_for_the_network(tracker: Tracker, uploaded: Upload, forward: Forward):
    job = uploaded()
    closed_in_the_first_window(tracker, job, forward)
    second = tracker.track(job, Part(0.0, 1.0, 1), EVERYTHING)
    assert next(second).done == 0
    next(second)
    assert len(forward.threads) == 1  # the second run waits for the end of the first
    forward.go_on.set()
    list(second)
    assert forward.threads.count(forward.threads[0]) == 1
    alone = OnlinePredictor(tracker.models.first.ready).run(open_video(job.clip))
    assert [track.masks for track in job.result.tracks] == [track.masks for track in alone.tracks]
    assert len(open_video(job.video)) == 10


def test_a_run_that_is_stopped_while_it_waits_ends_at_once(tracker: Tracker, uploaded: Upload, forward: Forward):
    closed_in_the_first_window(tracker, uploaded(), forward)
    job = uploaded()
    second = tracker.track(job, Part(0.0, 1.0, 1), EVERYTHING)
    next(second)
    job.cancel()
    with pytest.raises(Cancelled):
        list(second)
    assert working() == forward.threads
    assert job.result is None


def test_the_time_that_a_run_waits_for_another_is_not_its_own(tracker: Tracker, uploaded: Upload, monkeypatch):
    job, waited = uploaded(), [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + waited[0])
    monkeypatch.setattr(tracking, "time", clock)
    with tracker._one_at_a_time:
        updates = tracker.track(job, Part(0.0, 0.8, 1), EVERYTHING)
        next(updates)
        waited[0] = 10 * tracker.limits.seconds
    list(updates)
    assert len(job.result) == 8
    assert tracker.estimate(job, 8) < tracker.limits.seconds


def test_a_job_that_is_closed_during_a_stopped_run_leaves_no_files(
    tracker: Tracker, uploaded: Upload, store: JobStore, forward: Forward
):
    closed_in_the_first_window(tracker, uploaded(), forward)
    store.close()
    forward.go_on.set()
    wait_for_the_end()
    assert not list(store.root.iterdir())
    assert len(forward.threads) == 1


def test_a_stopped_run_leaves_no_part_of_a_video(tracker: Tracker, uploaded: Upload, monkeypatch):
    job = uploaded()
    report = Watcher.report

    def stop_in_the_video(watcher: Watcher, stage: str, *done) -> None:
        if stage == "drawing":
            watcher.stop.set()
        report(watcher, stage, *done)

    monkeypatch.setattr(Watcher, "report", stop_in_the_video)
    with pytest.raises(Cancelled):
        list(tracker.track(job, Part(0.0, 1.0, 1), EVERYTHING))
    assert not list(job.folder.glob("video-*"))
    assert job.video is None


def test_what_a_stopped_run_held_is_let_go_of():
    stop, held = threading.Event(), []

    class Tensor:
        pass

    def work() -> None:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        assert stop.wait(20)
        raise Cancelled

    gc.disable()
    try:
        updates = follow(work, Watcher(STAGES, 1, Pace(), 10.0, stop), interval=0.01)
        next(updates)
        updates.close()
        wait_for_the_end()
        assert held[0]() is None
    finally:
        gc.enable()


def test_a_stopped_run_ends_before_the_next_window(tracker: Tracker, uploaded: Upload, report_once_stopped):
    job = uploaded()
    stopping = (job.cancel() for _ in tracker.track(job, Part(0.0, 1.5, 1), EVERYTHING))
    with pytest.raises(Cancelled):
        list(stopping)
    assert not working()
    assert job.result is None


def test_a_stopped_job_can_be_run_again(tracker: Tracker, uploaded: Upload):
    job = uploaded()
    job.cancel()
    list(tracker.track(job, Part(0.0, 0.5, 1), EVERYTHING))
    assert len(job.result) == 5


def test_a_run_may_take_so_long_and_no_longer(ready, limits: DemoLimits, uploaded: Upload):
    hasty = Tracker(Models(ready), replace(limits, seconds=0.0))
    with pytest.raises(VideoError, match="took longer than"):  # it failed; nobody stopped it
        list(hasty.track(uploaded(), Part(0.0, 1.0, 1), EVERYTHING))


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
    assert first.exists()  # the page may be showing it until it learns of the other
    assert len(open_video(job.video)) == 5


def test_a_damaged_upload_is_tracked_with_a_note(tracker: Tracker, uploaded: Upload, tmp_path: Path):
    job = uploaded()
    content = bytearray(job.upload.read_bytes())
    content[len(content) * 6 // 10 : len(content) * 8 // 10] = bytes(len(content) * 8 // 10 - len(content) * 6 // 10)
    job.upload.unlink()
    job.upload.write_bytes(content)
    list(tracker.track(job, Part(0.0, 1.5, 1), EVERYTHING))
    assert any("frames" in note for note in job.result.notes)
