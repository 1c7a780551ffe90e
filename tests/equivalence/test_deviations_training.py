"""Rows of docs/deviations.md about losses and data: where two readings part, and where they must agree."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nano import batch_of, hide, nano_model, nano_preset, random_frames, squares

from cavis.config import DataRules, LossConfig, Reading
from cavis.data.clips import apply_rules, draw_frames
from cavis.losses import criterion
from cavis.losses.contrastive import Instances, contrast
from cavis.losses.criterion import InstanceLoss, SegmenterCriterion, TrackerCriterion
from cavis.losses.matching import GridTargets, match_first_appearance, match_frames, matching_costs, on_grid
from cavis.records import LayerPrediction, Targets
from cavis.training.stages import TrackerStage

CONFIG = LossConfig(points=64)


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.fixture(scope="module")
def model():
    return nano_model()


def segmenter_terms(frames, *clips, **reading):
    minimised = SegmenterCriterion(CONFIG, Reading(**reading), 3)
    return minimised(frames, tuple(clip.targets for clip in clips), seeded())


def assert_same(left, right, but=()):
    """Equal terms, but for those that must differ."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]) is (name not in but), name


@torch.no_grad()
def see(model, *clips):
    return model.segmenter(batch_of(*clips).frames)


# --- switches of the losses -----------------------------------------------------------------------------------------


def drawn_as_annotated(offset: int = 0):
    """A clip of blocks of 4 x 4 pixels, moved to the right, and queries whose masks are the blocks where they were."""
    small = torch.zeros(3, 2, 8, 12, dtype=torch.bool)
    for n, (y, x) in enumerate(((1, 1), (3, 7), (5, 2))):
        small[n, :, y : y + 2, x : x + 3] = True
    full = small.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).roll(offset, dims=3)
    targets = Targets(torch.arange(3), torch.arange(3), full, torch.ones(3, 2, dtype=torch.bool))
    frames = random_frames(frames=2)
    masks = torch.full((1, 2, 6, 8, 12), -20.0)
    masks[0, :, :3] = 40 * small.transpose(0, 1).float() - 20
    return replace(frames, mask_logits=masks), targets


def test_prototypes_of_predicted_masks_are_those_of_true_masks_where_the_prediction_is_right():
    for offset, differing in ((0, ()), (2, ("prototype", "prototype_cosine"))):
        frames, targets = drawn_as_annotated(offset)
        left, right = (
            SegmenterCriterion(CONFIG, Reading(prototypes=kind), 3)(frames, (targets,), seeded())
            for kind in ("ground_truth", "predicted")
        )
        assert left["prototype"] > 0
        for name, value in left.items():
            assert torch.allclose(value, right[name], rtol=1e-5) is (name not in differing), name


def instances(features, identity, frame):
    identity, frame = torch.tensor(identity), torch.tensor(frame)
    return Instances(features, identity, frame, torch.zeros_like(identity))


def test_an_anchor_that_is_its_own_positive_adds_a_term_that_vanishes_for_long_features(model):
    clip = squares()
    frames = see(model, clip)
    contrastive = ("context", "context_cosine", "prototype", "prototype_cosine")
    terms = [segmenter_terms(frames, clip, self_positive=value) for value in (False, True)]
    assert_same(*terms, but=contrastive)
    x = torch.randn(4, 6, generator=seeded())
    who = instances(x, [0, 0, 1, 1], [0, 1, 0, 1])
    expected = 0.0
    for a, other, negatives in ((0, 1, (2, 3)), (1, 0, (2, 3)), (2, 3, (0, 1)), (3, 2, (0, 1))):
        pairs = sum((x[a] @ (x[n] - x[p])).exp() for p in (a, other) for n in negatives)
        expected = expected + torch.log(1 + pairs) / 2
    torch.testing.assert_close(contrast(who, self_positive=True).loss, expected)
    apart = instances(30 * torch.eye(6)[:4], [0, 0, 1, 1], [0, 1, 0, 1])  # a·a = 900, everything else 0
    torch.testing.assert_close(contrast(apart).loss, contrast(apart, self_positive=True).loss)


