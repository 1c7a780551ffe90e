"""`cavis evaluate` as a user types it, with the nano model: resumed, shared among processes, on each kind of data."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from nano import CATEGORIES, HEIGHT, WIDTH, nano_model, nano_preset, squares
from PIL import Image
from published import panoptic_preset

from cavis import presets, rle
from cavis.checkpoints.files import ModelFile, save_model
from cavis.evaluation.shards import ResultFolder
from cavis.evaluation.video_panoptic_quality import WINDOWS

VIDEOS, FRAMES = 5, 2
PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from nano import nano_preset
from cavis import cli, presets
from cavis.evaluation.shards import ResultFolder
presets.PRESETS["nano"] = nano_preset
put, pause = ResultFolder.put, float(sys.argv.pop(1))
ResultFolder.put = lambda self, *found: (put(self, *found), time.sleep(pause))
cli.main()
"""


@pytest.fixture(autouse=True)
def nano(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "nano", nano_preset)
    monkeypatch.setitem(presets.PRESETS, "nano_panoptic", panoptic_preset)


def save_nano(path, preset, seed=0):
    model = nano_model(seed)
    for name, module in model.named_modules():
        if name.endswith("class_head"):  # so that it is sure that it sees something
            torch.nn.init.normal_(module.weight)
            module.bias.data[-1] = -9.0
    save_model(path, model, ModelFile(path.stem, preset.name, preset.model, "tracker", ""))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("model") / "nano.safetensors", nano_preset())


@pytest.fixture(scope="module")
def panoptic_model(tmp_path_factory):
    preset = panoptic_preset()
    return save_nano(tmp_path_factory.mktemp("model") / "divider.safetensors", preset)


def save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


@pytest.fixture(scope="module")
def instances(tmp_path_factory):
    """Squares in the form of YouTube-VIS."""
    root = tmp_path_factory.mktemp("data") / "squares"
    videos, annotations = [], []
    for number in range(1, VIDEOS + 1):
        clip = squares(number, FRAMES)
        names = [f"v{number}/{t}.png" for t in range(FRAMES)]
        for name, picture in zip(names, clip.frames.permute(0, 2, 3, 1).numpy(), strict=True):
            save(picture, root / "JPEGImages" / name)
        videos.append({"id": number, "file_names": names, "height": HEIGHT, "width": WIDTH, "length": FRAMES})
        for label, masks in zip(clip.targets.labels.tolist(), clip.targets.masks.numpy(), strict=True):
            packed = [rle.encode(mask) for mask in masks]
            entry = {"id": len(annotations) + 1, "video_id": number, "category_id": label + 1, "iscrowd": 0}
            entry |= {"segmentations": [rle.to_json(one) for one in packed]}
            entry |= {"bboxes": [rle.box(one) for one in packed], "areas": [rle.area(one) for one in packed]}
            annotations.append(entry)
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
    content = {"videos": videos, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    """Two videos in the form of VIPSeg: blue is stuff."""
    root = tmp_path_factory.mktemp("data") / "vipseg"
    videos, annotations = [], []
    for name in ("1_one", "2_two"):
        clip = squares(len(videos), FRAMES)
        images, shown = [], []
        for t, picture in enumerate(clip.frames.permute(0, 2, 3, 1).numpy()):
            save(picture, root / "images" / name / f"{t:05d}.jpg")
            ids = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
            for n, mask in enumerate(clip.targets.masks[:, t].numpy(), start=1):
                ids[mask, 0] = n
            save(ids, root / "panomasksRGB" / name / f"{t:05d}.png")
            labels = clip.targets.labels.tolist()
            infos = [{"id": n, "category_id": label} for n, label in enumerate(labels, start=1) if (ids == n).any()]
            images.append({"id": f"{t:05d}", "file_name": f"{t:05d}.jpg", "height": HEIGHT, "width": WIDTH})
            shown.append({"image_id": f"{t:05d}", "file_name": f"{t:05d}.png", "segments_info": infos})
        videos.append({"video_id": name, "images": images})
        annotations.append({"video_id": name, "annotations": shown})
    categories = [{"id": k, "name": name, "isthing": int(name != "blue")} for k, name in enumerate(CATEGORIES)]
    content = {"videos": videos, "annotations": annotations, "categories": categories}
    (root / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(content))
    return root


def files_of(out):
    return {name: (out / name).read_text() for name in ("metrics.json", "results.json", "categories.csv")}


@pytest.fixture
def whole(cavis, instances, model, tmp_path):
    """What one process makes of the instances."""
    code, _, err = cavis("evaluate", instances, "--model", model, "--out", tmp_path / "whole")
    assert code == 0, err
    return files_of(tmp_path / "whole")


def test_instances_get_numbers_a_report_and_a_table(cavis, instances, model, tmp_path):
    code, out, err = cavis("evaluate", instances, "--model", model, "--out", tmp_path / "out")
    assert code == 0, err
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rest = ["ABO", "recall50", "HOTA", "AssA", "IDF1", "identity_switches"]
    assert list(numbers) == ["AP", "AP50", "AP75", "AR1", "AR10", *rest]
    assert f"HOTA {numbers['HOTA']:.3f}" in out
    assert "<h2>Worst clips</h2>" in (tmp_path / "out" / "report.html").read_text()
    with (tmp_path / "out" / "categories.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(CATEGORIES)


def test_hidden_annotations_leave_only_results(cavis, instances, model, tmp_path):
    content = json.loads((instances / "annotations.json").read_text())
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "JPEGImages").symlink_to(instances / "JPEGImages")
    del content["annotations"]
    (tmp_path / "set" / "annotations.json").write_text(json.dumps(content))
    code, out, err = cavis("evaluate", tmp_path / "set", "--model", model, "--out", tmp_path / "out")
    assert code == 0, err
    assert "results.json is ready for the official server" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "evaluation.json", "videos"}


