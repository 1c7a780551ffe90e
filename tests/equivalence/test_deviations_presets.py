"""Rows of docs/deviations.md about what presets set, and what a command names: sizes, schedules, starts, precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import Squares, batch_of, images, nano_config, nano_model, nano_preset, nano_run, squares

from cavis.checkpoints.files import ModelFile, read_training
from cavis.checkpoints.hub import ReadyModel
from cavis.checkpoints.importing import model_shapes
from cavis.config import CORRECTED, PAPER, Augmentation, LossConfig, Reading
from cavis.data.augmentation import Crop, Resize, draw_steps
from cavis.data.clips import draw_frames
from cavis.inference.online import OnlinePredictor
from cavis.inference.postprocess import best_slots, network_size
from cavis.model.backbones import build_backbone
from cavis.presets import DATA_SETS, PRESETS, get_preset
from cavis.training.loop import LATEST, train
from cavis.training.optimizer import build_optimizer
from cavis.training.stages import SegmenterStage, TrackerStage
from cavis.training.start import schedule_of

STAGES = ("segmenter", "tracker", "refiner")
WIDE = (720, 1280)
TELLS_APART = {"context", "context_cosine", "prototype", "prototype_cosine"}
"""Loss terms that know which objects of two frames are the same."""


def seeded():
    return torch.Generator().manual_seed(3)


def drawn(augmentation: Augmentation, count: int = 150, size=WIDE):
    return [draw_steps(augmentation, size, 3, np.random.default_rng(seed)) for seed in range(count)]


# --- sizes and schedules --------------------------------------------------------------------------------------------


def test_vipsegs_tracker_and_refiner_train_for_a_quarter_of_the_steps():
    vipseg, literal = get_preset("vipseg_r50"), get_preset("vipseg_r50_paper")
    for data in set(DATA_SETS) - {"vipseg"}:
        for stage in ("tracker", "refiner"):
            papers = get_preset(f"{data}_r50").stage(stage)
            assert (papers.steps, papers.decay_at) == (160_000, (112_000,))
            shorter = vipseg.stage(stage)
            assert (shorter.steps, shorter.decay_at) == (40_000, (28_000,))
            for longer in (schedule_of(vipseg, stage, 160_000), literal.stage(stage)):
                assert replace(longer, augmentation=papers.augmentation) == papers
    papers = get_preset("ovis_r50").segmenter
    assert replace(vipseg.segmenter, augmentation=papers.augmentation) == papers


def test_vipseg_frames_are_seen_larger_than_the_paper_says():
    names = [*(f"{data}_r50" for data in DATA_SETS), "vipseg_r50_paper", "vipseg_vitl_paper"]
    sizes = {name: get_preset(name).inference for name in names}
    seen = {name: network_size(*WIDE, size.short_side, size.max_side) for name, size in sizes.items()}
    assert seen.pop("vipseg_r50") == (720, 1280)
    assert set(seen.values()) == {(448, 796)}


@pytest.mark.parametrize("size", [WIDE, (720, 800), (800, 720)])
def test_vipseg_clips_are_learned_larger_than_the_paper_says(size):
    """The paper: a short side between 320 and 640 pixels, a long one of 768 at most."""
    for name in [*(f"{data}_r50" for data in DATA_SETS), "vipseg_vitl"]:
        for stage in STAGES:
            released, papers = (get_preset(one).stage(stage).augmentation for one in (name, f"{name}_paper"))
            sides = []
            for augmentation in (released, papers):
                steps = drawn(replace(augmentation, crop=0.0), size=size)
                resized = [step for one in steps for step in one if isinstance(step, Resize)]
                assert len(resized) == len(steps)
                sides.append(np.sort([(step.height, step.width) for step in resized], axis=1))
            assert sides[1][:, 0].min() == 320
            assert sides[1][:, 0].max() <= 640
            assert sides[1][:, 1].max() <= 768
            assert (sides[0].min() == 480 and sides[0].max() > 768) == name.startswith("vipseg")


def test_the_papers_presets_have_the_numbers_of_the_paper_on_every_data_set():
    """Sec. A.2.2, and Eq. 2 and 12."""
    for name in (name for name in PRESETS if name.endswith("_paper")):
        preset = get_preset(name)
        stages = [preset.stage(stage) for stage in STAGES]
        assert [(one.steps, one.decay_at) for one in stages] == [(40_000, (28_000,))] + 2 * [(160_000, (112_000,))]
        assert [one.frames for one in stages] == [3, 5, 15]
        assert {(one.clips_per_step, one.learning_rate, one.weight_decay) for one in stages} == {(8, 1e-4, 5e-2)}
        loss = preset.loss
        assert (loss.class_weight, loss.mask_weight, loss.dice_weight) == (2, 5, 5)
        assert (loss.context_weight, loss.prototype_weight) == (2, 2)
        assert preset.inference.short_side == 448
        assert replace(preset.model.reading, tracker_contrast=False) == PAPER
        assert preset.rules == CORRECTED


def test_only_vipsegs_refiner_sees_a_window_of_its_clips():
    for data in DATA_SETS:
        for stage in STAGES:
            augmentation = get_preset(f"{data}_r50").stage(stage).augmentation
            steps = drawn(replace(augmentation, crop=0.0))
            windows = [(one.height, one.width) for step in steps for one in step if isinstance(one, Crop)]
            if (data, stage) == ("vipseg", "refiner"):
                assert len(windows) == len(steps)
                assert max(windows) == (608, 608)
            else:
                assert windows == []


def test_only_the_refiners_clips_are_played_backwards():
    for data in DATA_SETS:
        shares = [get_preset(f"{data}_r50").stage(stage).augmentation.reversal for stage in STAGES]
        assert shares == [0, 0, 0.5]


def test_the_released_segmenters_frames_lie_within_two_of_one_of_them():
    released, tiny = (get_preset(name).segmenter for name in ("ovis_r50", "tiny"))
    rng = np.random.default_rng(0)
    spans = []
    for schedule in (released, tiny):
        clips = [draw_frames(24, schedule.frames, schedule.frame_range, rng) for _ in range(300)]
        spans.append(max(max(frames) - min(frames) for frames in clips))
        assert any(
            all(abs(t - reference) <= schedule.frame_range for t in frames) for frames in clips for reference in frames
        )
    assert spans[0] == 4
    assert spans[1] > 18


@pytest.mark.parametrize(("queries", "differs"), [(50, True), (3, False)])
def test_ovis_keeps_twice_as_many_predictions(queries, differs):
    scores = np.random.default_rng(0).random((queries, 3))
    kept = {name: best_slots(scores, get_preset(f"{name}_r50").inference.top_k) for name in ("ovis", "ytvis19")}
    assert (len(kept["ovis"]) > len(kept["ytvis19"])) is differs
    assert kept["ovis"][: len(kept["ytvis19"])] == kept["ytvis19"]


# --- learning -------------------------------------------------------------------------------------------------------


def test_minvis_learns_what_the_others_do_but_for_what_tells_objects_apart():
    """The paper's baseline: no contrast, no prototypes, and not the cosine terms beside them."""
    names = [name for name in PRESETS if name.endswith("_minvis")]
    assert len(names) > len(DATA_SETS)
    for reading, loss in {(get_preset(name).model.reading, get_preset(name).loss) for name in names}:
        for stage, extra in ((SegmenterStage, TELLS_APART), (TrackerStage, set())):
            without, contrasted = (terms_of(stage, reading, weights) for weights in (loss, LossConfig()))
            assert contrasted.keys() - without.keys() == extra
            assert all(torch.equal(value, contrasted[term]) for term, value in without.items())
            assert {term.split("_")[0] for term in without} == {"class", "mask", "dice"}


