"""A folder of one's own, pictures alone or clips with faults, becomes a model, measured on what it has not seen."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from nano import nano_config, nano_model

from cavis import cli
from cavis.checkpoints.files import ModelFile, read_model_file, read_training, save_model
from cavis.data.ytvis_json import open_ytvis
from cavis.training.log import read_log

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "data"), str(TESTS / "training")]  # wherever the tests of these folders are not collected

from test_check import many_faults  # noqa: E402
from test_start import album  # noqa: E402
from test_ytvis_json import write  # noqa: E402


@pytest.fixture
def cavis(monkeypatch, capsys):
    """Run a command in this process: (exit code, what it printed)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cavis", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.out + said.err

    return run


@pytest.fixture
def nano(tmp_path):
    """The smallest model, as a file to start from."""
    path = tmp_path / "nano.safetensors"
    save_model(path, nano_model(), ModelFile("nano", "tiny", nano_config(), "tracker", "a test"))
    return path


def measuring(said):
    """The command that is printed to measure with."""
    line = next(line for line in said.splitlines() if "cavis evaluate" in line)
    return shlex.split(line[line.index("cavis evaluate") + len("cavis ") :])


def test_pictures_alone_teach_a_model_that_is_measured_on_those_it_has_not_seen(cavis, nano, tmp_path):
    names = ("kite", "dog", "cup", "tree", "hat")
    data, out = album(tmp_path / "album", names), tmp_path / "mine"
    options = ("--steps", 1, "--hold-out", 0.2, "--precision", "bf16", "--recompute", "--tensorboard")
    code, said = cavis("train", "--data", data, "--from", nano, "--out", out, "--device", "cpu", *options)
    assert code == 0, said
    assert read_model_file(out / "tracker" / "model.safetensors")[0].config.categories == names
    for stage in ("segmenter", "tracker"):
        assert len(read_log(out / stage / "log.jsonl")) == 1
        assert list((out / stage / "tensorboard").glob("events.out.tfevents.*"))
    assert len(open_ytvis(out / "held_out.json")) == 1
    code, said = cavis(*measuring(said))
    assert code == 0, said
    assert json.loads((out / "scores" / "metrics.json").read_text())["AP"] >= -1


def test_clips_frames_rate_and_mean_are_those_of_the_command_in_both_stages(cavis, nano, tmp_path):
    data, out = album(tmp_path / "album", ("kite", "dog", "cup")), tmp_path / "mine"
    wanted = {"clips_per_step": 3, "frames": 2, "learning_rate": 0.003, "ema_decay": 0.9}
    changes = [word for name, value in wanted.items() for word in (f"--{name.replace('_', '-')}", value)]
    code, said = cavis("train", "--data", data, "--from", nano, "--out", out, "--steps", 2, "--device", "cpu", *changes)
    assert code == 0, said
    for stage in ("segmenter", "tracker"):
        schedule = read_training(out / stage / "latest.pt")["schedule"]
        assert {name: schedule[name] for name in wanted} == wanted
        assert schedule["steps"] == 2
        assert read_log(out / stage / "log.jsonl")[0]["learning_rate"] == 0.003


def test_what_is_faulty_is_told_and_left_out_only_when_asked(cavis, nano, tmp_path):
    content, faults, _ = many_faults()
    data, out = write(tmp_path / "clips", "annotations.json", "JPEGImages", content), tmp_path / "mine"
    train = ("train", "--data", data, "--from", nano, "--out", out, "--steps", 1, "--device", "cpu")
    code, said = cavis(*train)
    assert code == 2
    assert f"(and {len(faults) - 1} more faults)" in said
    assert not out.exists()
    code, said = cavis(*train, "--skip-faulty")
    assert code == 0, said
    assert f"left out as faulty: {len(faults)}, such as {data / 'annotations.json'}: " in said
    model = out / "tracker" / "model.safetensors"
    code, said = cavis("evaluate", data, "--model", model, "--out", out / "scores", "--skip-faulty")
    assert code == 0, said
    assert len(json.loads((out / "scores" / "results.json").read_text())) > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "fp16", "--device", "cpu"), "expected a CUDA device for precision fp16, got cpu"),
        (("--precision", "fp8"), "fp8"),
        (("--learning-rate", "0", "--from", "tiny"), "expected a learning rate above 0, got 0.0"),
        (("--ema-decay", "1", "--from", "tiny"), "expected an ema_decay of at least 0 and below 1, got 1.0"),
        (("--hold-out", "0.1"), "expected --hold-out with --from"),
        (("--from", "tiny", "--hold-out", "1.5", "--data", "ALBUM"), "expected a share of at least 0 and less than 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(cavis, tmp_path, options, words):
    stage = () if "--from" in options else ("--stage", "segmenter")
    pictures = album(tmp_path / "album", ("kite", "dog"))
    given = [pictures if option == "ALBUM" else option for option in options]
    code, said = cavis("train", *stage, "--out", tmp_path / "run", *given)
    assert code == 2
    assert words in said
    assert not (tmp_path / "run").exists()
