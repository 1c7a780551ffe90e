import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from nano import batch_of, hide, nano_model, nano_preset, random_frames, squares

from cavis.config import Swin
from cavis.model.association import reorder
from cavis.model.backbones import build_backbone
from cavis.records import ClipPrediction
from cavis.training.optimizer import build_optimizer, rate_factor
from cavis.training.stages import STAGES, TrackerStage, start_silent


def seeded():
    return torch.Generator().manual_seed(3)


def learn(stage, batch, progress=0.0):
    terms = stage.terms(batch, progress, seeded())
    torch.stack(list(terms.values())).sum().backward()
    return terms


@pytest.fixture
def batch():
    return batch_of(squares(0), hide(squares(1), (0, 1)))


def three_stages(**reading):
    """The nano preset with a schedule for the refiner too."""
    preset = nano_preset(**reading)
    return replace(preset, refiner=preset.tracker)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("reading", [{}, {"context": "learnable"}, {"tracker_context": "surroundings"}], ids=str)
def test_gradients_reach_what_must_learn_and_nothing_else(name, reading, batch):
    preset = three_stages(**reading)
    model = nano_model(stage="refiner", **reading)
    before = copy.deepcopy(model.state_dict())
    stage = STAGES[name](model, preset)
    learn(stage, batch)
    for path, parameter in model.named_parameters():
        if path.startswith(f"{name}."):
            assert parameter.grad is not None, path
            if not path.endswith("attention.key.bias"):  # a softmax does not see what all its logits share
                assert parameter.grad.abs().sum() > 0, path
        else:
            assert parameter.grad is None, path
            assert not parameter.requires_grad, path
    for path, value in model.state_dict().items():
        statistics = path.endswith(("running_mean", "running_var", "num_batches_tracked"))
        if name == "segmenter" and statistics:
            assert not torch.equal(value, before[path]), path
        else:
            assert torch.equal(value, before[path]), path


@pytest.mark.parametrize("name", STAGES)
def test_one_update_changes_the_learning_part_only(name, batch):
    model, preset = nano_model(stage="refiner"), three_stages()
    before = copy.deepcopy(dict(model.named_parameters()))
    stage = STAGES[name](model, preset)
    optimizer = build_optimizer(stage.learning, preset.stage(name))
    learn(stage, batch)
    optimizer.step()
    changed = {path for path, value in model.named_parameters() if not torch.equal(value, before[path])}
    learning = {path for path in before if path.startswith(f"{name}.")}
    assert changed <= learning
    assert {path for path in learning - changed if not path.endswith("bias")} == set()


def test_the_frozen_segmenter_sees_a_clip_as_in_inference(batch):
    model = nano_model()
    expected = model.segmenter(batch.frames).class_logits.detach()
    TrackerStage(model.train(), nano_preset())
    assert model.tracker.training
    assert not model.segmenter.training
    # close, not equal: without gradients the deformable attention sums in another order
    torch.testing.assert_close(model.segmenter(batch.frames).class_logits, expected, atol=1e-5, rtol=1e-4)


def test_the_segmenter_guides_the_first_half_only(batch):
    model = nano_model()
    stage = TrackerStage(model, nano_preset())
    early, late = (stage.terms(batch, progress, seeded()) for progress in (0.0, 0.5))
    unguided = TrackerStage(model, nano_preset(guided_matching=False)).terms(batch, 0.0, seeded())
    assert early["class"] != late["class"]
    assert unguided["class"] == late["class"]


def test_a_step_is_a_function_of_its_seed(batch):
    for stage in STAGES.values():
        losses = []
        for noise in (1, 2):
            torch.manual_seed(noise)
            losses.append(stage(nano_model(stage="refiner"), nano_preset()).terms(batch, 0.0, seeded()))
        assert losses[0].keys() == losses[1].keys()
        assert all(torch.equal(losses[0][key], losses[1][key]) for key in losses[0])


