"""The refiner's stage: what it minimises, what it starts from, and that it goes on where it was stopped."""

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from nano import Squares, batch_of, clips_of, hide, nano_model, nano_preset, random_frames, squares

from cavis.checkpoints.files import CheckpointError, ModelFile, save_model
from cavis.cli.train import StageName
from cavis.config import STAGES as NAMES
from cavis.config import LossConfig, Reading
from cavis.losses.criterion import InstanceLoss, RefinerCriterion, TrackerCriterion, as_picture, stacked
from cavis.losses.matching import match_frames, on_grid
from cavis.model.association import reorder
from cavis.presets import get_preset
from cavis.records import LayerPrediction, Targets
from cavis.training.loop import Run, train
from cavis.training.optimizer import build_optimizer
from cavis.training.stages import STAGES, RefinerStage
from cavis.training.start import fresh_model, require_start

CONFIG = LossConfig(points=32)


def seeded(seed: int = 3):
    return torch.Generator().manual_seed(seed)


def same_points(batch: int, points: int) -> torch.Tensor:
    """The same points for every mask, so that a mask's loss does not depend on the company it is in."""
    return torch.rand(points, 2, generator=seeded()).expand(batch, -1, -1)


def preset_of(**reading):
    preset = nano_preset(**reading)
    return replace(preset, refiner=replace(preset.tracker, silent_start=True))


def predicted(batch: int = 1, frames: int = 3, seed: int = 0):
    """What a refiner of three blocks might say: tracks that have one class in all frames."""
    layers = []
    for i in range(3):
        said = random_frames(batch=batch, frames=frames, queries=8, seed=seed + 10 * i)
        steady = said.class_logits[:, :1].expand(-1, frames, -1, -1)
        layers.append(LayerPrediction(steady, said.mask_logits))
    order = torch.arange(8).expand(batch, frames, -1)
    tracks = reorder(random_frames(batch=batch, frames=frames, queries=8, seed=seed), order)
    return replace(
        tracks, class_logits=layers[-1].class_logits, mask_logits=layers[-1].mask_logits, auxiliary=tuple(layers[:-1])
    )


def small(targets: Targets) -> Targets:
    """Objects at half their size, as large as the random predictions."""
    return replace(targets, masks=targets.masks[:, :, ::2, ::2])


def some(targets: Targets, rows: list[int]) -> Targets:
    """Some of the objects."""
    cut = {name: getattr(targets, name)[rows] for name in ("labels", "ids", "masks", "present")}
    return replace(targets, **cut)


CLIP = hide(squares(0), (0, 1))
TARGETS = small(CLIP.targets)


# --- the objective --------------------------------------------------------------------------------------------------


def test_a_clip_costs_what_one_tall_picture_of_its_frames_costs():
    prediction = predicted()

    def tall(layer):
        frames = [layer.mask_logits[:, t] for t in range(3)]
        return LayerPrediction(layer.class_logits[:, :1], torch.cat(frames, dim=-2)[:, None])

    last = tall(LayerPrediction(prediction.class_logits, prediction.mask_logits))
    auxiliary = tuple(tall(layer) for layer in prediction.auxiliary)
    first = clips_of(predicted(frames=1), slice(0, 1))  # what is not compared
    picture = replace(first, class_logits=last.class_logits, mask_logits=last.mask_logits, auxiliary=auxiliary)
    masks = torch.cat([TARGETS.masks[:, t] for t in range(3)], dim=-2)[:, None]
    targets = replace(TARGETS, masks=masks, present=torch.ones(3, 1, dtype=torch.bool))
    expected = TrackerCriterion(replace(CONFIG, points=96), Reading(), 3)(picture, (targets,), seeded())
    found = RefinerCriterion(CONFIG, 3)(prediction, (TARGETS,), seeded())
    assert found.keys() == expected.keys()
    assert len(found) == 9
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_clip_of_one_frame_costs_what_it_costs_the_tracker():
    prediction = predicted(frames=1)
    targets = small(squares(0, frames=1).targets)
    expected = TrackerCriterion(CONFIG, Reading(), 3)(prediction, (targets,), seeded())
    found = RefinerCriterion(CONFIG, 3)(prediction, (targets,), seeded())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_an_object_that_is_never_seen_is_left_out():
    never = small(hide(squares(0), *((1, t) for t in range(3))).targets)
    without = some(never, [0, 2])
    left, right = (RefinerCriterion(CONFIG, 3)(predicted(), (one,), seeded()) for one in (never, without))
    for name, value in right.items():
        assert torch.equal(left[name], value)


