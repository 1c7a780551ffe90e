import ast
import csv
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from nano import CATEGORIES

import cavis.demo
from cavis import rle
from cavis.demo import tracking
from cavis.demo.examples import Shelf
from cavis.demo.handlers import Handlers, Parts, sentence
from cavis.demo.jobs import JobStore
from cavis.demo.limits import DemoLimits
from cavis.demo.models import Models
from cavis.demo.tracking import Tracker
from cavis.inference.online import OnlinePredictor

VISITOR = SimpleNamespace(session_hash="visitor")
LOOKS = (0.0, ["masks"])
KINDS = list(CATEGORIES)


@pytest.fixture
def handlers(tracker: Tracker, store: JobStore) -> Handlers:
    """On parts that are their own names."""
    return Handlers(tracker, store, Shelf(), Parts(*Parts._fields))


@pytest.fixture
def upload(clip: Path, tmp_path: Path) -> str:
    return shutil.copy(clip, tmp_path / "my holiday.mp4")


def value(update):
    return update["value"] if isinstance(update, dict) else update


def tracked(handlers: Handlers, upload: str) -> str:
    key = handlers.choose_upload(upload, "", VISITOR)["job"]
    for updates in handlers.track(key, 0.0, 1.0, 1, *LOOKS):
        last = updates
    assert last["result_box"]["visible"]
    return key


def test_an_upload_is_described_and_a_part_suggested(handlers: Handlers, upload: str):
    updates = handlers.choose_upload(upload, "", VISITOR)
    assert "2.0 s, 96 × 64 pixels, 10 frames a second, 20 frames" in updates["choose_note"]
    assert "I have seen nothing." not in updates["choose_note"]  # its own words stand with the model's name
    assert updates["part_box"]["visible"]
    assert (updates["start"]["value"], updates["end"]["value"], updates["stride"]["value"]) == (0.0, 1.5, 1)
    assert "15 frames" in updates["part_note"]
    assert updates["track"]["interactive"]


def test_what_is_no_video_is_refused_and_leaves_nothing(
    handlers: Handlers, store: JobStore, bad_file: Path, upload: str
):
    updates = handlers.choose_upload(str(bad_file), "", VISITOR)
    assert 'role="alert"' in updates["choose_note"]
    assert "accepted are MP4" in updates["choose_note"] or "damaged or not complete" in updates["choose_note"]
    assert "holiday" not in updates["choose_note"]
    assert updates["job"] is None
    assert updates["upload"]["value"] is None
    assert not bad_file.exists()
    assert len(store) == 0
    assert not list(store.root.iterdir())
    assert handlers.choose_upload(upload, "", VISITOR)["job"] is not None


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(ready, store: JobStore, upload: str):
    strict = Tracker(Models(ready), DemoLimits(megabytes=0))
    handlers = Handlers(strict, store, Shelf(), Parts(*Parts._fields))
    updates = handlers.choose_upload(upload, "", VISITOR)
    assert "accepted are at most 0 MB" in updates["choose_note"]
    assert not Path(upload).exists()
    assert not list(store.root.iterdir())


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 64, 96), (2, 47, 63), (3, 96, 40)])
def test_clips_of_odd_shapes_are_tracked(handlers: Handlers, make_clip, frames: int, height: int, width: int):
    key = handlers.choose_upload(str(make_clip(frames, height, width)), "", VISITOR)["job"]
    *_, last = handlers.track(key, 0.0, 10.0, 1, *LOOKS)
    assert last["result_box"]["visible"]
    assert f"in {frames} frame" in last["found"]
    assert last["picture"].shape[0] % 2 == 0


def test_a_part_over_the_limit_is_refused_with_a_way_out(handlers: Handlers, upload: str):
    key = handlers.choose_upload(upload, "", VISITOR)["job"]
    updates = handlers.judge_part(key, 0.0, 2.0, 1)
    assert not updates["track"]["interactive"]
    assert "every 2nd frame" in updates["part_note"]
    assert handlers.judge_part(key, 0.0, 2.0, 2)["track"]["interactive"]
    refused = list(handlers.track(key, 0.0, 2.0, 1, *LOOKS))
    assert "20 frames" in refused[-1]["run_note"]
    assert "result_box" not in refused[-1]


