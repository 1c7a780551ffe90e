"""The closed form of the contrastive terms against loops that spell them out."""

from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cavis.losses.contrastive import Instances, contrast, prototypes, track_contrast


def instances(seed, count, identities=3, frames=3, clips=1, width=4):
    """Random features; the same identity may be seen once in a frame."""
    generator = torch.Generator().manual_seed(seed)
    places = [(c, i, t) for c in range(clips) for i in range(identities) for t in range(frames)]
    chosen = [places[i] for i in torch.randperm(len(places), generator=generator)[:count].tolist()]
    clip, identity, frame = (torch.tensor([place[axis] for place in chosen], dtype=torch.long) for axis in range(3))
    features = torch.randn(len(chosen), width, generator=generator, dtype=torch.float64)
    return Instances(features, identity + clip * identities, frame, clip)


def naive(x, self_positive):
    """Eq. 4, second line, and the cosine regression: one anchor, positive and negative at a time."""
    losses, cosines = {}, {}
    for a in range(len(x.features)):
        inside = [i for i in range(len(x.features)) if x.clip[i] == x.clip[a]]
        positives = [
            i for i in inside if x.identity[i] == x.identity[a] and (self_positive or x.frame[i] != x.frame[a])
        ]
        negatives = [i for i in inside if x.identity[i] != x.identity[a]]
        if not positives or not negatives:
            continue
        anchor, total = x.features[a], 1.0
        for p in positives:
            for n in negatives:
                total = total + torch.exp(anchor @ x.features[n] - anchor @ x.features[p])
        errors = [
            (torch.cosine_similarity(anchor, x.features[i], dim=0) - wanted) ** 2
            for wanted, group in ((1, positives), (0, negatives))
            for i in group
        ]
        who = x.identity[a].item()
        losses.setdefault(who, []).append(torch.log(total))
        cosines.setdefault(who, []).append(torch.stack(errors).mean())
    if not losses:
        return x.features.sum() * 0, x.features.sum() * 0
    return (
        sum(sum(group) for group in losses.values()) / len(losses),
        sum(torch.stack(group).mean() for group in cosines.values()) / len(cosines),
    )


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(1, 2), st.booleans())
def test_both_numbers_equal_the_naive_loops_with_their_gradients(seed, count, clips, self_positive):
    x = instances(seed, count, clips=clips)
    results = []
    for function in (lambda i: contrast(i, self_positive=self_positive), lambda i: naive(i, self_positive)):
        leaf = x.features.clone().requires_grad_()
        loss, cosine = function(x._replace(features=leaf))
        gradients = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in (loss, cosine)]
        results.append((loss.detach(), cosine.detach(), *gradients))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("self_positive", [False, True])
def test_one_identity_alone_costs_nothing_and_keeps_the_graph(self_positive):
    features = torch.randn(3, 4, requires_grad=True)
    alone = Instances(features, torch.zeros(3, dtype=torch.long), torch.arange(3), torch.zeros(3, dtype=torch.long))
    loss, cosine = contrast(alone, self_positive=self_positive)
    (loss + cosine).backward()
    assert loss == 0
    assert cosine == 0
    assert torch.equal(features.grad, torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("self_positive", "first", "second"),
    [  # two objects at a right angle; the anchors of the first are of length 1 and 2, those of the second of length 1
        (False, 2 * log(1 + 2 * exp(-2)), 2 * log(1 + 2 * exp(-1))),
        (True, log(1 + 2 * (exp(-1) + exp(-2))) + log(1 + 2 * (exp(-2) + exp(-4))), 2 * log(1 + 4 * exp(-1))),
    ],
)
def test_the_papers_and_the_released_term_are_what_a_hand_finds(self_positive, first, second):
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    identity, frame = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    found = contrast(Instances(features, identity, frame, torch.zeros_like(frame)), self_positive=self_positive)
    assert found.loss.item() == pytest.approx((first + second) / 2)
    assert found.cosine.item() == 0  # same ones are parallel, different ones are not alike at all


def test_clips_never_make_pairs_with_each_other():
    whole = instances(1, 18, clips=2)
    parts = [Instances(*(value[whole.clip == c] for value in whole)) for c in range(2)]
    alone = [contrast(part) for part in parts]
    counts = [len(part.identity.unique()) for part in parts]
    for name in ("loss", "cosine"):
        mean = sum(getattr(one, name) * count for one, count in zip(alone, counts, strict=True)) / sum(counts)
        torch.testing.assert_close(getattr(contrast(whole), name), mean)


def test_alike_and_apart_is_rewarded():
    far = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 1]] * 5
    identity, frame, clip = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), torch.zeros(4, dtype=torch.long)
    good = contrast(Instances(far, identity, frame, clip))
    bad = contrast(Instances(far, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]), clip))
    assert good.loss < 1e-9 < bad.loss
    assert good.cosine < 1e-9 < bad.cosine


def test_large_features_do_not_overflow():
    features = 100 * torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    features.requires_grad_()
    ids = torch.tensor([0, 0, 1, 1, 2, 2])
    loss, cosine = contrast(Instances(features, ids, torch.tensor([0, 1] * 3), torch.zeros(6, dtype=torch.long)))
    (loss + cosine).backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()


def test_prototypes_equal_weighted_means_pixel_by_pixel():
    torch.manual_seed(0)
    features, weights = torch.randn(2, 3, 4, 5), torch.rand(2, 2, 4, 5)
    weights[0, 1] = 0
    result = prototypes(features, weights)
    for t in range(2):
        for n in range(2):
            pixels = [(weights[t, n, y, x], features[t, :, y, x]) for y in range(4) for x in range(5)]
            total = sum(weight for weight, _ in pixels)
            mean = sum(weight * pixel for weight, pixel in pixels) / total if total else torch.zeros(3)
            torch.testing.assert_close(result[t, n], mean)


def naive_tracks(references, slots):
    """For each track and pair of neighbouring frames: one positive, all other slots negative (Eq. 4)."""
    losses, cosines = [], []
    frames, queries = references.shape[:2]
    for i in range(1, frames):
        for j in (i - 1, i + 1):
            if j >= frames:
                continue
            for slot in slots.tolist():
                anchor, positive = references[i, slot], references[j, slot]
                others = [references[j, k] for k in range(queries) if k != slot]
                losses.append(torch.log(1 + sum(torch.exp(anchor @ n - anchor @ positive) for n in others)))
                errors = [
                    (torch.cosine_similarity(anchor, references[j, k], dim=0) - float(k == slot)) ** 2
                    for k in range(queries)
                ]
                cosines.append(sum(errors) / queries)
    return torch.stack(losses).mean(), torch.stack(cosines).mean()


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_track_contrast_equals_the_naive_loop_with_its_gradient(frames):
    torch.manual_seed(0)
    slots = torch.tensor([4, 1])
    results = []
    start = torch.randn(frames, 5, 6, dtype=torch.float64)
    for function in (track_contrast, naive_tracks):
        references = start.clone().requires_grad_()
        loss, cosine = function(references, slots)
        (loss + 3 * cosine).backward()
        results.append((loss.detach(), cosine.detach(), references.grad))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize(("frames", "slots"), [(1, [0, 1]), (3, [])])
def test_track_contrast_without_pairs_costs_nothing_and_keeps_the_graph(frames, slots):
    references = torch.randn(frames, 4, 3, requires_grad=True)
    loss, cosine = track_contrast(references, torch.tensor(slots, dtype=torch.long))
    (loss + cosine).backward()
    assert loss == cosine == 0
    assert torch.equal(references.grad, torch.zeros(frames, 4, 3))