def test_a_clip_without_objects_teaches_that_there_are_none():
    none = some(TARGETS, [])
    prediction = predicted()
    terms = RefinerCriterion(CONFIG, 3)(prediction, (none,), seeded())
    surprise = -prediction.class_logits[0, 0].log_softmax(dim=-1)[:, -1]
    torch.testing.assert_close(terms["class"], 2 * surprise.mean())
    assert terms["mask"] == terms["dice"] == 0


@pytest.mark.parametrize("guided", [True, False])
def test_a_batch_of_clips_is_the_mean_of_its_clips_by_their_objects(guided):
    clips = TARGETS, small(squares(1, objects=2).targets)
    prediction, guide = predicted(batch=2), predicted(batch=2, seed=5)
    criterion = RefinerCriterion(CONFIG, 3)

    def terms(which: slice):
        auxiliary = tuple(clips_of(layer, which) for layer in prediction.auxiliary)
        part = replace(clips_of(prediction, which), auxiliary=auxiliary)
        return criterion(part, clips[which], same_points, guide=clips_of(guide, which) if guided else None)

    together, *alone = terms(slice(0, 2)), terms(slice(0, 1)), terms(slice(1, 2))
    objects = torch.tensor([3.0, 2.0])
    queries = objects + 0.1 * (8 - objects)  # "no object" weighs a tenth
    for name, value in together.items():
        shares = queries if name.startswith("class") else objects
        single = torch.stack([one[name] for one in alone])
        assert (single[0] - single[1]).abs() > 1e-4
        torch.testing.assert_close(value, (shares * single).sum() / shares.sum())


def test_targets_are_matched_on_the_guide_for_every_block():
    guide = predicted(seed=7)
    flipped = [LayerPrediction(x.class_logits.flip(2), x.mask_logits.flip(2)) for x in (guide, *guide.auxiliary)]
    prediction = replace(
        guide, class_logits=flipped[0].class_logits, mask_logits=flipped[0].mask_logits, auxiliary=(flipped[0],) * 2
    )
    criterion = RefinerCriterion(CONFIG, 3)
    own = criterion(prediction, (TARGETS,), same_points)
    found = criterion(prediction, (TARGETS,), same_points, guide=guide)
    objects = (stacked(on_grid((TARGETS,), guide.mask_logits)[0]),)
    layer = as_picture(LayerPrediction(guide.class_logits, guide.mask_logits))
    config = replace(CONFIG, points=96)
    matches = match_frames(layer, objects, config, same_points)
    flat = as_picture(LayerPrediction(prediction.class_logits, prediction.mask_logits))
    expected = InstanceLoss(config, 3)(flat, objects, matches, same_points)
    for suffix in ("", "_0", "_1"):
        torch.testing.assert_close(found[f"class{suffix}"], expected["class"])
        torch.testing.assert_close(found[f"mask{suffix}"], expected["mask"])
    assert own["class"] != found["class"]  # by themselves they would answer from the other end


def test_two_tiny_frames_cost_what_a_hand_finds():
    """One pixel a frame, a point in the middle of each: a query that is sure of frame 0 and wrong about frame 1."""
    masks = torch.tensor([[[[4.0]], [[-9.0]]], [[[2.0]], [[-9.0]]]])[None]  # frames, queries
    classes = torch.zeros(1, 2, 2, 4)
    prediction = replace(
        clips_of(predicted(frames=2), slice(0, 1)),
        class_logits=classes,
        mask_logits=masks,
        embeddings=torch.zeros(1, 2, 2, 4),
        core=torch.zeros(1, 2, 2, 4),
        context_aware=torch.zeros(1, 2, 2, 4),
        order=torch.zeros(1, 2, 2, dtype=torch.long),
        auxiliary=(),
    )
    truth = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    truth[0, 0] = True
    targets = Targets(torch.tensor([1]), torch.tensor([7]), truth, torch.tensor([[True, False]]))

    def middles(batch, points):
        assert points in (2, 6)  # one a frame; three times as many candidates
        return torch.tensor([[0.5, 0.25], [0.5, 0.75]]).repeat(3, 1)[:points].expand(batch, -1, -1)

    config = LossConfig(points=1, importance=0.0)
    terms = RefinerCriterion(config, 3)(prediction, (targets,), middles)
    p, q = 1 / (1 + math.exp(-4)), 1 / (1 + math.exp(-2))
    assert terms["mask"].item() == pytest.approx(5 * (-math.log(p) - math.log(1 - q)) / 2)
    assert terms["dice"].item() == pytest.approx(5 * (1 - (2 * p + 1) / (p + q + 1 + 1)))
    assert terms["class"].item() == pytest.approx(2 * math.log(4))


# --- the stage ------------------------------------------------------------------------------------------------------