def terms_of(stage, reading: Reading, loss: LossConfig):
    """What a stage minimises with the weights of ``loss``; the rest is the smallest model's."""
    preset = nano_preset(**vars(reading))
    weights = {name: getattr(loss, name) for name in ("context_weight", "prototype_weight")}
    objective = replace(preset, loss=replace(preset.loss, **weights))
    return stage(nano_model(**vars(reading)), objective).terms(batch_of(squares()), 0.0, seeded())


@pytest.mark.parametrize(("name", "factor"), [("ovis_r50", 0.1), ("vipseg_vitl", 0.1), ("lite", 0.2), ("tiny", 1.0)])
def test_a_backbone_that_comes_trained_learns_more_slowly_than_the_rest(name, factor):
    segmenter, schedule = nano_model().segmenter, get_preset(name).segmenter
    optimizer = build_optimizer(segmenter, schedule)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    slow = [rates[id(parameter)] for parameter in segmenter.backbone.parameters()]
    parts = (segmenter.pixel_decoder, segmenter.query_decoder, segmenter.context_mlp)
    rest = {rates[id(parameter)] for part in parts for parameter in part.parameters()}
    assert rest == {schedule.learning_rate}
    assert slow == pytest.approx([factor * schedule.learning_rate] * len(slow))


def test_gradients_are_cut_to_a_hundredth_in_released_presets_and_to_one_in_ours(tmp_path):
    for names, most in (([f"{data}_r50" for data in DATA_SETS], 0.01), (["tiny", "lite"], 1.0)):
        assert {get_preset(name).stage(stage).max_gradient_norm for name in names for stage in STAGES[:2]} == {most}
    for most in (0.01, 1.0, 1e9):
        run = nano_run(tmp_path / str(most), steps=3, workers=0)
        run = replace(run, schedule=replace(run.schedule, max_gradient_norm=most))
        steps = train(run, nano_model(), Squares())
        norm = next(steps).gradient_norm
        steps.close()
        assert 1 < norm < 1e9
        moments = read_training(run.folder / LATEST)["optimizer"]["state"].values()
        tenth = torch.cat([one["exp_avg"].flatten() for one in moments]).norm().item()  # what AdamW keeps of the first
        assert 10 * tenth == pytest.approx(min(norm, most), rel=1e-3)