def test_tracking_ends_with_everything_on_the_page(handlers: Handlers, store: JobStore, upload: str):
    key = handlers.choose_upload(upload, "", VISITOR)["job"]
    first, *_, last = handlers.track(key, 0.0, 1.0, 1, *LOOKS)
    assert first["cancel"]["visible"]
    assert not first["track"]["interactive"]
    assert not last["cancel"]["visible"]
    assert last["track"]["interactive"]
    assert last["frame"]["maximum"] == 9
    assert "<table" in last["table"]
    assert last["picture"].shape == (48, 72, 3)
    for name in ("video", "get_video", "get_results", "get_tracks"):
        assert store.get(key).folder in Path(last[name]).parents
        assert Path(last[name]).stat().st_size > 0


def test_the_threshold_acts_without_the_network(handlers: Handlers, upload: str, monkeypatch):
    key = tracked(handlers, upload)
    monkeypatch.setattr(OnlinePredictor, "run", None)
    everything = handlers.filter(key, 3, 0.0, KINDS, ["masks"], [])
    nothing = handlers.filter(key, 3, 1.0, KINDS, ["masks"], [])
    assert "<table" in everything["table"]
    assert "<table" not in nothing["table"]
    assert nothing["only"]["choices"] == []
    assert not np.array_equal(everything["picture"], nothing["picture"])


def test_kinds_that_are_not_ticked_are_shown_nowhere(handlers: Handlers, store: JobStore, upload: str):
    key = handlers.choose_upload(upload, "", VISITOR)["job"]
    *_, last = handlers.track(key, 0.0, 1.0, 1, *LOOKS)
    result = store.get(key).result
    found = {result.category(track) for track in result.tracks}
    assert (set(last["kinds"]["choices"]), set(last["kinds"]["value"])) == (found, found)
    assert last["kinds"]["visible"] == (len(found) > 1)
    for kinds in (found, {result.category(result.tracks[0])}, set()):
        shown = handlers.filter(key, 0, 0.0, list(kinds), [], [])
        assert [track for _, track in shown["only"]["choices"]] == [
            track.id for track in result.tracks if result.category(track) in kinds
        ]
        rows = list(csv.DictReader(Path(shown["get_tracks"]).read_text().splitlines()))
        assert {row["category"] for row in rows} <= kinds
    assert "of the kinds that are ticked" in shown["table"]


def test_a_track_below_the_threshold_is_not_brought_out_any_more(handlers: Handlers, store: JobStore, upload: str):
    key = tracked(handlers, upload)
    best = store.get(key).result.tracks[0].id
    assert handlers.filter(key, 0, 0.0, KINDS, [], [best])["only"]["value"] == [best]
    assert handlers.filter(key, 0, 1.0, KINDS, [], [best])["only"]["value"] == []


def test_a_click_brings_a_track_out_and_lets_it_go(handlers: Handlers, store: JobStore, upload: str):
    key = tracked(handlers, upload)
    job = store.get(key)
    track = job.result.tracks[0]
    t = int(np.flatnonzero(track.visible)[0])
    row, column = np.argwhere(rle.decode(track.masks[t]))[0]
    click = SimpleNamespace(index=[int(column), int(row)])
    chosen = handlers.point(key, t, 0.0, KINDS, [], [], click)["only"]
    assert chosen == [track.id]
    assert handlers.point(key, t, 0.0, KINDS, [], chosen, click)["only"] == []


def test_drawing_again_gives_the_video_a_new_address(handlers: Handlers, upload: str):
    key = tracked(handlers, upload)
    *_, last = handlers.redraw(key, 0.0, KINDS, ["boxes"], [])
    *_, again = handlers.redraw(key, 0.0, KINDS, ["masks"], [])
    assert last["video"] != again["video"]
    assert Path(again["video"]).exists()


def test_an_example_is_there_at_once_with_its_result(handlers: Handlers, monkeypatch):
    monkeypatch.setattr(OnlinePredictor, "run", None)
    updates = handlers.choose_example(1, "", VISITOR)
    assert updates["result_box"]["visible"]
    assert Path(updates["video"]).stat().st_size > 0
    assert Path(value(updates["upload"])).exists()
    assert "Computed beforehand with the model “tiny”" in updates["found"]
    assert "Choose “tiny” at the top" in updates["found"]  # another model is chosen: it would see something else
    assert "Choose" not in handlers.choose_example(1, "tiny", VISITOR)["found"]


