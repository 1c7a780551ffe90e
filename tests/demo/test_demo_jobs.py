import os
import time
from pathlib import Path

import pytest

from cavis.demo.jobs import GoneError, Job, JobStore
from cavis.demo.limits import DemoLimits


def folders(store: JobStore) -> set[Path]:
    return set(store.root.iterdir())


def test_a_store_keeps_so_many_jobs_and_the_files_of_no_other(store: JobStore, limits: DemoLimits):
    jobs = [store.open(None) for _ in range(limits.jobs + 2)]
    assert folders(store) == {job.folder for job in jobs[2:]}
    with pytest.raises(GoneError):
        store.get(jobs[0].key)
    assert store.get(jobs[-1].key) is jobs[-1]


def test_the_job_used_longest_ago_makes_room(store: JobStore, limits: DemoLimits):
    jobs = [store.open(None) for _ in range(limits.jobs)]
    jobs[0].used = time.monotonic() + 1
    store.open(None)
    assert store.get(jobs[0].key) is jobs[0]
    with pytest.raises(GoneError):
        store.get(jobs[1].key)


def test_a_job_that_is_worked_on_makes_room_last(store: JobStore, limits: DemoLimits):
    first = store.open(None)
    with first.busy():
        for _ in range(limits.jobs + 1):
            store.open(None)
        assert store.get(first.key) is first


def test_a_job_that_waits_in_line_makes_room_after_all_that_do_not(store: JobStore, limits: DemoLimits):
    running, waiting = store.open("running"), store.open("waiting")
    with running.busy():
        store.expect("waiting")
        for visitor in range(limits.jobs + 1):
            store.open(f"visitor {visitor}")
            assert store.get(waiting.key) is waiting
        assert store.get(running.key) is running
    waiting.cancel()
    for _ in range(limits.jobs):
        store.open(None)
    with pytest.raises(GoneError):
        store.get(waiting.key)


def test_there_is_room_for_all_that_wait_the_one_that_runs_and_a_new_one():
    limits = DemoLimits()
    assert limits.jobs >= limits.waiting + 2


def test_a_new_clip_of_a_visitor_replaces_the_old_one_and_stops_its_work(store: JobStore):
    old, other = store.open("visitor"), store.open("another")
    store.open("visitor")
    assert old.stop.is_set()
    assert not old.folder.exists()
    assert store.get(other.key) is other


def test_what_is_not_used_any_more_is_deleted(store: JobStore, limits: DemoLimits):
    job = store.open(None)
    job.used -= limits.keep_seconds + 1
    with pytest.raises(GoneError):
        store.get(job.key)
    assert not folders(store)


def test_a_clip_that_waits_in_line_is_kept_until_its_turn(store: JobStore, limits: DemoLimits):
    job = store.open("visitor")
    store.expect("visitor")
    job.used -= limits.keep_seconds + limits.longest_wait - 5
    assert store.get(job.key) is job
    job.used -= limits.keep_seconds + limits.longest_wait + 1
    with pytest.raises(GoneError):
        store.get(job.key)


def test_leaving_deletes_everything_of_a_visitor(store: JobStore, clip: Path):
    job = store.open("visitor")
    job.take(clip)
    store.drop_session("visitor")
    assert not folders(store)
    assert clip.exists()


def test_what_a_killed_program_left_is_swept(tmp_path: Path, limits: DemoLimits):
    old, young = tmp_path / "old", tmp_path / "young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "clip.mp4").write_bytes(b"x")
    long_ago = time.time() - 3 * limits.keep_seconds
    os.utime(old, (long_ago, long_ago))
    JobStore(tmp_path, limits)
    assert not old.exists()
    assert young.exists()


def test_keys_cannot_be_guessed(store: JobStore):
    keys = {store.open(None).key for _ in range(20)}
    assert len(keys) == 20
    assert all(len(key) >= 20 for key in keys)


def test_a_missing_key_is_answered_with_what_to_do(store: JobStore):
    with pytest.raises(GoneError, match="Choose a clip first"):
        store.get(None)


def test_files_of_a_kind_never_share_an_address(tmp_path: Path):
    job = Job("key", None, tmp_path)
    other, folders = job.fresh("files"), [job.fresh("video") for _ in range(5)]
    assert len({*folders}) == 5
    assert [folder.exists() for folder in folders] == [False, False, True, True, True]
    assert other.exists()


def test_folders_that_are_written_at_a_time_leave_each_other_alone(tmp_path: Path):
    job = Job("key", None, tmp_path)
    with job.writing("files") as slow:
        quick = [job.fresh("files") for _ in range(5)]
        assert slow.exists()
    assert slow.exists()
    assert quick[-1].exists()
    assert not quick[0].exists()


def test_what_could_not_be_written_leaves_no_folder(tmp_path: Path):
    job = Job("key", None, tmp_path)
    with pytest.raises(FileNotFoundError), job.writing("video") as folder:
        (folder / "no folder" / "part").write_bytes(b"x")
    assert not list(tmp_path.iterdir())


def test_work_that_ends_after_its_job_was_closed_leaves_nothing(store: JobStore):
    job = store.open("visitor")
    with job.writing("video") as folder:
        store.drop_session("visitor")
        folder.mkdir(parents=True)  # as when a file is written while the folder is being deleted
    assert not folders(store)
    for late in (lambda: job.fresh("video"), job.source, lambda: job.busy().__enter__()):
        with pytest.raises(GoneError, match="choose it again"):
            late()


def test_what_stops_a_job_stops_each_of_its_works_and_no_later_one(tmp_path: Path):
    job = Job("key", None, tmp_path / "job")
    with job.busy() as first, job.busy() as second:
        job.cancel()
        assert first.is_set()
        assert second.is_set()
        with job.busy() as later:
            assert not later.is_set()
        assert first.is_set()
        assert job.running
    assert not job.running