def test_the_cosine_regression_is_the_only_difference_of_its_weight(model):
    clip = squares()
    frames = see(model, clip)
    released, paper = (segmenter_terms(frames, clip, cosine_aux_weight=weight) for weight in (2.0, 0.0))
    extra = {"context_cosine", "prototype_cosine"}
    assert released.keys() - paper.keys() == extra
    assert all(released[name] > 0 for name in extra)
    assert_same({name: released[name] for name in paper}, paper)
    perfect = instances(5 * torch.eye(4)[[0, 0, 1, 1]], [0, 0, 1, 1], [0, 1, 0, 1])
    assert contrast(perfect).cosine == 0


def test_guided_targets_are_matched_on_the_segmenter_in_the_first_half_only(model):
    batch = batch_of(squares(0), hide(squares(1), (0, 1)))
    guided, free = (TrackerStage(model, nano_preset(guided_matching=value)) for value in (True, False))
    early, late = (guided.terms(batch, progress, seeded()) for progress in (0.49, 0.5))
    unguided = free.terms(batch, 0.0, seeded())
    assert early.keys() == unguided.keys()
    assert early["class"] != unguided["class"]
    assert_same(late, unguided)


@pytest.mark.parametrize(("frames", "cost"), [(1, None), (2, 0), (3, 1)])
def test_the_trackers_queries_are_contrasted_only_if_so_read(frames, cost):
    model, clip = nano_model().train(), squares(frames=frames)
    tracks, _ = model.track(see(model, clip))
    without, released = (
        TrackerCriterion(CONFIG, Reading(tracker_contrast=value), 3)(tracks, (clip.targets,), seeded())
        for value in (False, True)
    )
    extra = {"track", "track_cosine"} if cost is not None else set()
    assert released.keys() - without.keys() == extra
    assert all((released[name] > 0) == bool(cost) for name in extra)  # two frames have one reference, and no pair
    assert_same({name: released[name] for name in without}, without)


def test_an_absent_object_is_matched_to_an_empty_mask_if_eq_3_is_read_literally(model):
    whole, hidden = squares(), hide(squares(), (1, 0))
    frames = see(model, whole)
    assert_same(*(segmenter_terms(frames, whole, match_absent=value) for value in (True, False)))
    literal, ours = (segmenter_terms(frames, hidden, match_absent=value) for value in (True, False))
    assert_same(literal, ours, but=("class", "mask", "dice"))  # contrastive terms leave the absent one out
    layer = LayerPrediction(frames.class_logits, frames.mask_logits)
    objects = on_grid((hidden.targets,), frames.mask_logits)
    query = match_frames(layer, objects, CONFIG, seeded(), match_absent=True)[0][0, 1]
    label = hidden.targets.labels[1]
    for read, wanted in ((True, label), (False, torch.tensor(3))):
        matches = match_frames(layer, objects, CONFIG, seeded(), match_absent=read)
        logits = frames.class_logits.clone().requires_grad_()
        loss = InstanceLoss(CONFIG, 3)(replace(layer, class_logits=logits), objects, matches, seeded())["class"]
        gradient = torch.autograd.grad(loss, logits)[0][0, 0, query]
        assert (gradient < 0).nonzero().tolist() == [[wanted.item()]]  # what the query is taught to be


def test_queries_of_absent_objects_are_alike_only_if_so_read(model):
    whole, hidden = squares(), hide(squares(), (1, 0), (2, 2))
    frames = see(model, whole)
    for clip, match_absent, differs in ((whole, True, False), (hidden, False, False), (hidden, True, True)):
        left, right = (
            segmenter_terms(frames, clip, match_absent=match_absent, absent_identity=value) for value in (False, True)
        )
        assert_same(left, right, but=("context", "context_cosine") if differs else ())


