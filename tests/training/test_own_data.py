"""A trained model and a data set of one's own."""

from dataclasses import replace

import numpy as np
import pytest

from cavis.categories import TWINS
from cavis.checkpoints.files import load_weights, read_model_file, write_model
from cavis.checkpoints.hub import find_model, load_model
from cavis.data.synthetic import TwinsConfig, synthesize
from cavis.data.ytvis_json import open_ytvis
from cavis.model import build_model
from cavis.presets import LITE_AUGMENTATION, get_preset
from cavis.training.own_data import HELD_OUT, keep_held_out, open_own, own_preset, write_joined, write_start

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
    assert open_own([str(tmp_path / "a")], None, seed=0).names == TWINS
    with pytest.raises(ValueError, match=r"expected the categories of .*a in .*b, got glider, bear"):
        open_own([str(tmp_path / "a"), str(tmp_path / "b")], None, seed=0)


def test_a_panoptic_model_is_refused():
    about = replace(read_model_file(find_model("tiny"))[0], preset="vipseg_r50")
    with pytest.raises(ValueError, match="expected a model of the instance task to start from, got one of panoptic"):
        own_preset(about, NAMES)


def test_clips_come_from_the_data_sets_in_the_shares_asked_for(clips):
    own = open_own([str(clips), str(clips)], 0.0, seed=0)
    assert own.source((3, 1)).shares.tolist() == [0.75, 0.25]
    with pytest.raises(ValueError, match="expected one weight for each of the sources, got 1 for 2"):
        own.source((1,))


def test_schedules_are_short_and_clips_come_as_the_models_preset_has_them_or_at_the_size_it_runs_at():
    assert own_preset(read_model_file(find_model("lite"))[0], NAMES).segmenter.augmentation == LITE_AUGMENTATION
    preset = own_preset(read_model_file(find_model("tiny"))[0], NAMES, steps=40)
    for stage in (preset.segmenter, preset.tracker):
        assert (stage.steps, stage.decay_at, stage.warmup) == (40, (32,), 4)
        assert stage.augmentation.short_sides == (preset.inference.short_side,)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "mine"
    synthesize(folder, clips=10, seed=0, config=TwinsConfig(frames=2, height=64, width=96))
    return folder


def test_a_tenth_is_held_out_unless_the_data_set_has_splits_or_a_share_is_asked_for(clips, tmp_path):
    def held_out(path, share=None):
        return [len(part) for part in open_own([str(path)], share, seed=0).held_out]

    assert held_out(clips) == [1]
    assert held_out(clips, 0.4) == [4]
    assert held_out(clips, 0.0) == []
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "JPEGImages").symlink_to(clips / "JPEGImages")
        (tmp_path / f"{split}.json").write_bytes((clips / "annotations.json").read_bytes())
    assert held_out(tmp_path) == []
    own = open_own([str(tmp_path)], None, seed=0)
    assert own.measuring([str(tmp_path)], tmp_path / HELD_OUT) == [f"{tmp_path} --split valid"]
    assert len(own.training[0]) == 10
    with pytest.raises(ValueError, match=r"expected a share that holds out a video, got 0.01 of the 10 in"):
        held_out(clips, 0.01)


def test_nothing_that_is_held_out_is_learned_from(clips, tmp_path):
    own = open_own([str(clips)], 0.4, seed=0)
    keep_held_out(own, tmp_path / HELD_OUT, begun=False)
    kept = open_ytvis(tmp_path / HELD_OUT)
    pictures = [kept.frames(index, [t]) for index in range(len(kept)) for t in range(2)]
    source = own.source()
    drawn = [source.draw(np.random.default_rng(seed), lambda length, rng: [0]).frames[0] for seed in range(40)]
    assert len({tuple(frame.flatten()[::97].tolist()) for frame in drawn}) == 6
    for frame in drawn:
        assert not any(np.array_equal(frame.permute(1, 2, 0).numpy(), picture[0]) for picture in pictures)


def test_a_run_that_goes_on_must_hold_out_the_same(clips, tmp_path):
    path = tmp_path / HELD_OUT
    keep_held_out(open_own([str(clips)], 0.2, seed=0), path, begun=False)
    before = path.read_bytes()
    keep_held_out(open_own([str(clips)], 0.2, seed=0), path, begun=True)
    for share, seed in ((0.2, 1), (0.3, 0), (0.0, 0)):
        with pytest.raises(ValueError, match="expected the --data, --seed and --hold-out that the run began with"):
            keep_held_out(open_own([str(clips)], share, seed=seed), path, begun=True)
    assert path.read_bytes() == before
