"""`cavis zoo`, `cavis zoo get` and `cavis import-weights`, as a user types them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_weights import released_file
from nano import nano_preset
from PIL import Image
from weight_server import Behaviour, nobody_listens, serving

from cavis import presets
from cavis.checkpoints import download, zoo
from cavis.checkpoints.download import Url
from cavis.checkpoints.files import read_model_file


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setitem(presets.PRESETS, "nano", nano_preset)
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setenv("CAVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def publish(monkeypatch):
    """Put a nano model into the zoo that comes from an address."""

    def add(address):
        entry = replace(
            zoo.find("ovis_r50_tracker"), name="nano_tracker", preset="nano", source=Url(f"{address}/w.pth")
        )
        monkeypatch.setitem(zoo.ZOO, entry.name, entry)

    return add


def test_the_list_names_all_with_the_papers_numbers_and_needs_no_torch():
    program = (
        "import sys; sys.argv = ['cavis', 'zoo']\n"
        "from cavis import cli\n"
        "try: cli.main()\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[-1] == ["False"]
    rows = {line[0]: line[1:] for line in lines if line and line[0] in zoo.ZOO}
    assert rows.keys() == zoo.ZOO.keys()
    assert rows["ovis_r50_tracker"] == ["ovis", "r50", "tracker", "0.376", "Drive"]
    assert rows["vipseg_vitl_refiner"] == ["vipseg", "vitl", "refiner", "0.585", "0.561", "Drive"]


def test_a_model_of_the_zoo_is_fetched_imported_and_credited(cavis, publish, cache):
    with serving(Behaviour(released_file(seed=4))) as address:
        publish(address)
        code, out, err = cavis("zoo", "get", "nano-tracker")
    assert code == 0, err
    assert str(cache / "nano_tracker.safetensors") in out
    assert out.index("licence: ") < out.index("@misc{lee2024cavis") < out.index("nano_tracker -> ")
    assert read_model_file(cache / "nano_tracker.safetensors")[0].preset == "nano"
    code, out, _ = cavis("zoo")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("nano_tracker")] == ["*"]


def test_terms_are_told_before_anything_is_fetched(cavis, publish, tmp_path):
    """Whoever does not agree has downloaded nothing yet."""
    publish(nobody_listens())
    (tmp_path / "clip").mkdir()
    Image.new("RGB", (96, 64)).save(tmp_path / "clip" / "0.png")
    for command in (
        ("zoo", "get", "nano_tracker"),
        ("track", tmp_path / "clip", "--model", "nano-tracker", "--out", tmp_path / "out"),
        ("train", "--data", "twins", "--from", "nano-tracker", "--out", tmp_path / "mine"),
    ):
        code, out, err = cavis(*command)
        assert code == 1
        assert "cannot be reached" in err
        assert "licence: The authors' repository" in out
        assert "@misc{lee2024cavis" in out


def test_a_model_of_the_zoo_is_shown_before_and_after_it_was_fetched(cavis, publish, cache):
    body = released_file(seed=4)
    with serving(Behaviour(body)) as address:
        publish(address)
        code, before, _ = cavis("zoo", "show", "nano-tracker")
        assert code == 0
        cavis("zoo", "get", "nano-tracker")
        _, after, _ = cavis("zoo", "show", "nano-tracker")
        for card in (before, after):
            assert f"address: {address}/w.pth" in card
            assert "AP 0.376" in card
            assert "licence: " in card
            assert "@misc{lee2024cavis" in card
    assert "cached: no; cavis zoo get nano_tracker fetches it" in before
    assert f"cached: {cache / 'nano_tracker.safetensors'}" in after
    assert "size: about 200 MB of weights" in before
    assert f"{len(body):,} bytes came" in after


def test_a_name_that_is_not_in_the_zoo_is_answered_with_the_nearest(cavis):
    code, _, err = cavis("zoo", "get", "ovis_r50_trakcer")
    assert code == 2
    assert "ovis_r50_tracker" in err
    assert err.count("\n") == 1


def test_without_a_network_the_way_by_hand_is_told(cavis, publish, cache):
    publish(nobody_listens())
    code, _, err = cavis("zoo", "get", "nano_tracker")
    assert code == 1
    sentence = err.splitlines()[-1]
    assert sentence.startswith("cavis: failed: could not fetch http://127.0.0.1")
    assert "cannot be reached" in sentence
    assert "cavis import-weights FILE --preset nano --stage tracker" in sentence
    assert not (cache / "nano_tracker.safetensors").exists()


def test_a_foreign_file_is_imported_with_a_report_and_replaced_only_when_asked(cavis, tmp_path):
    (tmp_path / "theirs.pth").write_bytes(released_file(seed=4))
    out = tmp_path / "ours.safetensors"
    command = ("import-weights", tmp_path / "theirs.pth", "--preset", "nano", "--stage", "tracker", "--out", out)
    code, report, err = cavis(*command)
    assert code == 0, err
    assert "laplacian" in report
    assert str(out) in report
    assert read_model_file(out)[0].stage == "tracker"
    out.write_text("precious")
    code, _, err = cavis(*command)
    assert code == 2
    assert "--overwrite" in err
    assert out.read_text() == "precious"
    assert cavis(*command, "--overwrite")[0] == 0
    assert read_model_file(out)[0].preset == "nano"


def test_every_entry_is_listed_in_a_file_when_asked(cavis, tmp_path):
    (tmp_path / "theirs.pth").write_bytes(released_file(seed=4))
    command = ("import-weights", tmp_path / "theirs.pth", "--preset", "nano", "--stage", "tracker")
    report = tmp_path / "reports" / "nano.txt"
    code, out, err = cavis(*command, "--out", tmp_path / "ours.safetensors", "--report", report)
    assert code == 0, err
    text = report.read_text()
    assert "used tracker.ctx_query_embed.bias -> tracker.fusion.bias\n" in text
    assert set(out.splitlines()) <= set(text.splitlines())
    assert "used tracker" not in out


@pytest.mark.parametrize("place", ["", "file/ours.safetensors"], ids=["a folder", "below a file"])
def test_a_place_where_nothing_can_be_written_is_told_before_anything_is_read(cavis, tmp_path, place):
    (tmp_path / "file").touch()
    command = ("import-weights", tmp_path / "none.pth", "--preset", "nano", "--stage", "tracker", "--overwrite")
    code, _, err = cavis(*command, "--out", tmp_path / place)
    assert code == 2
    assert "expected a f" in err
    assert "none.pth" not in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--preset": "zzzz"}, "expected a preset such as tiny, ovis_r50, ytvis19_swinl, vipseg_vitl, coco_r50; got"),
        ({"--preset": "nanoo"}, "expected a preset such as nano"),
        ({"--stage": "offline"}, "segmenter, tracker, refiner, got 'offline'"),
        ({"file": "bomb"}, "which weights do not need"),
        ({"file": "missing"}, "found none"),
    ],
    ids=["no preset", "preset", "stage", "bomb", "missing"],
)
def test_what_cannot_be_imported_is_told_in_a_sentence_and_leaves_nothing(cavis, tmp_path, change, words):
    torch.save({"model": {"a": torch.zeros(1)}, "extra": Path(tmp_path).touch}, tmp_path / "bomb.pth")
    (tmp_path / "good.pth").write_bytes(released_file(seed=4))
    options = {"--preset": "nano", "--stage": "tracker", "--out": tmp_path / "out" / "ours.safetensors"} | change
    file = tmp_path / f"{options.pop('file', 'good')}.pth"
    code, out, err = cavis("import-weights", file, *(part for pair in options.items() for part in pair))
    assert code == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