@torch.no_grad()
def test_clips_of_a_batch_are_contrasted_only_if_so_read(model):
    clips = hide(squares(0), (1, 0)), squares(1)
    assert clips[0].targets.ids.equal(clips[1].targets.ids)
    for batch in (clips[:1], clips):
        frames = see(model, *batch)
        ours, released = (segmenter_terms(frames, *batch, contrast_across_clips=value) for value in (False, True))
        assert_same(ours, released, but=("context", "context_cosine") if len(batch) > 1 else ())


@pytest.mark.parametrize("absent", [False, True])
def test_clips_contrasted_with_each_other_are_one_clip_with_the_frames_of_both(absent):
    clips = hide(squares(0), (1, 0)), squares(1)
    frames = random_frames(batch=2, frames=3)
    objects = on_grid(tuple(clip.targets for clip in clips), frames.mask_logits)
    layer = LayerPrediction(frames.class_logits, frames.mask_logits)
    matches = match_frames(layer, objects, CONFIG, seeded(), match_absent=True)
    found = contrast(criterion.context_instances(frames, objects, matches, absent, across_clips=True))
    long = replace(random_frames(frames=6), context_embedding=frames.context_embedding.flatten(0, 1)[None])
    joined = GridTargets(
        objects[0].labels,
        torch.cat([clip.masks for clip in objects]),
        torch.cat([clip.present for clip in objects]),
        objects[0].ids,
        unknown=torch.arange(0),
    )
    expected = contrast(criterion.context_instances(long, (joined,), (torch.cat(matches),), absent))
    torch.testing.assert_close(found, expected)


# --- switches of the data -------------------------------------------------------------------------------------------


def test_an_object_that_has_left_by_the_last_frame_is_taught_to_be_no_object(model):
    rules = DataRules(labels_of_last_frame=True)
    stays, leaves = hide(squares(), (1, 0)), hide(squares(), (1, 2))
    assert apply_rules(stays, rules, 3).targets.labels.equal(stays.targets.labels)
    ruled = apply_rules(leaves, rules, 3)
    assert ruled.targets.labels.tolist() == [3 if n == 1 else int(leaves.targets.labels[n]) for n in range(3)]
    frames = see(model, leaves)
    corrected, released = segmenter_terms(frames, leaves), segmenter_terms(frames, ruled)
    assert corrected["class"] != released["class"]


@pytest.mark.parametrize(("length", "frames", "frame_range"), [(7, 3, 0), (3, 3, 0), (2, 3, 0), (7, 3, 2)])
def test_the_last_start_is_never_drawn_by_the_released_rule(length, frames, frame_range):
    starts = []
    for rules in (DataRules(), DataRules(skip_last_start=True)):
        rng = np.random.default_rng(0)
        starts.append({tuple(draw_frames(length, frames, frame_range, rng, rules)) for _ in range(300)})
    corrected, released = starts
    if frame_range == 0 and length > frames:
        assert corrected - released == {tuple(range(length - frames, length))}
        assert released < corrected
        assert not any(length - 1 in clip for clip in released)
    else:
        assert released == corrected