def test_the_tracker_guides_the_first_half_only():
    model, batch = nano_model(stage="refiner"), batch_of(CLIP, squares(1))
    stage = RefinerStage(model, preset_of())
    early, late = (stage.terms(batch, progress, seeded()) for progress in (0.49, 0.5))
    unguided = RefinerStage(model, preset_of(guided_matching=False)).terms(batch, 0.0, seeded())
    assert early["class"] != late["class"]
    assert {name for name, value in late.items() if not torch.equal(value, unguided[name])} == set()


def test_a_step_on_two_clips_is_the_mean_of_its_clips_by_their_objects():
    stage = RefinerStage(nano_model(stage="refiner"), preset_of())
    clips = CLIP, squares(1, objects=2)
    together, *alone = (stage.terms(batch_of(*chosen), 0.0, same_points) for chosen in (clips, clips[:1], clips[1:]))
    objects = torch.tensor([3.0, 2.0])
    for name, value in together.items():
        shares = objects + 0.1 * (8 - objects) if name.startswith("class") else objects
        expected = (shares * torch.stack([one[name] for one in alone])).sum() / shares.sum()
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_segmenter_and_tracker_are_as_in_inference():
    model = nano_model(stage="refiner").train()
    RefinerStage(model, preset_of())
    assert {name for name, part in model.named_children() if part.training} == {"refiner"}


def test_the_refiner_stage_needs_a_refiner():
    with pytest.raises(ValueError, match="expected a model with a refiner for the refiner stage, got one without"):
        RefinerStage(nano_model(), nano_preset())


def test_the_refiner_learns_a_clip_by_heart():
    model, batch = nano_model(stage="refiner"), batch_of(CLIP)
    stage = RefinerStage(model, preset_of())
    optimizer = build_optimizer(stage.learning, replace(preset_of().stage("refiner"), learning_rate=3e-3))
    losses = []
    for step in range(80):
        loss = torch.stack(list(stage.terms(batch, step / 80, seeded(step)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.learning.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10])
    with torch.no_grad():
        frames = model.eval().segmenter(batch.frames)
        refined = model.refiner.predict(model.track(frames)[0], frames)
    objects = (stacked(on_grid(batch.targets, refined.mask_logits)[0]),)
    layer = as_picture(LayerPrediction(refined.class_logits, refined.mask_logits))
    query_of = match_frames(layer, objects, CONFIG, seeded())[0][0]
    assert layer.class_logits[0, 0, query_of].argmax(dim=-1).equal(batch.targets[0].labels)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path):
    preset = preset_of()

    def run(folder):
        return Run(preset=preset, stage="refiner", schedule=preset.stage("refiner"), seed=5, folder=folder, workers=0)

    def model():
        return nano_model(stage="refiner")

    whole = list(train(run(tmp_path / "whole"), model(), Squares()))
    begun = train(run(tmp_path / "parts"), model(), Squares())
    first = list(islice(begun, 2))  # in the guided half
    begun.close()
    rest = list(train(run(tmp_path / "parts"), model(), Squares()))
    assert [report.loss for report in first + rest] == [report.loss for report in whole]
    assert len(whole) == 6


# --- the start ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """Put the model of a stage into a file."""

    def save(stage, seed=1):
        model, preset = nano_model(seed, stage=stage), preset_of()
        path = tmp_path / f"{stage}.safetensors"
        save_model(path, model, ModelFile("nano", "nano", preset.model, stage, ""))
        return path, model

    return save


def same(left, right) -> bool:
    other = right.state_dict()
    return all(torch.equal(value, other[name]) for name, value in left.state_dict().items())


@pytest.mark.parametrize("copied", [True, False])
def test_the_refiner_starts_from_a_tracker_and_with_its_heads_if_so_chosen(saved, copied):
    path, source = saved("tracker")
    preset = preset_of()
    preset = replace(preset, refiner=replace(preset.refiner, silent_start=copied))
    model = fresh_model(preset, "refiner", 0, path)
    assert same(model.segmenter, source.segmenter)
    assert same(model.tracker, source.tracker)
    assert same(model.refiner.heads, source.tracker.heads) is copied


def test_a_refiner_that_is_there_is_taken(saved):
    path, source = saved("refiner")
    assert same(fresh_model(preset_of(), "refiner", 0, path), source)


def test_a_refiner_does_not_start_without_a_tracker(saved):
    path, _ = saved("segmenter")
    with pytest.raises(CheckpointError, match=r"a trained tracker in .* to start the refiner stage, found none"):
        fresh_model(preset_of(), "refiner", 0, path)
    with pytest.raises(CheckpointError, match="expected a trained tracker to start the refiner stage from, got none"):
        require_start(preset_of(), "refiner", None)


def test_every_stage_can_be_asked_for():
    assert [stage.value for stage in StageName] == list(STAGES) == list(NAMES)
    for stage in StageName:
        assert get_preset("tiny").stage(stage.value).steps > 0