def test_cancel_stops_the_job_and_frees_the_page(handlers: Handlers, store: JobStore, upload: str):
    key = handlers.choose_upload(upload, "", VISITOR)["job"]
    with store.get(key).busy() as stop:
        updates = handlers.cancel(key)
    assert stop.is_set()
    assert not updates["cancel"]["visible"]
    assert "Stopped" in updates["run_note"]


def test_a_run_that_is_cancelled_says_so(handlers: Handlers, store: JobStore, upload: str, report_once_stopped):
    key = handlers.choose_upload(upload, "", VISITOR)["job"]
    for updates in handlers.track(key, 0.0, 1.0, 1, *LOOKS):
        store.get(key).cancel()
        last = updates
    assert "Stopped" in last["run_note"]


def test_after_a_cancelled_run_the_next_one_is_served(handlers: Handlers, store: JobStore, upload: str):
    key = handlers.choose_upload(upload, "", VISITOR)["job"]
    store.get(key).cancel()
    *_, again = handlers.track(key, 0.0, 1.0, 1, *LOOKS)
    assert again["result_box"]["visible"]


def test_a_clip_is_kept_while_its_visitor_waits_in_line(
    handlers: Handlers, store: JobStore, limits: DemoLimits, upload: str
):
    key = handlers.choose_upload(upload, "", VISITOR)["job"]
    assert not handlers.wait(VISITOR)["track"]["interactive"]
    for _ in range(limits.jobs + 1):
        store.open(None)
    assert "track" not in handlers.judge_part(key, 0.0, 1.0, 1)  # it stays as waiting has left it
    *_, last = handlers.track(key, 0.0, 1.0, 1, *LOOKS)
    assert last["result_box"]["visible"]
    assert "track" in handlers.judge_part(key, 0.0, 1.0, 1)


def test_track_ends_a_drawing_that_is_not_finished_without_an_error(handlers: Handlers, upload: str, monkeypatch):
    key = tracked(handlers, upload)
    draw, begun = tracking.draw_video, []

    def slow_at_first(job, view, watch):
        begun.append(time.monotonic())
        while len(begun) == 1 and time.monotonic() < begun[0] + 20:
            watch(0)
            time.sleep(0.01)
        return draw(job, view, watch)

    monkeypatch.setattr(tracking, "draw_video", slow_at_first)
    drawing = handlers.redraw(key, 0.0, KINDS, ["boxes"], [])
    next(drawing)
    assert "Drawing" in next(drawing)["redraw"]
    *_, last = handlers.track(key, 0.0, 1.0, 1, *LOOKS)
    assert last["result_box"]["visible"]
    *_, end = drawing
    assert "run_note" not in end


def test_leaving_deletes_what_was_sent(handlers: Handlers, store: JobStore, upload: str):
    tracked(handlers, upload)
    handlers.forget(VISITOR)
    assert not list(store.root.iterdir())


@pytest.mark.parametrize("key", [None, "made up", "../../etc"])
def test_a_job_that_is_not_there_is_answered_with_a_sentence(handlers: Handlers, key: str | None):
    notes = [
        handlers.judge_part(key, 0.0, 1.0, 1)["part_note"],
        list(handlers.track(key, 0.0, 1.0, 1, *LOOKS))[-1]["run_note"],
        list(handlers.redraw(key, 0.0, KINDS, [], []))[-1]["run_note"],
        handlers.show(key, 0, 0.0, KINDS, [], [])["run_note"],
    ]
    assert all("hoose" in note for note in notes)


def test_an_error_of_ours_is_logged_and_not_shown(caplog):
    text = sentence(KeyError("secret/path"))
    assert "secret" not in text
    assert "secret" in caplog.text


def test_gradio_is_known_to_the_page_only():
    folder = Path(cavis.demo.__file__).parent
    knowing = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "gradio" for name in names):
                knowing.add(path.stem)
    assert knowing == {"api", "handlers", "model_handlers", "page", "server"}