def test_objects_that_always_count_as_present_are_matched_in_the_first_frame(model):
    late, rules = hide(squares(), (2, 0)), DataRules(always_present=True)
    ruled = apply_rules(late, rules, 3)
    queries = 4
    generator = seeded()
    layer = LayerPrediction(
        3 * torch.randn(1, 3, queries, 4, generator=generator),
        3 * torch.randn(1, 3, queries, 16, 24, generator=generator),
    )
    corrected, released = (on_grid((clip.targets,), layer.mask_logits) for clip in (late, ruled))
    first, second, _ = matching_costs(layer, corrected, CONFIG, seeded())[0]
    chosen = [match_first_appearance(layer, o, CONFIG, seeded())[0][0].tolist() for o in (corrected, released)]
    pair = min(permutations(range(queries), 2), key=lambda q: first[q, range(2)].sum())
    free = set(range(queries)) - set(pair)
    assert chosen[0] == [*pair, min(free, key=lambda q: second[q, 2])]
    assert chosen[1] == list(min(permutations(range(queries), 3), key=lambda q: first[q, range(3)].sum()))
    assert chosen[0] != chosen[1]
    frames = see(model, late)
    literal = {"match_absent": True, "absent_identity": True}
    terms = [segmenter_terms(frames, clip, **literal) for clip in (late, ruled)]
    assert_same(*terms, but=("context", "context_cosine"))  # absent, but itself: not one of the absent
    seen = squares()  # nobody is absent
    assert_same(*(segmenter_terms(frames, clip, **literal) for clip in (seen, apply_rules(seen, rules, 3))))


# --- followed without a switch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("positives", [1, 2])
def test_the_two_lines_of_eq_4_agree_for_one_positive_only(positives):
    x = torch.randn(positives + 3, 5, generator=seeded())
    anchors = positives + 1
    who = instances(x, [0] * anchors + [1, 2], [*range(anchors), 0, 0])
    first = second = 0.0
    for a in range(anchors):
        near = torch.stack([(x[a] @ x[p]).exp() for p in range(anchors) if p != a])
        far = torch.stack([(x[a] @ x[n]).exp() for n in (anchors, anchors + 1)])
        first = first - torch.log(near.sum() / (near.sum() + far.sum()))
        second = second + torch.log(1 + (far[None] / near[:, None]).sum())
    torch.testing.assert_close(contrast(who).loss, second)
    assert torch.allclose(first, second) is (positives == 1)


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_contrastive_terms_are_averaged_over_the_objects(objects):
    x = torch.randn(2 * objects + 1, 5, generator=seeded())
    identity = [n for n in range(objects) for _ in range(2)] + [objects]  # the last one is seen once
    who = instances(x, identity, [0, 1] * objects + [0])
    total = 0.0
    for a in range(2 * objects):
        others = torch.stack([x[n] for n in range(len(x)) if identity[n] != identity[a]])
        total = total + torch.log(1 + (others @ x[a] - x[a ^ 1] @ x[a]).exp().sum())  # Eq. 8: a sum
    loss = contrast(who).loss
    torch.testing.assert_close(loss, total / objects)
    assert torch.allclose(loss, total) is (objects == 1)


@pytest.mark.parametrize("clips", [1, 2])
def test_instance_losses_are_averaged_over_masks_and_queries(monkeypatch, clips):
    monkeypatch.setattr(criterion, "uncertain_points", lambda logits, *_, **__: torch.full((len(logits), 9, 2), 0.5))
    levels = torch.tensor([2.0, -1.0])
    layer = LayerPrediction(
        torch.randn(1, 1, 3, 4, generator=seeded()).expand(clips, -1, -1, -1),
        F.pad(levels, (0, 1))[:, None, None].expand(clips, 1, 3, 4, 4),
    )
    present = torch.ones(1, 2, dtype=torch.bool)
    target = GridTargets(
        torch.tensor([0, 2]), torch.ones(1, 2, 16, 16), present, ids=torch.arange(2), unknown=torch.arange(0)
    )
    terms = InstanceLoss(CONFIG, 3)(layer, (target,) * clips, (torch.tensor([[0, 1]]),) * clips, seeded())
    each = F.softplus(-levels)
    torch.testing.assert_close(terms["mask"], 5 * each.mean())
    assert not torch.allclose(terms["mask"], 5 * clips * each.sum())  # Eq. 3: a sum
    surprise = -layer.class_logits[0, 0].log_softmax(dim=-1)
    weighted = surprise[0, 0] + surprise[1, 2] + 0.1 * surprise[2, 3]
    torch.testing.assert_close(terms["class"], 2 * weighted / 2.1)