def test_an_interrupted_evaluation_goes_on_where_it_stopped(cavis, whole, instances, model, tmp_path, monkeypatch):
    put, looked_at = ResultFolder.put, []

    def stop_after_two(self, index, found):
        if len(looked_at) == 2:
            raise KeyboardInterrupt
        looked_at.append(index)
        put(self, index, found)

    command = ("evaluate", instances, "--model", model, "--out", tmp_path / "out")
    monkeypatch.setattr(ResultFolder, "put", stop_after_two)
    assert cavis(*command)[0] == 130
    monkeypatch.setattr(
        ResultFolder, "put", lambda self, index, found: looked_at.append(index) or put(self, index, found)
    )
    assert cavis(*command)[0] == 0
    assert looked_at == list(range(VIDEOS))
    assert files_of(tmp_path / "out") == whole


def test_another_model_needs_leave_to_overwrite(cavis, whole, instances, tmp_path):
    other = save_nano(tmp_path / "other.safetensors", nano_preset(), seed=1)
    command = ("evaluate", instances, "--model", other, "--out", tmp_path / "whole")
    code, _, err = cavis(*command)
    assert code == 2
    assert "an evaluation with another model: nano (" in err
    assert "--overwrite" in err
    assert err.count("\n") == 1
    assert files_of(tmp_path / "whole") == whole
    assert cavis(*command, "--overwrite")[0] == 0
    assert files_of(tmp_path / "whole")["results.json"] != whole["results.json"]


