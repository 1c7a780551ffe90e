from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nano import CATEGORIES, empty, hide, squares

from cavis.config import LossConfig
from cavis.losses.mask_losses import pairwise_dice, pairwise_mask_cross_entropy
from cavis.losses.matching import UNMATCHED, match_first_appearance, match_frames, matching_costs, on_grid
from cavis.records import LayerPrediction, Targets

CONFIG = LossConfig(points=64)


def guess(batch=1, frames=3, queries=6, seed=0, height=16, width=24):
    """Random predictions on the grid of the squares' clips."""
    generator = torch.Generator().manual_seed(seed)
    return LayerPrediction(
        torch.randn(batch, frames, queries, len(CATEGORIES) + 1, generator=generator),
        3 * torch.randn(batch, frames, queries, height, width, generator=generator),
    )


def grid(*clips, layer=None):
    return on_grid(tuple(clip.targets for clip in clips), (layer or guess()).mask_logits)


def seeded():
    return torch.Generator().manual_seed(3)


def cost_of(cost, query_of, wanted):
    return sum(cost[query_of[n], n] for n in wanted)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.booleans())
def test_each_frame_gets_the_cheapest_assignment_of_all(seed, match_absent):
    layer = guess(seed=seed, queries=4)
    clip = hide(squares(seed % 7), (0, 1), (2, 1), (1, 2))
    objects = grid(clip)
    costs = matching_costs(layer, objects, CONFIG, seeded())[0]
    matched = match_frames(layer, objects, CONFIG, seeded(), match_absent=match_absent)[0]
    for t in range(3):
        wanted = [n for n in range(3) if match_absent or objects[0].present[t, n]]
        best = min(
            sum(costs[t][q, n] for q, n in zip(order, wanted, strict=True))
            for order in permutations(range(4), len(wanted))
        )
        assert cost_of(costs[t], matched[t], wanted) == pytest.approx(best, abs=1e-4)
        assert all(matched[t, n] == UNMATCHED for n in range(3) if n not in wanted)


def test_costs_are_the_weighted_sum_of_eq_1():
    layer, objects = guess(), grid(squares())
    only = {"class_weight": 0.0, "mask_weight": 0.0, "dice_weight": 0.0}
    parts = [
        matching_costs(layer, objects, replace(CONFIG, **(only | {name: getattr(CONFIG, name)})), seeded())[0]
        for name in only
    ]
    np.testing.assert_allclose(sum(parts), matching_costs(layer, objects, CONFIG, seeded())[0], rtol=1e-4, atol=1e-4)
    probability = layer.class_logits[0].softmax(dim=-1)
    for n, label in enumerate(objects[0].labels):
        np.testing.assert_allclose(parts[0][:, :, n], -2 * probability[..., label], rtol=1e-5)


def test_costs_at_many_points_approach_costs_on_all_pixels():
    layer, clip = guess(frames=1), squares(frames=1)
    smooth = torch.nn.functional.interpolate(torch.randn(1, 6, 3, 4), size=(16, 24), mode="bilinear")
    layer = LayerPrediction(layer.class_logits, smooth[None])
    full = torch.nn.functional.interpolate(smooth, scale_factor=4, mode="bilinear")[0].flatten(1)
    truth = clip.targets.masks[:, 0].flatten(1).float()
    expected = 5 * (pairwise_mask_cross_entropy(full, truth) + pairwise_dice(full, truth))
    config = LossConfig(class_weight=0.0, points=20_000)
    sampled = matching_costs(layer, on_grid((clip.targets,), smooth[None]), config, seeded())[0][0]
    np.testing.assert_allclose(sampled, expected, atol=0.15)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_every_object_keeps_one_query_of_its_own(seed):
    generator = np.random.default_rng(seed)
    absent = [(n, t) for n in range(3) for t in range(3) if generator.random() < 0.4]
    clip = hide(squares(1), *absent)
    objects = grid(clip)
    matched = match_first_appearance(guess(seed=seed), objects, CONFIG, seeded())[0]
    assert (matched == matched[0]).all()
    seen = objects[0].present.any(dim=0)
    assert (matched[0][~seen] == UNMATCHED).all()
    queries = matched[0][seen]
    assert (queries >= 0).all()
    assert len(queries.unique()) == len(queries)


def test_objects_are_matched_where_they_first_appear():
    clip = hide(squares(2), (1, 0), (2, 0), (2, 1))
    layer, objects = guess(seed=4), grid(clip)
    costs = matching_costs(layer, objects, CONFIG, seeded())[0]
    matched = match_first_appearance(layer, objects, CONFIG, seeded())[0][0].tolist()
    assert matched[0] == costs[0][:, 0].argmin()
    free = [q for q in range(6) if q != matched[0]]
    assert matched[1] == min(free, key=lambda q: costs[1][q, 1])
    free.remove(matched[1])
    assert matched[2] == min(free, key=lambda q: costs[2][q, 2])


def test_more_objects_than_queries_leave_some_unmatched_and_none_shared():
    clip = hide(squares(2), (2, 0))
    layer = guess(queries=2)
    for matched in (
        match_first_appearance(layer, grid(clip, layer=layer), CONFIG, seeded())[0],
        match_frames(layer, grid(clip, layer=layer), CONFIG, seeded())[0],
    ):
        for row in matched:
            taken = row[row != UNMATCHED]
            assert len(taken.unique()) == len(taken) == 2


def test_a_broken_query_is_the_last_to_be_chosen():
    layer, objects = guess(queries=4), grid(squares())
    layer.mask_logits[:, :, 1] = torch.nan
    for match in (match_frames, match_first_appearance):
        assert not (match(layer, objects, CONFIG, seeded())[0] == 1).any()


def test_a_batch_is_matched_like_its_clips():
    layer, clips = guess(batch=2), (squares(0), hide(squares(1), (0, 0)))
    for match in (match_frames, match_first_appearance):
        generator = seeded()
        together = match(layer, grid(*clips, layer=layer), CONFIG, generator)
        generator = seeded()
        for b, clip in enumerate(clips):
            part = LayerPrediction(layer.class_logits[b : b + 1], layer.mask_logits[b : b + 1])
            assert torch.equal(together[b], match(part, grid(clip), CONFIG, generator)[0])


def test_a_clip_without_objects_matches_nothing():
    for match in (match_frames, match_first_appearance):
        assert match(guess(), grid(empty(squares())), CONFIG, seeded())[0].shape == (3, 0)


def test_targets_are_padded_to_the_extent_of_the_grid():
    masks = torch.ones(2, 1, 50, 70, dtype=torch.bool)
    targets = Targets(torch.zeros(2, dtype=torch.long), torch.arange(2), masks, torch.ones(2, 1, dtype=torch.bool))
    (clip,) = on_grid((targets,), torch.zeros(1, 1, 5, 16, 24))
    assert clip.masks.shape == (1, 2, 64, 96)
    assert (clip.masks[..., :50, :70] == 1).all()
    assert clip.masks.sum() == 2 * 50 * 70
