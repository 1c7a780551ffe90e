"""The context filter taken apart agrees with the model's own, and the measurements with what they claim to measure."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cavis.analysis.context_filters import (
    ClipView,
    centres,
    contexts,
    filter_steps,
    learn_filter,
    score_core,
    score_filter,
    score_place,
    view_clip,
)
from cavis.checkpoints.hub import ReadyModel, load_model
from cavis.data.synthetic import TwinsClip, TwinsConfig

KINDS = ("per_channel", "channel_sum", "learnable", "none")


@pytest.fixture(scope="module")
def ready() -> ReadyModel:
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def view(ready) -> ClipView:
    return view_clip(ready, TwinsClip(3, TwinsConfig(frames=9)), (2, 5, 8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [3, 9, 15])
def test_the_steps_of_eq_6_lead_to_the_models_own_context(view, kind, size):
    t, n = np.argwhere(view.seen)[0].tolist()
    learned = learn_filter([view], lambda both: both, size, 1) if kind == "learnable" else None
    steps = filter_steps(view, t, n, kind, size, learned)
    assert np.array_equal(steps.boundary, steps.laplacian > 0)
    by_hand = (steps.blurred * steps.boundary).sum(axis=(1, 2)) / steps.boundary.sum()
    scale = max(1.0, np.abs(by_hand).max())
    assert np.allclose(steps.pooled[n], by_hand, atol=1e-5 * scale)
    if kind == "channel_sum":
        assert np.ptp(steps.pooled[n]) == 0


def test_the_context_is_the_one_the_segmenter_itself_hands_on(ready, view):
    images = torch.from_numpy(view.pictures[:, :, :240]).permute(0, 3, 1, 2)[None]
    with torch.no_grad():
        frames = ready.model.segmenter(images)
    own = contexts(view, ready.model.segmenter.context_pooling.kind, 9)
    for t, n in np.argwhere(view.seen):
        distance = (frames.context[0, t] - own[t, n]).abs().amax(dim=1)
        assert distance.min() < 1e-4


def test_slots_are_matched_to_the_objects_they_overlap(view):
    world = TwinsClip(3, TwinsConfig(frames=9))
    assert view.seen.any(axis=0).sum() >= 3
    for t, n in np.argwhere(view.seen):
        truth = np.pad(world.render((2, 5, 8)[t])[1][n], ((0, 0), (0, 16)))
        predicted = np.kron(view.masks[t, n].numpy(), np.ones((4, 4), bool))
        assert (truth & predicted).sum() / (truth | predicted).sum() > 0.4


def made(contexts_of: np.ndarray) -> ClipView:
    """Four frames of two twins; the feature map holds each twin's context where its mask is."""
    features = np.zeros((4, 2, 4, 9), np.float32)
    masks = np.zeros((4, 2, 4, 9), bool)
    for t in range(4):
        for n in range(2):
            features[t, :, :, 5 * n : 5 * n + 4] = contexts_of[t, n][:, None, None]
            masks[t, n, 1:3, 5 * n + 1 : 5 * n + 3] = True
    return ClipView(
        pictures=np.zeros((4, 16, 36, 3), np.uint8),
        features=torch.from_numpy(features),
        masks=torch.from_numpy(masks),
        core=torch.from_numpy(np.ones((4, 2, 2), np.float32)),
        seen=np.ones((4, 2), bool),
        names=("a", "b"),
        twin_of=np.array([1, 0]),
        companion_of=np.array([-1, -1]),
    )


def test_twins_in_different_places_are_told_apart_and_those_who_swap_places_are_not():
    left, right = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    stay = made(np.array([[left, right]] * 4))
    swap = made(np.array([[left, right], [left, right], [right, left], [right, left]]))
    for view, right_share, self_alike in ((stay, 1.0, 1.0), (swap, 0.0, 0.0)):
        score = score_filter([view], "per_channel", 3, gap=2)
        assert score.mean_right == right_share
        assert score.self_alike == pytest.approx(self_alike, abs=1e-5)
        assert score.twins_alike == pytest.approx(0.0, abs=1e-5)


def test_twins_companions_and_all_others_are_measured_each_on_their_own_pairs():
    twins = made(np.array([[[1.0, 0.0], [0.6, 0.8]]] * 4))
    for relation, measure in (("twin_of", "twins_alike"), ("companion_of", "companions_alike"), ("", "others_alike")):
        alone = replace(twins, twin_of=np.array([-1, -1]))
        pairs = {"twin_of": np.array([1, 0]), "companion_of": np.array([-1, 0])}
        view = replace(alone, **{name: pairs[name] for name in [relation] if name})
        score = score_filter([view], "per_channel", 1, gap=2)
        for name in ("twins_alike", "companions_alike", "others_alike"):
            value = getattr(score, name)
            assert value == pytest.approx(0.6, abs=1e-5) if name == measure else np.isnan(value)


def test_place_alone_is_right_as_long_as_nobody_moves():
    view = made(np.ones((4, 2, 2)))
    assert score_place([view], gap=2).mean_right == 1.0
    assert centres(view)[0].tolist() == [[1.5, 1.5], [1.5, 6.5]]


def test_what_cannot_be_told_apart_is_a_guess_and_what_is_not_seen_is_no_number():
    view = made(np.ones((4, 2, 2)))
    assert score_filter([view], "none", 3, gap=2).mean_right == 0.5
    assert np.isnan(score_filter([view], "none", 3, gap=2).twins_alike)
    assert score_core([view], gap=2).mean_right == 0.5
    unseen = replace(view, seen=np.zeros((4, 2), bool))
    assert np.isnan(score_filter([unseen], "per_channel", 3, gap=2).mean_right)


def test_learning_changes_the_filter_and_lowers_its_loss(view, ready):
    mlp = ready.model.segmenter.context_mlp
    start, later = (learn_filter([view], mlp, 3, steps).filter for steps in (0, 3))
    assert torch.allclose(start, torch.full_like(start, 1 / 9))
    assert not torch.allclose(start, later)
    assert all(not parameter.requires_grad for parameter in mlp.parameters())