def test_a_file_of_something_else_is_not_replaced_unasked(cavis, instances, model, tmp_path):
    (tmp_path / "results.json").write_text("precious")
    code, _, err = cavis("evaluate", instances, "--model", model, "--out", tmp_path)
    assert (code, "already holds results.json" in err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_two_processes_one_of_them_killed_find_what_one_finds(cavis, whole, instances, model, tmp_path, monkeypatch):
    out = tmp_path / "shared"
    command = ["evaluate", str(instances), "--model", str(model), "--out", str(out)]

    def start(rank, pause):
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"}
        program = [sys.executable, "-c", PROGRAM, str(pause), *command]
        return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    done, killed = start(0, 0.0), start(1, 600.0)
    deadline = time.monotonic() + 120
    while not (out / "videos" / "2.json").exists():
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    told, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    assert "process 0 of 2: its videos are done" in told
    assert {path.stem for path in (out / "videos").glob("*.json")} == {"1", "2", "3", "5"}
    assert not (out / "metrics.json").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "its videos are done" in cavis(*command)[1]  # nothing to do, nothing to measure
    monkeypatch.setenv("RANK", "1")
    assert cavis(*command)[0] == 0
    assert files_of(out) == whole


@pytest.mark.slow
def test_a_process_of_torchrun_that_is_killed_is_made_up_for_by_the_next_run(whole, instances, model, tmp_path):
    out, program = tmp_path / "shared", tmp_path / "program.py"

    def run(text):
        program.write_text(text)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
        command += ["0", "evaluate", str(instances), "--model", str(model), "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)

    dying = "ResultFolder.put = lambda self, *found: (put(self, *found), os.kill(os.getpid(), 9))"
    broken = run(PROGRAM.replace("cli.main()", f"import os\nif os.environ['RANK'] == '1':\n    {dying}\ncli.main()"))
    assert broken.returncode != 0
    assert (out / "videos" / "2.json").exists()
    assert len(list((out / "videos").glob("*.json"))) < VIDEOS
    assert not (out / "metrics.json").exists()
    again = run(PROGRAM)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("its videos are done") == 1  # the other one measured
    assert files_of(out) == whole


def test_segments_are_measured_and_written_as_vipseg_has_them(cavis, segments, panoptic_model, tmp_path):
    out = tmp_path / "out"
    code, told, err = cavis("evaluate", segments, "--model", panoptic_model, "--out", out)
    assert code == 0, err
    numbers = json.loads((out / "metrics.json").read_text())
    assert {"VPQ", "VPQ_things", "VPQ_stuff", "STQ", "AQ", "SQ"} < set(numbers)
    too_long = {f"VPQ{length}" for length in WINDOWS if length > FRAMES}
    assert all(value == -1 if name in too_long else 0 <= value <= 1 for name, value in numbers.items())
    assert f"VPQ {numbers['VPQ']:.3f}" in told
    predicted = json.loads((out / "pred.json").read_text())["annotations"]
    assert [entry["video_id"] for entry in predicted] == ["1_one", "2_two"]
    pictures = sorted(str(path.relative_to(out)) for path in out.glob("pan_pred/*/*.png"))
    assert pictures == [f"pan_pred/{name}/{t:05d}.png" for name in ("1_one", "2_two") for t in range(FRAMES)]


def test_models_and_data_sets_of_different_tasks_are_told_apart(
    cavis, instances, segments, model, panoptic_model, tmp_path
):
    out = tmp_path / "out"
    for data, wrong, needed in ((instances, panoptic_model, "instance"), (segments, model, "panoptic")):
        code, _, err = cavis("evaluate", data, "--model", wrong, "--out", out)
        assert code == 2
        assert f"expected a model of the {needed} task" in err
        assert err.count("\n") == 1
        assert not out.exists()


def test_a_format_that_the_folder_does_not_have_is_refused(cavis, segments, panoptic_model, tmp_path):
    command = ("evaluate", segments, "--model", panoptic_model, "--out", tmp_path / "out")
    code, _, err = cavis(*command, "--format", "ytvis")
    assert code == 2
    assert "'ytvis'" in err
    assert not (tmp_path / "out").exists()
    assert cavis(*command, "--format", "vipseg", "--split", "val")[0] == 0


def test_a_faulty_video_is_left_out_on_request(cavis, instances, model, tmp_path):
    content = json.loads((instances / "annotations.json").read_text())
    content["videos"][1]["file_names"][1] = "v2/nowhere.png"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "JPEGImages").symlink_to(instances / "JPEGImages")
    (tmp_path / "set" / "annotations.json").write_text(json.dumps(content))
    command = ("evaluate", tmp_path / "set", "--model", model, "--out", tmp_path / "out")
    code, _, err = cavis(*command)
    assert code != 0
    assert "nowhere.png" in err
    code, out, err = cavis(*command, "--skip-faulty", "--overwrite")
    assert code == 0, err
    assert "left out as faulty: 1" in out
    assert {one["video_id"] for one in json.loads((tmp_path / "out" / "results.json").read_text())} == {1, 3, 4, 5}
