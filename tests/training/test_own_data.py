"""A trained model and a data set of one's own."""

from dataclasses import replace

import pytest

from cavis.categories import TWINS
from cavis.checkpoints.files import load_weights, read_model_file, write_model
from cavis.checkpoints.hub import find_model, load_model
from cavis.data.synthetic import TwinsConfig, synthesize
from cavis.model import build_model
from cavis.presets import get_preset
from cavis.training.own_data import categories_of, own_preset, write_joined, write_start

NAMES = ("Giant Cat", "dog", "kite", "CAT")
HEAD = "tracker.heads.class_head"


@pytest.fixture
def start(tmp_path):
    """`tiny` with class heads for other categories."""
    source = find_model("tiny")
    preset = own_preset(read_model_file(source)[0], NAMES)
    write_start(source, preset, seed=0, out=tmp_path / "start.safetensors")
    return preset, tmp_path / "start.safetensors"


def test_the_start_fits_the_new_model_and_keeps_all_but_the_class_heads(start):
    preset, path = start
    about, state = read_model_file(path)
    assert about.config == preset.model
    load_weights(build_model(preset.model, "tracker"), state, "start")
    old = read_model_file(find_model("tiny"))[1]
    changed = {key for key in old if not old[key].float().equal(state[key].float())}
    assert changed == {key for key in old if "class_head" in key}


def test_categories_of_the_same_name_and_no_object_keep_their_rows_and_new_ones_differ(start):
    _, state = read_model_file(start[1])
    old = read_model_file(find_model("tiny"))[1]
    for name in (f"{HEAD}.weight", f"{HEAD}.bias"):
        assert state[name].shape[0] == 5
        for row, before in ((1, TWINS.index("dog")), (3, TWINS.index("cat")), (4, len(TWINS))):
            assert state[name][row].equal(old[name][before].float())
    assert not state[f"{HEAD}.weight"][0].equal(state[f"{HEAD}.weight"][2])


def test_the_same_categories_are_the_same_model(tmp_path):
    source = find_model("tiny")
    write_start(source, own_preset(read_model_file(source)[0], TWINS), seed=0, out=tmp_path / "start.safetensors")
    old, new = read_model_file(source)[1], read_model_file(tmp_path / "start.safetensors")[1]
    assert all(old[key].float().equal(new[key].float()) for key in old)


def test_a_taught_model_says_what_it_was_taught(start):
    ready = load_model(str(start[1]), "cpu")
    assert ready.world == "I was taught a data set of my user's own: Giant Cat, dog, kite, CAT."
    assert load_model("tiny", "cpu").world == get_preset("tiny").world


def test_joining_takes_the_segmenter_of_one_and_the_tracker_of_the_other(start, tmp_path):
    _, path = start
    about, state = read_model_file(path)
    newer = {key: value + 1 for key, value in state.items() if key.startswith("segmenter.")}
    write_model(tmp_path / "segmenter.safetensors", newer, replace(about, stage="segmenter"))
    write_joined(tmp_path / "segmenter.safetensors", path, tmp_path / "joined.safetensors")
    joined, both = read_model_file(tmp_path / "joined.safetensors")
    assert joined.stage == "tracker"
    assert both.keys() == state.keys()
    for key, value in both.items():
        assert value.equal(newer.get(key, state[key])), key


def test_data_sets_of_different_categories_are_refused(tmp_path):
    synthesize(tmp_path / "a", clips=1, seed=0, config=TwinsConfig(frames=2))
    text = (tmp_path / "a" / "annotations.json").read_text()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "annotations.json").write_text(text.replace('"airplane"', '"glider"'))
    assert categories_of([str(tmp_path / "a")]) == TWINS
    with pytest.raises(ValueError, match=r"expected the categories of .*a in .*b, got glider, bear"):
        categories_of([str(tmp_path / "a"), str(tmp_path / "b")])


def test_a_panoptic_model_is_refused():
    about = replace(read_model_file(find_model("tiny"))[0], preset="vipseg_r50")
    with pytest.raises(ValueError, match="expected a model of the instance task to start from, got one of panoptic"):
        own_preset(about, NAMES)


def test_schedules_are_short_and_clips_come_at_the_size_the_model_runs_at():
    preset = own_preset(read_model_file(find_model("tiny"))[0], NAMES, steps=40)
    for stage in (preset.segmenter, preset.tracker):
        assert (stage.steps, stage.decay_at, stage.warmup) == (40, (32,), 4)
        assert stage.augmentation.short_sides == (preset.inference.short_side,)
