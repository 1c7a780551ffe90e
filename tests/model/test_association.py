from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nano import random_frames
from scipy.optimize import linear_sum_assignment

from cavis.model.association import FrameLinker, invert, match, take


def slots(batch=2, queries=7, width=5, seed=0):
    return torch.randn(batch, queries, width, generator=torch.Generator().manual_seed(seed))


def shuffles(batch, queries, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(queries, generator=generator) for _ in range(batch)])


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 9))
def test_match_undoes_any_shuffle(seed, batch, queries):
    reference = slots(batch, queries, 6, seed)
    current = take(reference, shuffles(batch, queries, seed + 1))
    assert torch.equal(take(current, match(reference, current)), reference)


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_match_does_not_mind_lengths(seed):
    reference = slots(seed=seed)
    current = take(reference, shuffles(2, 7, seed)) * torch.rand(2, 7, 1).clamp(min=0.01)
    torch.testing.assert_close(match(reference, current), match(reference, take(reference, shuffles(2, 7, seed))))


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_match_has_the_highest_similarity_of_all_permutations(seed, queries):
    reference, current = slots(1, queries, 3, seed), slots(1, queries, 3, seed + 1)
    cosine = torch.nn.functional.cosine_similarity(reference[0, :, None], current[0, None], dim=-1)
    best = max(sum(cosine[i, j].item() for i, j in enumerate(order)) for order in permutations(range(queries)))
    order = match(reference, current)[0]
    assert cosine[range(queries), order].sum().item() == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(
    ("shuffle", "restored"),
    [((0, 1, 2, 3), True), ((1, 0, 3, 2), True), ((3, 1, 2, 0), True), ((1, 2, 0, 3), False), ((1, 2, 3, 0), False)],
)
def test_the_inverted_permutation_is_right_for_swaps_and_wrong_for_longer_cycles(shuffle, restored):
    reference = slots(1, 4)
    current = take(reference, torch.tensor([shuffle]))
    order = match(reference, current)
    assert torch.equal(take(current, order), reference)
    assert torch.equal(take(current, invert(order)), reference) is restored


def test_the_inverted_permutation_is_what_the_released_helper_returns():
    reference, current = slots(1, 9, seed=1), slots(1, 9, seed=2)
    unit = [x[0] / x[0].norm(dim=-1, keepdim=True) for x in (reference, current)]
    cost = (1 - unit[0] @ unit[1].T).numpy()
    released = linear_sum_assignment(cost.T)[1]
    assert invert(match(reference, current))[0].tolist() == released.tolist()


def test_a_broken_slot_takes_the_place_nobody_wants():
    reference = slots(1, 4)
    current = reference.clone()
    current[0, 2] = torch.nan
    assert match(reference, current)[0].tolist() == [0, 1, 2, 3]


def test_the_linker_follows_slots_that_change_places():
    frames = random_frames(frames=1, queries=6)
    orders = torch.stack([torch.arange(6), torch.tensor([1, 2, 0, 3, 5, 4]), torch.tensor([5, 4, 3, 2, 1, 0])])
    moved = {
        name: torch.stack([getattr(frames, name)[:, 0, order] for order in orders], dim=1)
        for name in ("class_logits", "mask_logits", "queries", "core", "context", "context_embedding", "context_aware")
    }
    shuffled = type(frames)(**moved, mask_features=frames.mask_features.expand(-1, 3, -1, -1, -1))
    linked, _ = FrameLinker()(shuffled)
    for name in ("class_logits", "mask_logits", "core", "context_aware"):
        assert torch.equal(getattr(linked, name), getattr(frames, name).expand_as(getattr(linked, name)))
    assert torch.equal(linked.order[0], orders.argsort(dim=-1))


def test_a_slot_that_was_hidden_is_linked_to_the_place_it_left_and_not_to_the_one_it_was_given():
    first, hidden = random_frames(frames=1, queries=6), random_frames(frames=1, queries=6, seed=1)
    gone = 2
    core = first.context_aware.clone()
    core[0, 0, gone] = hidden.context_aware[0, 0, gone]  # an empty slot takes its place
    logits = torch.zeros_like(first.class_logits)
    logits[0, 0, gone, -1] = 50.0
    middle = replace(first, context_aware=core, class_logits=logits)
    back = replace(first, context_aware=first.context_aware.roll(1, dims=2), class_logits=logits.roll(1, dims=2))
    back.context_aware[0, 0, 0] = core[0, 0, gone]  # the empty slot is there still, beside the object
    orders = {}
    for seen in (True, False):
        linker, state = FrameLinker(seen=seen), None
        for frame in (first, middle, back):
            tracks, state = linker(frame, state)
        orders[seen] = tracks.order[0, 0].tolist()
    assert orders[True][gone] == gone + 1
    assert orders[False][gone] == 0