def test_the_tracker_stage_needs_a_tracker():
    with pytest.raises(ValueError, match="expected a model with a tracker for the tracker stage, got one without"):
        TrackerStage(nano_model(stage="segmenter"), nano_preset())


@torch.no_grad()
@pytest.mark.parametrize("stage", ["tracker", "refiner"])
def test_a_silent_start_says_what_the_stage_before_says(stage):
    model = nano_model(stage=stage)
    frames = random_frames(frames=3, queries=8)
    tracks, _ = model.track(frames)

    def outcome() -> ClipPrediction:
        found, _ = model.track(frames)
        return found if stage == "tracker" else model.refiner.predict(tracks, frames)

    loud = outcome()
    start_silent(model, stage)
    silent = outcome()
    if stage == "tracker":
        heads, before = model.segmenter.query_decoder.heads, reorder(frames, silent.order).core
    else:
        heads, before = model.tracker.heads, tracks.embeddings
    for _ in range(20):  # only norms are passed, each of which makes no difference to the next
        before = F.layer_norm(before, before.shape[-1:])
    before = heads.norm(before)
    torch.testing.assert_close(silent.embeddings, before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(silent.mask_logits, heads.masks(before, frames.mask_features), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(loud.embeddings, silent.embeddings, atol=1e-2)


@pytest.mark.parametrize("stage", ["tracker", "refiner"])
def test_after_a_silent_start_every_part_of_a_block_learns(stage, batch):
    model = nano_model(stage=stage)
    start_silent(model, stage)
    learner = STAGES[stage](model, three_stages())
    optimizer = build_optimizer(learner.learning, nano_preset().tracker)
    before = {name: parameter.detach().clone() for name, parameter in learner.learning.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        torch.stack(list(learner.terms(batch, 1.0, seeded()).values())).sum().backward()
        optimizer.step()
    still = {name for name, parameter in learner.learning.named_parameters() if torch.equal(parameter, before[name])}
    assert {name for name in still if not name.endswith("attention.key.bias")} == set()  # see above


def test_a_silent_start_needs_the_part_before_it():
    with pytest.raises(ValueError, match="expected a model with a refiner and the part before it, got one without"):
        start_silent(nano_model(stage="tracker"), "refiner")


def test_norms_and_embeddings_do_not_decay_and_the_backbone_learns_slowly():
    preset = nano_preset()
    segmenter = nano_model().segmenter
    optimizer = build_optimizer(segmenter, preset.segmenter)
    settings = {
        parameter: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(settings) == len(list(segmenter.parameters()))
    for path, parameter in segmenter.named_parameters():
        rate, decay = settings[parameter]
        assert rate == pytest.approx(5e-4 if path.startswith("backbone.") else 1e-3), path
        norm = "norm" in path or path.startswith(("query_decoder.query_", "query_decoder.level_"))
        if norm:
            assert decay == 0, path
        elif path.endswith("weight") and parameter.dim() > 1:
            assert decay == 0.05, path
    assert settings[segmenter.pixel_decoder.level_embedding][1] == 0.05  # a bare parameter, as in the released code


def test_the_position_tables_of_swin_do_not_decay():
    backbone = build_backbone(Swin(width=8, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8), window=4))
    optimizer = build_optimizer(backbone, nano_preset().segmenter)
    still = {
        parameter for group in optimizer.param_groups if not group["weight_decay"] for parameter in group["params"]
    }
    tables = [value for name, value in backbone.named_parameters() if "relative_position_bias_table" in name]
    assert len(tables) == 4
    assert all(table in still for table in tables)


def test_the_rate_warms_up_and_drops_at_milestones():
    schedule = nano_preset(10).segmenter  # warm-up 2, milestone 8
    assert [rate_factor(step, schedule) for step in range(10)] == pytest.approx([0.5] + [1.0] * 7 + [0.1] * 2)
