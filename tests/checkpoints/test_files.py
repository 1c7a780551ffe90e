import pickle
from dataclasses import replace

import pytest
import torch
from nano import images, nano_config, nano_model
from safetensors.torch import save_file

from cavis.checkpoints.files import (
    CheckpointError,
    ModelFile,
    halve,
    load_weights,
    read_model_file,
    read_training,
    save_model,
    save_training,
    write_atomically,
)
from cavis.checkpoints.hub import bundled_models, find_model, load_model
from cavis.config import OURS, PAPER, RELEASED, STAGES
from cavis.model import build_model
from cavis.presets import get_preset


class Bomb:
    """A pickle that would write a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def saved(tmp_path):
    model = nano_model(3)
    about = ModelFile("mine", "tiny", nano_config(), "tracker", "a test, 0 of 0 steps")
    save_model(tmp_path / "mine.safetensors", model, about)
    return tmp_path / "mine.safetensors", model, about


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@torch.no_grad()
def test_a_saved_model_comes_back_as_it_was(saved):
    path, model, about = saved
    ready = load_model(str(path), device="cpu")
    assert ready.about == about
    assert not ready.model.training
    assert not any(parameter.requires_grad for parameter in ready.model.parameters())
    for name, value in read_model_file(path)[1].items():
        assert torch.equal(value, model.state_dict()[name]), name
    left, right = (m(images(1, 2))[0].mask_logits for m in (ready.model, model))
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)  # batch norms have been folded meanwhile


@torch.no_grad()
def test_half_precision_is_half_the_file_and_nearly_the_same_model(saved):
    path, model, about = saved
    small = path.with_name("small.safetensors")
    save_model(small, model, about, torch.float16)
    assert small.stat().st_size < 0.7 * path.stat().st_size
    ready = load_model(str(small), device="cpu")
    assert {value.dtype for value in ready.model.parameters()} == {torch.float32}
    for name, value in read_model_file(small)[1].items():
        torch.testing.assert_close(
            value.to(model.state_dict()[name].dtype), model.state_dict()[name], atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("reading", [OURS, PAPER, RELEASED, replace(OURS, context="none")])
@pytest.mark.parametrize("stage", STAGES)
def test_the_reading_and_the_stage_travel_with_the_weights(tmp_path, reading, stage):
    config = replace(nano_config(), reading=reading)
    model = build_model(config, stage)
    save_model(tmp_path / "m.safetensors", model, ModelFile("m", "tiny", config, stage, ""))
    ready = load_model(str(tmp_path / "m.safetensors"), device="cpu")
    assert ready.about.config == config
    assert ready.about.stage == stage
    assert (ready.model.tracker is not None) is (stage != "segmenter")
    assert (ready.model.refiner is not None) is (stage == "refiner")


def test_weights_that_do_not_fit_are_named_with_their_shapes(saved):
    path, _, _ = saved
    _, state = read_model_file(path)
    state["segmenter.query_decoder.query_feature.weight"] = torch.zeros(9, 32)
    del state["tracker.fusion.bias"]
    state["tracker.extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_weights(nano_model(), state, "the file")
    text = one_sentence(caught)
    assert "missing: tracker.fusion.bias" in text
    assert "unknown: tracker.extra" in text
    assert "wrong shape: segmenter.query_decoder.query_feature.weight is (9, 32), expected (8, 32)" in text


def test_nothing_is_loaded_from_weights_that_do_not_fit(saved):
    path, _, _ = saved
    _, state = read_model_file(path)
    del state["tracker.fusion.bias"]
    model = nano_model(8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_weights(model, state, "the file")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_many_misfits_are_counted(saved):
    path, _, _ = saved
    _, state = read_model_file(path)
    with pytest.raises(CheckpointError, match=r"missing: .* and \d+ more"):
        load_weights(nano_model(), {name: value for name, value in state.items() if "tracker" not in name}, "the file")


def damage(path, how, tmp_path):
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "truncated header":
        path.write_bytes(data[:100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("these are not the weights you are looking for")
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2))
    elif how == "torch":
        torch.save({"model": torch.zeros(3)}, path)
    elif how == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    elif how == "incomplete":
        save_file({"weight": torch.zeros(3)}, path, metadata={"format": "cavis", "name": "x", "config": "{}"})
    elif how == "missing":
        path.unlink()


DAMAGES = ("truncated", "truncated header", "empty", "text", "pickle", "torch", "foreign", "incomplete", "missing")


@pytest.mark.parametrize("how", DAMAGES)
def test_what_is_not_a_model_file_is_told_in_a_sentence(saved, how, tmp_path):
    path, _, _ = saved
    damage(path, how, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read_model_file(path)
    assert str(path) in one_sentence(caught)
    assert one_sentence(caught).startswith("expected")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "pickle", "missing"])
def test_what_is_not_a_training_state_is_told_in_a_sentence(tmp_path, how):
    path = tmp_path / "latest.pt"
    save_training(path, {"done": 3, "model": {"w": torch.arange(1000.0)}})
    assert read_training(path)["done"] == 3
    damage(path, how, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read_training(path)
    assert one_sentence(caught).startswith(f"expected a training checkpoint, but {path} cannot be read")
    assert not (tmp_path / "exploded").exists()


def test_a_training_state_comes_back_as_it_was(tmp_path):
    state = {"done": 3, "schedule": {"decay_at": (1, 2)}, "model": {"w": torch.randn(3)}, "none": None}
    save_training(tmp_path / "latest.pt", state)
    read = read_training(tmp_path / "latest.pt")
    assert torch.equal(read.pop("model")["w"], state.pop("model")["w"])
    assert read == state


def test_an_unknown_name_names_the_nearest_models():
    with pytest.raises(
        CheckpointError, match=r"expected a model such as lite, tiny.* or the path of a .safetensors file; got 'tyni'"
    ):
        find_model("tyni")


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_new_file_appears_whole_and_in_new_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file"

    def write(temporary):
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # the move stays on one disk

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_halved_file_is_half_the_size_and_says_nearly_the_same(saved, tmp_path):
    path, model, about = saved
    halve(path, tmp_path / "half.safetensors")
    small = tmp_path / "half.safetensors"
    read, state = read_model_file(small)
    assert read == replace(about, name="half")
    assert 0.45 < small.stat().st_size / path.stat().st_size < 0.6
    other = build_model(about.config).eval()
    load_weights(other, state, "half")
    with torch.no_grad():
        ours, theirs = model(images())[0], other(images())[0]
    torch.testing.assert_close(ours.class_logits, theirs.class_logits, atol=2e-2, rtol=0)
    assert not ours.class_logits.equal(theirs.class_logits)


SIBLINGS = ("tiny_cavis", "tiny_ctvis", "tiny_minvis")
BUNDLED = {"lite": "tracker", "tiny": "tracker", "tiny_refiner": "refiner"} | dict.fromkeys(SIBLINGS, "segmenter")


def test_the_bundled_models_are_these():
    assert set(bundled_models()) == set(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_is_what_its_name_says_and_fits_its_preset(name):
    ready = load_model(name, "cpu")
    assert ready.about.name == name
    assert ready.about.preset == name.removesuffix("_refiner")
    assert ready.about.config == get_preset(ready.about.preset).model
    assert ready.about.stage == BUNDLED[name]


def test_bundled_models_keep_the_size_limits_of_the_package():
    megabytes = {name: find_model(name).stat().st_size / 1e6 for name in BUNDLED}
    assert megabytes["lite"] <= 24
    assert max(megabytes["tiny"], megabytes["tiny_refiner"]) <= 12
    assert sum(megabytes[name] for name in SIBLINGS) <= 30
    sizes = {
        name: sum(p.numel() for p in load_model(name, "cpu").model.parameters())
        for name in ("tiny", "tiny_refiner", "lite")
    }
    assert max(sizes["tiny"], sizes["tiny_refiner"]) <= 6_000_000
    assert sizes["lite"] <= 12_000_000


def test_the_bundled_siblings_differ_in_losses_and_context_alone():
    models = [get_preset(name).model for name in SIBLINGS]
    assert {replace(model, reading=OURS) for model in models} == {get_preset("tiny").model}
    assert len({get_preset(name).loss for name in SIBLINGS}) == 3
    weights = [read_model_file(find_model(name))[1] for name in SIBLINGS]
    shared = set.intersection(*(set(state) for state in weights))
    assert {key.split(".")[1] for key in set().union(*weights) - shared} == {"context_mlp"}
