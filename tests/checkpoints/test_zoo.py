"""Published checkpoints: the table, and the way from a server to a model that runs."""

import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from foreign_weights import released_file
from nano import images, nano_model, nano_preset
from weight_server import QUOTA_PAGE, Behaviour, serving

from cavis import presets
from cavis.checkpoints import download, zoo
from cavis.checkpoints.download import DownloadError, Drive, Hub, Url, read_record
from cavis.checkpoints.files import CheckpointError
from cavis.checkpoints.hub import load_model
from cavis.checkpoints.importing import import_checkpoint
from cavis.checkpoints.zoo import ZOO, UnknownModelError, cache_folder, find, get, is_cached
from cavis.config import STAGES

RELEASED = [entry for entry in ZOO.values() if isinstance(entry.source, Drive)]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setitem(presets.PRESETS, "nano", nano_preset)
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setenv("CAVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published():
    """A checkpoint of the nano model on a server, and its entry."""
    behaviour = Behaviour(released_file(seed=4))
    with serving(behaviour) as address:
        source = Url(f"{address}/model_final.pth")
        entry = replace(find("ovis_r50_tracker"), name="nano_tracker", preset="nano", source=source)
        yield behaviour, entry


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def same_outputs(path, seed):
    frames = images(1, 2)
    with torch.no_grad():
        left, right = (model(frames)[0] for model in (load_model(str(path), "cpu").model, nano_model(seed)))
    torch.testing.assert_close(left.mask_logits, right.mask_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(left.class_logits, right.class_logits, atol=1e-4, rtol=1e-4)


def test_all_released_checkpoints_are_there_under_names_that_say_what_they_are():
    assert len(RELEASED) == 27
    assert {stage: sum(entry.stage == stage for entry in RELEASED) for stage in STAGES} == {
        "segmenter": 11,
        "tracker": 11,
        "refiner": 5,
    }
    for entry in RELEASED:
        assert entry.name == f"{entry.preset}_{entry.stage}" == f"{entry.data}_{entry.backbone}_{entry.stage}"
    assert len({entry.source for entry in ZOO.values()}) == len(ZOO)


def test_every_preset_of_the_paper_has_its_checkpoints():
    named = {f"{data}_{backbone}" for data in presets.DATA_SETS for backbone in presets.BACKBONES}
    for stage in ("segmenter", "tracker"):
        assert {entry.preset for entry in RELEASED if entry.stage == stage} == named & presets.PRESETS.keys()
    assert {entry.preset for entry in ZOO.values()} <= presets.PRESETS.keys()


def test_later_stages_and_larger_backbones_are_better_as_in_the_paper():
    """Catches numbers in a wrong row: no table of the paper breaks this order."""
    score = {entry.name: entry.paper.ap or entry.paper.vpq for entry in RELEASED if entry.stage != "segmenter"}
    assert all(value is not None and 0.3 < value < 0.7 for value in score.values())
    for data in presets.DATA_SETS:
        backbones = [name for name in ("r50", "swinl", "vitl") if f"{data}_{name}_tracker" in score]
        online = [score[f"{data}_{name}_tracker"] for name in backbones]
        assert online == sorted(online)
        for name in backbones:
            assert score.get(f"{data}_{name}_refiner", 1) > score[f"{data}_{name}_tracker"]
    for entry in RELEASED:
        panoptic = entry.data == "vipseg" and entry.stage != "segmenter"
        assert (entry.paper.vpq is not None) is (entry.paper.stq is not None) is panoptic


def test_every_entry_says_what_to_cite_and_what_is_known_of_its_licence():
    for entry in ZOO.values():
        assert re.match(r"@\w+\{\w+,\n", entry.terms.citation), entry.name
        assert entry.terms.citation.count("{") == entry.terms.citation.count("}"), entry.name
        assert len(entry.terms.licence) > 40
    for name in ("coco_r50", "mask2former_swin_tiny_coco", "ovis_r50_tracker", "ytvis19_swinl_segmenter"):
        assert "CC BY-NC 4.0" in find(name).terms.licence
    assert "not known" in find("ovis_vitl_tracker").terms.licence


def test_names_may_be_written_with_hyphens():
    for name, entry in ZOO.items():
        assert find(name) is find(name.replace("_", "-")) is entry
    assert isinstance(find("mask2former-swin-tiny-coco").source, Hub)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ovis_r50_traker", "such as ovis_r50_tracker, .*; got 'ovis_r50_traker'"),
        ("ovis_r50", "such as ovis_r50_"),
        ("mask2former", "such as mask2former_swin_"),
        ("ovis", "such as ovis_"),
        ("zzz", "expected a name that `cavis zoo` lists; got 'zzz'"),
        ("nonsense", "expected a name that `cavis zoo` lists; got 'nonsense'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, words):
    with pytest.raises(UnknownModelError, match=words):
        find(name)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("CAVIS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "cavis"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "cavis"


def test_a_published_checkpoint_becomes_the_model_it_was_made_of(published, cache):
    behaviour, entry = published
    seen = []
    assert not is_cached(entry)
    path = get(entry, lambda done, total: seen.append((done, total)))
    assert path == cache / "nano_tracker.safetensors"
    assert is_cached(entry)
    same_outputs(path, seed=4)
    assert seen[-1] == (len(behaviour.body), len(behaviour.body))
    assert files(cache) == ["downloads/nano_tracker.json", "nano_tracker.safetensors"]
    assert entry.row()[-2:] == ("web", "*")


def test_what_is_cached_needs_no_server(published):
    behaviour, entry = published
    path = get(entry)
    asked = len(behaviour.asked)
    behaviour.status = 500
    assert get(entry) == path
    assert len(behaviour.asked) == asked


def test_the_download_is_kept_when_asked(published, cache):
    behaviour, entry = published
    get(entry, keep=True)
    assert (cache / "downloads" / "nano_tracker.pth").read_bytes() == behaviour.body


def test_an_interrupted_download_goes_on(published, cache):
    behaviour, entry = published
    whole, behaviour.cut = len(behaviour.body), 2**20
    with pytest.raises(DownloadError, match="bytes are kept"):
        get(entry)
    assert not is_cached(entry)
    (part,) = (cache / "downloads").glob("*.part")
    kept = part.stat().st_size
    assert 0 < kept < whole
    behaviour.cut = None
    same_outputs(get(entry), seed=4)
    assert behaviour.asked[-1][1] == f"bytes={kept}-"
    assert files(cache) == ["downloads/nano_tracker.json", "nano_tracker.safetensors"]


@pytest.mark.parametrize("change", ["other weights", "other size"])
def test_another_file_than_the_first_time_is_refused(published, cache, change):
    behaviour, entry = published
    path = get(entry)
    record = cache / "downloads" / "nano_tracker.json"
    first, body = read_record(record), behaviour.body
    path.unlink()
    behaviour.body = released_file(seed=5) if change == "other weights" else released_file(seed=4) + b"\0"
    with pytest.raises(DownloadError) as caught:
        get(entry)
    assert str(record) in str(caught.value)
    assert files(cache) == ["downloads/nano_tracker.json"]
    assert read_record(record) == first
    behaviour.body = body
    same_outputs(get(entry), seed=4)


def test_after_its_record_is_removed_a_new_version_is_accepted(published, cache):
    behaviour, entry = published
    get(entry).unlink()
    (cache / "downloads" / "nano_tracker.json").unlink()
    behaviour.body = released_file(seed=5)
    same_outputs(get(entry), seed=5)


def test_a_download_that_is_no_checkpoint_is_kept_but_not_remembered(published, cache):
    behaviour, entry = published
    good, behaviour.body = behaviour.body, b"\x80\x02 something else"
    with pytest.raises(CheckpointError) as caught:
        get(entry)
    raw = cache / "downloads" / "nano_tracker.pth"
    assert str(raw) in str(caught.value)
    assert files(cache) == ["downloads/nano_tracker.pth"]
    behaviour.body = good
    raw.unlink()
    same_outputs(get(entry), seed=4)


@pytest.mark.parametrize("fault", ["quota", "gone"])
def test_a_failure_says_how_to_bring_the_file_by_hand_and_that_works(published, tmp_path, fault):
    behaviour, entry = published
    (tmp_path / "mine.pth").write_bytes(behaviour.body)
    if fault == "quota":
        behaviour.body = QUOTA_PAGE
    else:
        behaviour.status = 404
    with pytest.raises(DownloadError) as caught:
        get(entry)
    assert "\n" not in str(caught.value)
    assert entry.source.address in str(caught.value)
    command = shlex.split(re.search("`(cavis import-weights .*)`", str(caught.value))[1])
    options = dict(zip(command[3::2], command[4::2], strict=True))
    import_checkpoint(tmp_path / "mine.pth", options["--preset"], options["--stage"], zoo.cached_path(entry))
    assert options["--out"] == str(zoo.cached_path(entry))
    same_outputs(get(entry), seed=4)


def test_two_who_ask_at_once_get_one_download(published):
    behaviour, entry = published
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: get(entry), range(4)))
    assert paths == {zoo.cached_path(entry)}
    assert len(behaviour.asked) == 1
    same_outputs(paths.pop(), seed=4)


def test_a_cached_name_loads_by_its_name(published, monkeypatch):
    _, entry = published
    monkeypatch.setattr(zoo, "ZOO", {**ZOO, entry.name: entry})
    get(entry)
    assert load_model("nano-tracker", "cpu").about.name == "nano_tracker"
