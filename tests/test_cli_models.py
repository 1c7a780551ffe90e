"""Published models and all tasks, as a user types them; nothing comes from the internet."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from foreign_weights import released_file
from nano import CATEGORIES, nano_preset
from PIL import Image
from published import entry_at, panoptic_preset, put_into_cache
from weight_server import Behaviour, nobody_listens, serving

from cavis import cli, presets
from cavis.categories import VIPSEG, VIPSEG_IDS
from cavis.checkpoints import download, zoo
from cavis.checkpoints.hub import load_model
from cavis.config import Preset, Stage
from cavis.data.synthetic import TwinsConfig, synthesize
from cavis.inference.choose import predictor_for, with_task
from cavis.inference.offline import OfflinePredictor
from cavis.video import open_video

FRAMES = 4


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Cavis = Callable[..., Outcome]


@pytest.fixture
def cavis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cavis:
    """Run a command in this process."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["cavis", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        captured = capsys.readouterr()
        code = exit_info.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setitem(presets.PRESETS, "nano", nano_preset)
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setenv("CAVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    """Where the published model ``nano_tracker`` is."""
    behaviour = Behaviour(released_file(seed=4))
    with serving(behaviour) as address:
        monkeypatch.setitem(zoo.ZOO, "nano_tracker", entry_at(address))
        yield behaviour


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Put a published model into the cache; its name."""

    def make(preset: Preset, stage: Stage = "tracker") -> str:
        monkeypatch.setitem(presets.PRESETS, preset.name, lambda: preset)
        entry = replace(entry_at(nobody_listens(), f"{preset.name}_{stage}", stage), preset=preset.name)
        monkeypatch.setitem(zoo.ZOO, entry.name, entry)
        put_into_cache(entry, preset)
        return entry.name

    return make


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One short annotated clip."""
    folder = tmp_path_factory.mktemp("world") / "clips"
    synthesize(folder, clips=1, seed=5, config=TwinsConfig(frames=FRAMES))
    return folder


@pytest.fixture(scope="module")
def clip(world: Path) -> Path:
    """Its frames."""
    return next((world / "JPEGImages").iterdir())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_published_model_is_fetched_when_it_is_first_used(
    cavis: Cavis, server: Behaviour, clip: Path, tmp_path: Path
):
    first = cavis("track", clip, "--model", "nano-tracker", "--out", tmp_path / "first")
    assert first.code == 0, first.err
    assert "nano_tracker" in first.err  # the bar
    assert first.out.count("licence: ") == first.out.count("@misc{lee2024cavis") == 1
    assert "CC BY-NC 4.0" in first.out
    asked = len(server.asked)
    second = cavis("track", clip, "--model", "nano_tracker", "--out", tmp_path / "second")
    assert "licence" not in second.out
    assert len(server.asked) == asked
    for name in ("results.json", "tracks.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    model = load_model("nano_tracker", "cpu")
    result = predictor_for(model).run(open_video(clip))
    rows = list(csv.DictReader((tmp_path / "first" / "tracks.csv").open()))
    assert len(rows) == sum(int(track.visible.sum()) for track in result.tracks) > 0
    assert {row["category"] for row in rows} <= set(CATEGORIES)


@pytest.mark.parametrize("command", ["track", "evaluate"])
def test_offline_a_model_that_is_not_here_is_one_sentence(
    cavis: Cavis, world: Path, clip: Path, tmp_path: Path, cache: Path, monkeypatch, command: str
):
    monkeypatch.setitem(zoo.ZOO, "nano_tracker", entry_at(nobody_listens()))
    outcome = cavis(
        command, clip if command == "track" else world, "--model", "nano_tracker", "--out", tmp_path / "out"
    )
    assert outcome.code == 1
    lines = [line for line in outcome.err.splitlines() if line.startswith("cavis:")]
    assert len(lines) == 1
    assert "cannot be reached" in lines[0]
    assert outcome.out.index("licence: ") < outcome.out.index("@misc{lee2024cavis")  # told before it is fetched
    assert not (tmp_path / "out").exists()
    assert not list(cache.rglob("*.safetensors"))


def test_a_bad_clip_is_refused_before_anything_is_fetched(cavis: Cavis, server: Behaviour, tmp_path: Path):
    outcome = cavis("track", tmp_path / "nothing.mp4", "--model", "nano_tracker", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert server.asked == []


def test_panoptic_pictures_read_back_as_the_segments_found(cavis: Cavis, put, clip: Path, tmp_path: Path):
    name = put(panoptic_preset())
    outcome = cavis("track", clip, "--model", name, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "out"
    assert names_in(folder) == {"tracked.mp4", "results.json", "tracks.csv", "panoptic.json", "panoptic"}
    result = predictor_for(load_model(name, "cpu")).run_panoptic(open_video(clip))
    assert len(result.segments) > 1
    entry = json.loads((folder / "panoptic.json").read_text())["annotations"][0]
    assert names_in(folder / "panoptic") == {frame["file_name"] for frame in entry["annotations"]}
    numbers: dict[int, int] = {}
    for frame, expected in zip(entry["annotations"], result.id_maps(), strict=True):
        ids = picture(folder / "panoptic" / frame["file_name"]).astype(int) @ (1, 256, 65536)
        for info in frame["segments_info"]:
            inside = np.unique(expected[ids == info["id"]])
            assert len(inside) == 1
            number = numbers.setdefault(info["id"], int(inside[0]))
            assert number == inside[0]
            segment = result.segments[number - 1]
            assert info["category_id"] == segment.track.label + 1
        np.testing.assert_array_equal(ids == 0, expected == 0)
    assert sorted(numbers.values()) == sorted(segment.track.id for segment in result.segments)


@pytest.mark.parametrize("classes", ["any", "VIPSeg's"])
def test_semantic_pictures_hold_the_class_of_each_pixel(cavis: Cavis, put, clip: Path, tmp_path: Path, classes: str):
    preset, ids = panoptic_preset(), np.arange(3)
    if classes == "VIPSeg's":
        preset = replace(preset, model=replace(preset.model, categories=VIPSEG, stuff=66))
        ids = np.array(VIPSEG_IDS)
    name = put(preset)
    outcome = cavis("track", clip, "--model", name, "--task", "semantic", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert names_in(tmp_path / "out") == {"tracked.mp4", "results.json", "tracks.csv", "semantic"}
    result = predictor_for(load_model(name, "cpu")).run_semantic(open_video(clip))
    assert len(names_in(tmp_path / "out" / "semantic")) == FRAMES
    for t, expected in enumerate(result.class_maps()):
        np.testing.assert_array_equal(picture(tmp_path / "out" / "semantic" / f"{t:05d}.png"), ids[expected])


def test_a_panoptic_model_finds_instances_when_asked(cavis: Cavis, put, clip: Path, tmp_path: Path):
    name = put(panoptic_preset())
    assert cavis("track", clip, "--model", name, "--task", "instance", "--out", tmp_path / "out").code == 0
    assert names_in(tmp_path / "out") == {"tracked.mp4", "results.json", "tracks.csv"}
    result = predictor_for(load_model(name, "cpu")).run_instances(open_video(clip))
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    best = [score for _, _, score in result.predictions(4)]
    assert [entry["score"] for entry in found] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("task", "words"), [("panoptic", "knows things only"), ("semantic", "knows things only"), ("x", "own, instance")]
)
def test_a_task_a_model_cannot_do_is_refused_and_leaves_nothing(
    cavis: Cavis, clip: Path, tmp_path: Path, task: str, words: str
):
    outcome = cavis("track", clip, "--task", task, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert words in outcome.err
    assert not (tmp_path / "out").exists()


def test_pictures_are_replaced_only_when_asked_and_all_of_them(cavis: Cavis, put, clip: Path, tmp_path: Path):
    name = put(panoptic_preset())
    old = tmp_path / "out" / "panoptic" / "00099.png"
    old.parent.mkdir(parents=True)
    old.write_text("precious")
    outcome = cavis("track", clip, "--model", name, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "already holds panoptic" in outcome.err
    assert old.read_text() == "precious"
    assert cavis("track", clip, "--model", name, "--out", tmp_path / "out", "--overwrite").code == 0
    assert len(names_in(old.parent)) == FRAMES
    assert not old.exists()


def test_a_track_that_fails_takes_its_pictures_with_it(cavis: Cavis, put, clip: Path, tmp_path: Path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("cavis.inference.clip_files.write_film", fail)
    outcome = cavis("track", clip, "--model", put(panoptic_preset()), "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "no space left" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_model_with_a_refiner_is_run_offline(cavis: Cavis, put, clip: Path, world: Path, tmp_path: Path):
    name = put(nano_preset(), "refiner")
    predictor = predictor_for(load_model(name, "cpu"), top_k=3)
    assert isinstance(predictor, OfflinePredictor)
    assert cavis("track", clip, "--model", name, "--top-k", 3, "--out", tmp_path / "out").code == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    best = [score for _, _, score in predictor.run(open_video(clip)).predictions(3)]
    assert [entry["score"] for entry in found] == pytest.approx(best, abs=1e-6)


def test_evaluation_takes_published_models_of_the_instance_task_only(
    cavis: Cavis, put, world: Path, tmp_path: Path, monkeypatch
):
    named = replace(nano_preset().model, categories=("bear", "person", "tiger"))
    outcome = cavis(
        "evaluate",
        world,
        "--model",
        put(replace(nano_preset(), name="nano_bears", model=named)),
        "--out",
        tmp_path / "a",
    )
    assert outcome.code == 0, outcome.err
    assert "AP" in json.loads((tmp_path / "a" / "metrics.json").read_text())
    outcome = cavis("evaluate", world, "--model", put(panoptic_preset()), "--out", tmp_path / "b")
    assert outcome.code == 2
    assert "instance task" in outcome.err
    assert not (tmp_path / "b").exists()


def test_another_task_leaves_the_model_as_it_is(put):
    ready = load_model(put(panoptic_preset()), "cpu")
    assert with_task(ready, "own") is ready
    other = with_task(ready, "semantic")
    assert other.model is ready.model
    assert (other.inference.task, ready.inference.task) == ("semantic", "panoptic")
