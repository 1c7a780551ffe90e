"""The list of models: what is told of each, what is kept of them, and how one is fetched."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from foreign_weights import released_file
from nano import nano_preset
from published import entry_at, panoptic_preset, put_into_cache
from weight_server import QUOTA_PAGE, Behaviour, nobody_listens, serving

from cavis import presets
from cavis.checkpoints import download, zoo
from cavis.checkpoints.hub import ReadyModel
from cavis.checkpoints.importing import model_shapes
from cavis.demo import words
from cavis.demo.examples import Shelf
from cavis.demo.handlers import Handlers, Parts
from cavis.demo.jobs import Job, JobStore
from cavis.demo.limits import DemoLimits, Part
from cavis.demo.model_handlers import ModelHandlers, choices
from cavis.demo.models import ModelError, Models
from cavis.demo.offers import published_offer
from cavis.demo.tracking import Tracker
from cavis.demo.viewer import View
from cavis.inference.offline import OfflinePredictor
from cavis.inference.predictor import Cancelled
from cavis.video import open_video

VISITOR = SimpleNamespace(session_hash="visitor")
PARTS = Parts(*Parts._fields)
OURS = ("lite", "tiny", "tiny_refiner")


@pytest.fixture
def behaviour(monkeypatch: pytest.MonkeyPatch):
    """What the server of the one published model there is, ``nano_tracker``, does."""
    monkeypatch.setitem(presets.PRESETS, "nano", nano_preset)
    monkeypatch.setattr(download, "RETRIES", 0)
    given = Behaviour(released_file(seed=4))
    with serving(given) as address:
        monkeypatch.setattr(zoo, "ZOO", {"nano_tracker": entry_at(address)} | zoo.ZOO)
        monkeypatch.setattr("cavis.demo.offers.ZOO", zoo.ZOO)
        yield given


@pytest.fixture
def models(ready: ReadyModel, behaviour: Behaviour) -> Models:
    return Models(ready, downloads=True)


@pytest.fixture
def desk(models: Models, limits: DemoLimits, store: JobStore) -> tuple[Handlers, ModelHandlers]:
    """Handlers on parts that are their own names."""
    handlers = Handlers(Tracker(models, limits), store, Shelf(), PARTS)
    return handlers, ModelHandlers(models, handlers, PARTS)


def put(monkeypatch: pytest.MonkeyPatch, name: str, preset=None, stage="tracker") -> None:
    """A published model in the cache."""
    preset = preset or nano_preset()
    monkeypatch.setitem(presets.PRESETS, preset.name, lambda: preset)
    entry = replace(entry_at("http://127.0.0.1:9", name, stage), preset=preset.name)
    put_into_cache(entry, preset)
    for module in ("cavis.checkpoints.zoo.ZOO", "cavis.demo.offers.ZOO"):
        monkeypatch.setattr(module, {**zoo.ZOO, name: entry})


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_the_first_model_is_the_first_of_the_list_and_everyday_things_come_next(models: Models):
    offers = models.offers()
    assert [offer.name for offer in offers[:5]] == ["nano", *OURS, "mask2former_swin_tiny_coco"]
    assert len({offer.name for offer in offers}) == len(offers)
    assert [offer.here for offer in offers[:5]] == [True, True, True, True, False]
    assert choices(models)[0] == ("nano · 3 kinds of things", "nano")
    assert "everyday things, 80 kinds · not here yet (about 190 MB)" in choices(models)[4][0]
    names = [offer.name for offer in offers]
    released = {entry.name for entry in zoo.ZOO.values() if entry.stage in ("tracker", "refiner")}
    assert released <= set(names)
    assert "dinov2_vitl" not in names


SHOWN_ON_A_PHONE = 34
"""Letters of the chosen line that a page of 390 pixels shows."""


def test_released_models_are_told_apart_by_the_beginning_of_their_lines(models: Models):
    """How they work and how good they are; nothing of it is cut off on a phone."""
    labels = {name: label for label, name in choices(models)}
    beginnings = {
        "ovis_r50_tracker": "ovis_r50 · online · AP 0.376 · ",
        "ovis_vitl_refiner": "ovis_vitl · offline · AP 0.571 · ",
        "vipseg_r50_refiner": "vipseg_r50 · offline · VPQ 0.453 · ",
    }
    for name, beginning in beginnings.items():
        assert labels[name].startswith(beginning)
    for name, entry in zoo.ZOO.items():
        if name in labels and entry.stage != "segmenter" and name != "nano_tracker":
            *title, _, _ = labels[name].split(" · ")
            assert len(title) == 3
            assert len(" · ".join(title)) <= SHOWN_ON_A_PHONE, labels[name]
    assert len(set(labels.values())) == len(labels)


def test_a_model_is_described_by_what_it_is(models: Models):
    """Not all are like the first one: context, tracker, refiner and stuff come in only where they are."""
    text = {
        name: " ".join(words.about(models.offer(name), "cpu").split())
        for name in (
            "nano",
            "mask2former_swin_tiny_coco",
            "ovis_r50_tracker",
            "ovis_vitl_refiner",
            "vipseg_r50_tracker",
        )
    }
    assert {name for name, words in text.items() if "what surrounds" in words} == text.keys() - {
        "mask2former_swin_tiny_coco"
    }
    assert {name for name, words in text.items() if "not learned to track" in words} == {"mask2former_swin_tiny_coco"}
    assert {name for name, words in text.items() if "once more, from beginning to end" in words} == {
        "ovis_vitl_refiner"
    }
    assert {name for name, words in text.items() if "stuff" in words} == {"vipseg_r50_tracker"}
    assert "124 kinds of things and stuff: of 58 kinds of things" in text["vipseg_r50_tracker"]
    panoptic = published_offer(zoo.ZOO["coco_panoptic_r50"])
    assert "133 kinds of everyday things and stuff" in panoptic.world
    assert "133 kinds" in panoptic.label


def test_subjects_are_told_of_models_that_know_them_and_of_no_others(models: Models):
    labels = {offer.name: offer.label for offer in models.offers()}
    assert "cats" in labels["lite"]
    assert "drawn clips" in labels["tiny"]
    assert labels["tiny_refiner"].startswith("tiny_refiner · offline · drawn clips")
    assert labels["nano"] == "nano · 3 kinds of things"  # of tiny's preset, but taught others
    assert [models.offer(name).for_real_clips for name in ("lite", "tiny", "nano")] == [True, False, True]
    assert not {"tiny_minvis", "tiny_ctvis", "tiny_cavis"} & set(labels)  # they do not track


def test_without_leave_to_download_only_what_is_here_is_listed(ready: ReadyModel, monkeypatch):
    closed = Models(ready)
    assert [offer.name for offer in closed.offers()] == ["nano", *OURS]
    put(monkeypatch, "nano_here")
    assert [offer.name for offer in closed.offers()] == ["nano", *OURS, "nano_here"]
    assert closed.offer("nano_here").here
    with pytest.raises(ModelError, match="no such model"):
        list(closed.fetch("ovis_r50_tracker"))


@pytest.mark.parametrize("name", ["", "mask2former_swin_tiny_coco", "ovis_vitl_refiner"])
def test_licence_citation_and_pace_are_told_with_each_published_model(models: Models, name: str):
    offer = models.offer(name)
    on_cpu, on_gpu = words.model(offer, "cpu"), words.model(offer, "cuda")
    entry = zoo.ZOO.get(name)
    assert ("Licence" in on_cpu or "licence" in on_cpu) is (entry is not None)
    assert ("without a GPU" in on_cpu) is (name != "")
    assert "without a GPU" not in on_gpu
    if entry is not None:
        assert entry.terms.citation.splitlines()[0] in on_cpu
        assert ("AP 0.571" in on_cpu) is (name == "ovis_vitl_refiner")
    assert all(category.replace("_", " ") in words.about(offer, "cpu") for category in offer.categories)


def test_larger_models_are_told_to_be_slower(models: Models):
    r50, swin, vit = (models.offer(f"ovis_{name}_tracker") for name in ("r50", "swinl", "vitl"))
    assert models.offer("tiny").seconds < 0.5 < r50.seconds < swin.seconds < vit.seconds
    assert models.offer("vipseg_vitl_tracker").seconds > 2 * vit.seconds  # larger pictures
    assert not models.offer("tiny").slow
    assert swin.slow


@pytest.mark.parametrize("name", ["ovis_r50_tracker", "mask2former_swin_tiny_coco", "mask2former_swin_base_coco"])
def test_the_size_told_is_that_of_the_weights(name: str):
    entry = zoo.ZOO[name]
    shapes = model_shapes(presets.get_preset(entry.preset).model, entry.stage)
    count = 0
    for shape in shapes.values():
        product = 1
        for side in shape:
            product *= side
        count += product
    assert published_offer(entry).megabytes == zoo.WEIGHTS[entry.backbone] == pytest.approx(4 * count / 1e6, rel=0.15)


def test_a_model_is_loaded_once_and_only_the_last_one_is_kept(ready: ReadyModel, monkeypatch):
    put(monkeypatch, "nano_one")
    put(monkeypatch, "nano_two")
    asked = []

    def load(name: str, device: str) -> ReadyModel:
        asked.append(name)
        return ready

    models = Models(ready, load=load)
    for name in ("nano_one", "nano_one", "", "nano", "nano_two", "nano_two", "nano_one"):
        assert models.get(name).name == (name or "nano")
    assert asked == ["nano_one", "nano_two", "nano_one"]


def test_a_model_that_is_damaged_is_answered_with_a_sentence(ready: ReadyModel, monkeypatch, cache: Path):
    put(monkeypatch, "nano_one")
    (cache / "nano_one.safetensors").write_bytes(b"nothing")
    with pytest.raises(
        ModelError, match=r"The model “nano_one” cannot be loaded; please choose another one\."
    ) as caught:
        Models(ready).get("nano_one")
    assert str(cache) not in str(caught.value)


@pytest.mark.parametrize("name", ["enormous", "../../etc/passwd", "/etc/passwd", "tests/nano.py"])
def test_only_names_of_the_list_are_models(models: Models, name: str):
    with pytest.raises(ModelError, match="no such model"):
        models.get(name)


def test_large_models_take_frame_after_frame(ready: ReadyModel, monkeypatch):
    monkeypatch.setattr("cavis.demo.models.first_guess", lambda *_: 20.0)
    slow = Models(ready).first
    assert slow.predictor.window == 1
    assert slow.pace.estimate(1, ("tracking",)) == 20.0
    monkeypatch.undo()
    assert Models(ready).first.predictor.window == ready.inference.window


@pytest.mark.parametrize("kind", ["panoptic", "refiner"])
def test_models_of_every_task_and_stage_are_tracked_with(
    ready: ReadyModel, limits: DemoLimits, uploaded, monkeypatch, kind: str
):
    preset, stage = (panoptic_preset(), "tracker") if kind == "panoptic" else (nano_preset(), "refiner")
    put(monkeypatch, "nano_other", preset, stage)
    models = Models(ready)
    job: Job = uploaded()
    job.model = "nano_other"
    list(Tracker(models, limits).track(job, Part(0.0, 0.4, 1), View(min_score=0.0)))
    assert job.result.model == "nano_other"
    predictor = models.get("nano_other").predictor
    assert isinstance(predictor, OfflinePredictor) is (kind == "refiner")
    alone = predictor.run(open_video(job.clip))
    assert [track.masks for track in job.result.tracks] == [track.masks for track in alone.tracks]
    assert len(alone.tracks) > 0


def test_a_download_makes_a_model_that_runs(models: Models, behaviour: Behaviour):
    assert not models.offer("nano_tracker").here
    with pytest.raises(ModelError, match="download it first"):
        models.get("nano_tracker")
    states = list(models.fetch("nano_tracker", interval=0.001))
    assert all(state.total in (None, len(behaviour.body)) for state in states)
    assert models.offer("nano_tracker").here
    assert models.get("nano_tracker").ready.about.name == "nano_tracker"
    asked = len(behaviour.asked)
    assert list(models.fetch("nano_tracker")) == []
    assert len(behaviour.asked) == asked


def test_two_who_ask_at_once_watch_one_download(models: Models, behaviour: Behaviour):
    visitors = [threading.Thread(target=lambda: list(models.fetch("nano_tracker"))) for _ in range(2)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(30)
    assert models.offer("nano_tracker").here
    assert behaviour.sent == len(behaviour.body)


@pytest.mark.parametrize("fault", ["nobody", "page", "missing", "something else"])
def test_a_download_that_fails_is_one_sentence_and_leaves_nothing(
    models: Models, behaviour: Behaviour, cache: Path, monkeypatch, desk, fault: str
):
    body, kind = behaviour.body, behaviour.content_type
    if fault == "nobody":
        monkeypatch.setitem(zoo.ZOO, "nano_tracker", entry_at(nobody_listens()))
    elif fault == "page":
        behaviour.body, behaviour.content_type = QUOTA_PAGE, "text/html"
    elif fault == "missing":
        behaviour.status = 404
    else:
        behaviour.body = b"certainly no weights" * 99
    *_, last = desk[1].fetch("nano_tracker")
    note = last["download_note"]
    assert 'role="alert"' in note
    assert "import-weights" not in note
    words_of = {"nobody": "cannot be reached", "page": "browser", "missing": "404", "something else": "not the model"}
    assert words_of[fault] in note
    assert not last["stop_download"]["visible"]
    assert last["model"]["interactive"]
    assert not models.offer("nano_tracker").here
    assert leftovers(cache) == []
    if fault != "nobody":
        behaviour.body, behaviour.content_type, behaviour.status = body, kind, 200
        *_, last = desk[1].fetch("nano_tracker")
        assert last["download_note"] == ""
        assert models.offer("nano_tracker").here


def test_a_download_can_be_stopped_and_begun_again(models: Models, desk, monkeypatch):
    begun, real = threading.Event(), zoo.get

    def slow(entry, progress):
        progress(1, 10)
        begun.set()
        for _ in range(3000):
            time.sleep(0.005)
            progress(2, 10)
        raise AssertionError("it was not stopped")

    monkeypatch.setattr(zoo, "get", slow)
    updates = desk[1].fetch("nano_tracker")
    assert next(updates)["stop_download"]["visible"]
    assert "Downloading" in next(updates)["download_note"]
    assert begun.wait(20)
    desk[1].stop("nano_tracker")
    *_, last = updates
    assert "Stopped" in last["download_note"]
    monkeypatch.setattr(zoo, "get", real)
    *_, last = desk[1].fetch("nano_tracker")
    assert last["download_note"] == ""
    assert last["model"]["value"] == "nano_tracker"
    assert models.offer("nano_tracker").here


def test_a_stopped_download_does_not_go_on(models: Models, monkeypatch):
    stopped = threading.Event()

    def slow(entry, progress):
        try:
            while True:
                time.sleep(0.002)
                progress(0, None)
        finally:
            stopped.set()

    monkeypatch.setattr(zoo, "get", slow)
    updates = models.fetch("nano_tracker", interval=0.01)
    next(updates)
    models.stop("nano_tracker")
    with pytest.raises(Cancelled):
        list(updates)
    assert stopped.is_set()


def test_another_model_is_told_about_and_used_for_the_clip_there_is(desk, store: JobStore, clip: Path, tmp_path: Path):
    handlers, chooser = desk
    (tmp_path / "holiday.mp4").write_bytes(clip.read_bytes())
    key = handlers.choose_upload(str(tmp_path / "holiday.mp4"), "", VISITOR)["job"]
    updates = chooser.choose("mask2former_swin_tiny_coco", key, 0.0, 1.0, 1)
    assert updates["download"]["visible"]
    assert not updates["track"]["interactive"]
    assert "download it first" in updates["part_note"]
    assert "COCO" in updates["model_note"]
    assert "real clips" not in updates["choose_note"]
    assert "traffic light" in updates["about"]
    refused = list(handlers.track(key, 0.0, 1.0, 1, 0.0, []))
    assert "download it first" in refused[-1]["run_note"]
    updates = chooser.choose("tiny", key, 0.0, 1.0, 1)
    assert not updates["download"]["visible"]
    assert updates["track"]["interactive"]
    assert store.get(key).model == "tiny"
    assert "Expect little of “tiny” on real clips." in updates["choose_note"]
    *_, last = handlers.track(key, 0.0, 0.3, 1, 0.0, [])
    assert last["result_box"]["visible"]
    assert store.get(key).result.model == "tiny"


def test_a_model_is_told_about_before_there_is_a_clip(desk):
    updates = desk[1].choose("ovis_r50_tracker", None, 0.0, 1.0, 1)
    assert "not on this computer yet" in updates["model_note"]
    assert "track" not in updates


def test_a_run_that_would_take_too_long_is_warned_of(ready, store: JobStore, clip: Path, tmp_path: Path):
    handlers = Handlers(Tracker(Models(ready), DemoLimits(seconds=0.001)), store, Shelf(), PARTS)
    (tmp_path / "holiday.mp4").write_bytes(clip.read_bytes())
    updates = handlers.choose_upload(str(tmp_path / "holiday.mp4"), "", VISITOR)
    assert "choose a shorter part" in updates["part_note"]


@pytest.mark.parametrize(
    ("host", "allowed"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.7", False)]
)
def test_models_are_fetched_onto_ones_own_computer_only(host: str, allowed: bool):
    assert DemoLimits.for_host(host).downloads is allowed
