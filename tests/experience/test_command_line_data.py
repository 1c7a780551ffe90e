"""A data set of one's own, from the check to a model, as a user types it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cavis import rle
from cavis.categories import COCO, LITE
from cavis.checkpoints.files import read_model_file
from cavis.data.synthetic import TwinsConfig, synthesize
from cavis.data.ytvis_json import open_ytvis


def cavis(*arguments):
    command = [sys.executable, "-m", "cavis", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def check(path):
    return cavis("data", "check", path)


@pytest.fixture
def clips(tmp_path):
    synthesize(tmp_path / "clips", clips=2, seed=1, config=TwinsConfig(frames=3))
    return tmp_path / "clips"


def test_a_sound_data_set_is_counted_and_passes(clips):
    done = check(clips)
    assert done.returncode == 0, done.stderr
    assert "ytvis, 2 videos, 6 frames" in done.stdout
    assert done.stdout.splitlines()[-1] == "faults: 0; oddities that do no harm: 0"


def test_every_fault_is_named_and_fails(clips):
    content = json.loads((clips / "annotations.json").read_text())
    content["annotations"][0]["category_id"] = 999
    (clips / "annotations.json").write_text(json.dumps(content))
    (clips / "JPEGImages" / content["videos"][1]["file_names"][2]).unlink()
    done = check(clips)
    assert done.returncode == 1
    faults = [line for line in done.stdout.splitlines() if line.startswith("fault: ")]
    assert len(faults) == 2
    assert "999" in faults[0]
    assert content["videos"][1]["file_names"][2] in faults[1]


def test_what_is_no_data_set_is_said(tmp_path):
    done = check(tmp_path)
    assert done.returncode == 1
    assert "no data set" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_one_command_teaches_a_model_the_categories_of_a_folder_of_clips(tmp_path):
    synthesize(tmp_path / "clips", clips=2, seed=1, config=TwinsConfig(frames=3, height=64, width=96))
    content = (tmp_path / "clips" / "annotations.json").read_text()
    (tmp_path / "clips" / "annotations.json").write_text(content.replace('"airplane"', '"glider"'))
    train = ("train", "--data", tmp_path / "clips", "--from", "tiny", "--steps", 1, "--out", tmp_path / "mine")
    done = cavis(*train)
    assert done.returncode == 0, done.stderr
    again = cavis(*train)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    assert cavis(*train, "--resume").returncode == 0
    model = tmp_path / "mine" / "tracker" / "model.safetensors"
    assert read_model_file(model)[0].config.categories[0] == "glider"
    scores = cavis("evaluate", tmp_path / "clips", "--model", model, "--out", tmp_path / "scores")
    assert scores.returncode == 0, scores.stderr
    assert "glider" in (tmp_path / "scores" / "categories.csv").read_text()
    assert "left out" not in scores.stdout


def write_pictures(root):
    """Two pictures in COCO's form: a cat where nobody looked for anything else, and a kite."""
    (root / "images").mkdir(parents=True)
    mask = np.zeros((48, 64), dtype=bool)
    mask[10:40, 20:50] = True
    images = [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 64} for i in (1, 2)]
    images[0]["labelled_categories"] = ["cat"]
    for image in images:
        Image.fromarray(np.where(mask[..., None], (200, 90, 20), (30, 60, 90)).astype(np.uint8)).save(
            root / "images" / image["file_name"]
        )
    entry = {"iscrowd": 0, "area": 900, "bbox": [20, 10, 30, 30], "segmentation": rle.to_json(rle.encode(mask))}
    annotations = [entry | {"id": i, "image_id": i, "category_id": i} for i in (1, 2)]
    names = ["cat", "kite", *(name for name in COCO if name not in ("cat", "kite"))]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    return root


def test_lite_is_trained_on_pictures_and_the_twins_world_and_measured_on_pictures(tmp_path):
    album, out = write_pictures(tmp_path / "album"), tmp_path / "run"
    data = ("--data", album, "--data", "twins", "--share", 3, "--share", 1)
    train = ("train", "--preset", "lite", "--stage", "segmenter", *data, "--steps", 1, "--out", out)
    done = cavis(*train, "--precision", "bf16")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 steps" in done.stdout
    evaluate = ("evaluate", album, "--model", out / "model.safetensors", "--top-k", 30 * len(LITE))
    scores = cavis(*evaluate, "--out", tmp_path / "scores")
    assert scores.returncode == 0, scores.stderr
    assert "motorcycle" in scores.stdout
    found = json.loads((tmp_path / "scores" / "results.json").read_text())
    seen = {number: {one["category_id"] for one in found if one["video_id"] == number} for number in (1, 2)}
    assert seen[1] == {1 + LITE.index("cat")}
    assert len(seen[2]) > 1


def test_pictures_are_set_in_motion_under_other_names(tmp_path):
    done = cavis(
        *("data", "animate", write_pictures(tmp_path / "album"), tmp_path / "moving"), "--frames", 3, "--as", "lite"
    )
    assert done.returncode == 0, done.stderr
    assert "2 clips" in done.stdout
    assert "ytvis, 2 videos, 6 frames, 6 categories" in check(tmp_path / "moving").stdout


def test_pictures_in_motion_may_look_as_a_phone_films_and_show_the_same(tmp_path):
    album = write_pictures(tmp_path / "album")
    for name, corruption in (("clean", 0), ("filmed", 1)):
        made = cavis("data", "animate", album, tmp_path / name, "--frames", 2, "--corruption", corruption, "--seed", 4)
        assert made.returncode == 0, made.stderr
    clean, filmed = (open_ytvis(tmp_path / name).clip(0, [0, 1]) for name in ("clean", "filmed"))
    assert filmed.targets.masks.equal(clean.targets.masks)
    assert not filmed.frames.equal(clean.frames)
    wrong = cavis("data", "animate", album, tmp_path / "wrong", "--corruption", 2)
    assert wrong.returncode == 2
    assert not (tmp_path / "wrong").exists()


def test_from_stands_alone(tmp_path):
    done = cavis("train", "--from", "tiny", "--stage", "tracker", "--out", tmp_path / "mine")
    assert done.returncode == 2
    assert "expected --from without --stage" in done.stderr
    assert not (tmp_path / "mine").exists()