@torch.no_grad()
def test_batch_norm_learns_in_our_own_models_and_is_frozen_in_released_ones():
    assert get_preset("ovis_r50").model.backbone.norm == "frozen"
    assert get_preset("tiny").model.backbone.norm == "batch"
    learning, frozen = (build_backbone(replace(nano_config().backbone, norm=norm)) for norm in ("batch", "frozen"))
    frozen.load_state_dict(learning.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64, generator=seeded())
    for left, right in zip(learning.eval()(x), frozen.eval()(x), strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in (learning, frozen)]
    outputs = [part.train()(x)[-1] for part in (learning, frozen)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    moved = [
        any(not v.equal(old[k]) for k, v in part.state_dict().items())
        for part, old in zip((learning, frozen), before, strict=True)
    ]
    assert moved == [True, False]


# --- what a command names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["coco_panoptic_r50", "coco_r50"])
def test_vipseg_takes_all_but_classes_and_context_from_coco_whether_panoptic_or_not(start):
    theirs, ours = (model_shapes(get_preset(name).model, "segmenter") for name in (start, "vipseg_r50"))
    fresh = {name for name, shape in ours.items() if theirs.get(name) != shape}
    assert {name.split(".")[1] for name in fresh} == {"context_mlp", "query_decoder"}
    assert {name for name in fresh if "query_decoder" in name} == {
        f"segmenter.query_decoder.heads.class_head.{kind}" for kind in ("weight", "bias")
    }
    assert theirs.keys() <= ours.keys()


@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_results_are_computed_in_single_precision_unless_autocast_is_put_around_them(stage):
    model, preset = nano_model(stage=stage), nano_preset()
    about = ModelFile("nano", "nano", preset.model, stage, "", ())
    predictor = OnlinePredictor(ReadyModel(model, about, preset.inference, ""))
    kinds = set()
    for part in model.modules():
        part.register_forward_hook(lambda part, inputs, output: kinds.add(getattr(output, "dtype", None)))
    video = list(images(1, 3)[0].permute(0, 2, 3, 1).numpy())
    single = predictor.run(video)
    assert kinds - {None} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        half = predictor.run(video)
    assert torch.bfloat16 in kinds
    scores = [np.sort([track.score for track in result.tracks]) for result in (single, half)]
    assert not np.array_equal(*scores)
    np.testing.assert_allclose(*scores, atol=0.02)
