"""`--set`: values of a preset, or of how a model runs, changed by their names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from nano import nano_preset

from cavis import presets
from cavis.checkpoints.files import read_model_file
from cavis.cli.settings import with_settings
from cavis.config import PAPER, Preset
from cavis.data.synthetic import TwinsConfig, synthesize
from cavis.presets import PRESETS, get_preset

PARTS = ("model", "loss", "segmenter")


@pytest.fixture(autouse=True)
def nano(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "nano", nano_for_twins)


def nano_for_twins() -> Preset:
    base = nano_preset()
    segmenter = replace(base.segmenter, frames=1, frame_range=0)
    return replace(base, model=replace(base.model, categories=get_preset("tiny").model.categories), segmenter=segmenter)


@pytest.mark.parametrize(
    ("setting", "value_of", "value"),
    [
        ("model.reading.context_filter_size=7", lambda preset: preset.model.reading.context_filter_size, 7),
        ("model.reading.context_mlp_last_relu=true", lambda preset: preset.model.reading.context_mlp_last_relu, True),
        ("model.reading.alignment=none", lambda preset: preset.model.reading.alignment, "none"),
        ("model.reading=paper", lambda preset: preset.model.reading, PAPER),
        ("loss.prototype_weight=0", lambda preset: preset.loss.prototype_weight, 0.0),
        ("segmenter.decay_at=[10, 20]", lambda preset: preset.segmenter.decay_at, (10, 20)),
        ("segmenter.augmentation.flip = 0.25", lambda preset: preset.segmenter.augmentation.flip, 0.25),
    ],
)
def test_a_value_is_changed_and_nothing_else(setting, value_of, value):
    before = get_preset("lite")
    after = with_settings(before, [setting], PARTS)
    assert value_of(after) == value != value_of(before)
    path = setting.partition("=")[0].strip().split(".")
    assert put_back(after, before, path) == before


def put_back(after, before, path):
    first, *rest = path
    value = getattr(before, first)
    return replace(after, **{first: put_back(getattr(after, first), value, rest) if rest else value})


def test_later_settings_build_on_earlier_ones():
    changed = with_settings(get_preset("tiny"), ["model.reading=paper", "model.reading.context_filter_size=3"], PARTS)
    assert changed.model.reading == replace(PAPER, context_filter_size=3)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.reading.alignment", "expected --set NAME=VALUE"),
        ("inference.top_k=5", "a name that begins with model, loss, segmenter"),
        ("model.reading.filter=7", "expected a name out of context, context_filter_size, .*got 'filter'"),
        ("model.queries.most=7", "queries is 30"),
        ("model.queries=many", "valid integer.*got 'many'"),
        ("model.reading.alignment=sideways", "'true', 'inverted' or 'none'; got 'sideways'"),
        ("model.reading.context_filter_size=8", "expected an odd context_filter_size"),
    ],
)
def test_what_cannot_be_set_is_said_in_a_sentence(setting, words):
    with pytest.raises(ValueError, match=words):
        with_settings(get_preset("lite"), [setting], PARTS)


def test_every_preset_that_is_trained_on_from_a_trained_backbone_says_so(cavis, tmp_path):
    for name in ("ovis_r50", "ytvis19_swinl", "vipseg_vitl_paper"):
        assert name in PRESETS
        code, _, err = cavis("train", "--preset", name, "--stage", "segmenter", "--out", tmp_path / "run")
        assert code == 2
        assert "expected --start-from a trained model, such as coco_r50" in " ".join(err.split())
        assert not (tmp_path / "run").exists()


def trained(cavis, out: Path, *settings: str):
    options = [word for setting in ("segmenter.backbone_factor=1", *settings) for word in ("--set", setting)]
    return cavis("train", "--preset", "nano", "--stage", "segmenter", "--steps", 2, "--out", out, *options)


def test_a_model_keeps_the_reading_that_it_was_trained_with(cavis, tmp_path):
    code, _, err = trained(cavis, tmp_path, "model.reading.context_filter_size=3")
    assert code == 0, err
    about, _ = read_model_file(tmp_path / "model.safetensors")
    assert about.config.reading == replace(nano_preset().model.reading, context_filter_size=3)


def test_a_run_does_not_go_on_with_other_settings(cavis, tmp_path):
    assert trained(cavis, tmp_path)[0] == 0
    options = ["--set", "segmenter.backbone_factor=1", "--set", "loss.prototype_weight=0"]
    command = ["train", "--preset", "nano", "--stage", "segmenter", "--steps", 2, "--out", tmp_path, "--resume"]
    code, _, err = cavis(*command, *options)
    assert code == 2
    assert "loss.prototype_weight 2.0" in " ".join(err.split())


def test_the_same_weights_are_measured_under_another_reading_and_results_are_not_mixed(cavis, tmp_path):
    data = tmp_path / "clips"
    synthesize(data, clips=1, seed=5, config=TwinsConfig(frames=6))
    command = ["evaluate", data, "--model", "tiny", "--out"]
    assert cavis(*command, tmp_path / "as_trained")[0] == 0
    assert cavis(*command, tmp_path / "changed", "--set", "model.reading.alignment=inverted")[0] == 0
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("as_trained", "changed")]
    assert results[0] != results[1]
    code, _, err = cavis(*command, tmp_path / "as_trained", "--set", "model.reading.alignment=inverted")
    assert code == 2
    assert "alignment=inverted" in err
