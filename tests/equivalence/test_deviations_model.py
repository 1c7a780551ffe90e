"""Rows of docs/deviations.md about the model and its inference: where two readings part, and where they must agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nano import images, nano_model, random_frames

from cavis.config import PAPER, RELEASED
from cavis.inference.offline import best_of_both
from cavis.inference.online import RunningMean
from cavis.inference.postprocess import Sizes, instance_masks, mask_probabilities
from cavis.model import tracker as tracker_module
from cavis.model.association import FrameLinker, linked_by, match, take
from cavis.model.context import ContextPooling, inner_boundary
from cavis.model.layers import CrossAttention, Mlp

CYCLE, SWAPS, SAME = (1, 2, 0, 3, 4, 5, 6, 7), (1, 0, 2, 3, 4, 5, 7, 6), tuple(range(8))


def twins(first: dict, second: dict, lacking: tuple[str, ...] = ()):
    """Two models of the same weights; the second one may lack some of the first one's."""
    left, right = nano_model(**first), nano_model(**second)
    loaded = right.load_state_dict(left.state_dict(), strict=False)
    assert not loaded.missing_keys
    assert all(key.startswith(lacking) for key in loaded.unexpected_keys)
    return left, right


def scene(channels: int = 6, size: int = 24):
    """Masks well inside the image, and features."""
    generator = torch.Generator().manual_seed(0)
    logits = -torch.ones(1, 3, size, size)
    for q, (y, x) in enumerate(((7, 8), (9, 12), (11, 7))):
        logits[0, q, y : y + 5, x : x + 4] = 1
    return logits, torch.randn(1, channels, size, size, generator=generator)


def different(left, right) -> bool:
    return bool((left - right).abs().max() > 1e-3)


# --- switches -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_released_context_is_the_sum_of_the_papers_over_the_channels():
    logits, features = scene()
    paper, released = (ContextPooling(6, kind, 9)(logits, features) for kind in (PAPER.context, RELEASED.context))
    assert different(paper, released)
    torch.testing.assert_close(released, paper.sum(dim=-1, keepdim=True).expand_as(paper), atol=1e-5, rtol=1e-5)
    dense = F.conv2d(features, torch.full((6, 6, 9, 9), 1 / 81), padding=4)  # as the released code has it
    edge = inner_boundary(logits > 0).float()
    pooled = torch.einsum("bqhw,bchw->bqc", edge, dense) / (edge.sum(dim=(-2, -1))[..., None] + 1e-6)
    torch.testing.assert_close(released, pooled, atol=1e-5, rtol=1e-5)
    one = [ContextPooling(1, kind, 9)(logits, features[:, :1]) for kind in ("per_channel", "channel_sum")]
    torch.testing.assert_close(*one)  # with a single channel there is nothing to sum
    left, right = twins({"context": "per_channel"}, {"context": "channel_sum"})
    frames = [model.segmenter(images(1, 1)) for model in (left, right)]
    assert torch.equal(frames[0].core, frames[1].core)
    assert different(frames[0].context_embedding, frames[1].context_embedding)


@torch.no_grad()
def test_without_context_frames_are_linked_by_core_features_alone():
    with_context, without = twins({}, {"context": "none"}, lacking=("segmenter.context_mlp.",))
    left, right = (model.segmenter(images(1, 2)) for model in (with_context, without))
    assert torch.equal(left.core, right.core)
    assert torch.equal(right.context_aware, right.core)
    assert left.context_aware.shape[-1] == 2 * left.core.shape[-1]
    assert (right.context == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_both_halves_have_their_share_of_the_length_if_joined_and_alike_ones_if_balanced(stage):
    """In the first frame, whose features are what tracks are looked for by; with a tracker and without."""
    frames = random_frames(frames=1, queries=8)
    core, context = frames.core[:, 0], 0.2 * frames.core[:, 0].roll(1, 1)  # of other lengths, and each slot its own
    frames = replace(frames, context_aware=torch.cat((core, context), dim=-1)[:, None])
    kept = {}
    for association in ("joined", "balanced"):
        _, state = nano_model(stage=stage, association=association, tracker_start="linked").track(frames)
        kept[association] = state.reference
    order = match(kept["joined"][..., : core.shape[-1]], core)
    torch.testing.assert_close(take(frames.context_aware[:, 0], order), kept["joined"])
    halves = torch.cat([take(F.normalize(half, dim=-1), order) for half in (core, context)], dim=-1)
    torch.testing.assert_close(halves, kept["balanced"])
    joined, balanced = (F.normalize(kept[association], dim=-1)[..., core.shape[-1] :] for association in kept)
    assert (joined.square().sum(dim=-1) < 0.1).all()
    torch.testing.assert_close(balanced.square().sum(dim=-1), torch.full((1, 8), 0.5))
    without = replace(frames, context_aware=frames.core)
    assert torch.equal(linked_by(without, "balanced"), frames.core)


@torch.no_grad()
def test_the_learnable_filter_leaves_the_average_once_it_has_learned():
    logits, features = scene()
    average, learnable = (ContextPooling(6, kind, 9) for kind in ("per_channel", "learnable"))
    torch.testing.assert_close(learnable(logits, features), average(logits, features), atol=1e-5, rtol=1e-5)
    learnable.filter[:, :, 0, 0] += 1
    assert different(learnable(logits, features), average(logits, features))


@torch.no_grad()
def test_the_filter_size_matters_unless_the_features_are_constant():
    logits, features = scene()
    constant = features[:, :, :1, :1].expand_as(features)
    for kind in ("per_channel", "channel_sum"):
        nine, five = (ContextPooling(6, kind, size) for size in (9, 5))
        assert different(nine(logits, features), five(logits, features))
        torch.testing.assert_close(nine(logits, constant), five(logits, constant))


@torch.no_grad()
def test_a_last_relu_makes_the_embedding_non_negative():
    released, paper = twins({}, {"context_mlp_last_relu": True})
    left, right = (model.segmenter(images(1, 2)).context_embedding for model in (released, paper))
    assert different(left, right)
    assert (left < 0).any()
    assert torch.equal(right, left.relu())
    cosine = torch.cosine_similarity(right[0, 0, :, None], right[0, 0, None], dim=-1)
    assert cosine.min() >= 0
    for model in (released, paper):
        model.segmenter.context_mlp.layers[-1].bias += 100
    assert torch.equal(*(model.segmenter(images(1, 2)).context_embedding for model in (released, paper)))


@torch.no_grad()
def test_core_queries_do_not_see_the_context():
    context_aware, core = twins({}, {"tracker_query": "core"}, lacking=("tracker.fusion.",))
    frames = random_frames(frames=2, queries=8)
    moved = replace(frames, context_embedding=frames.context_embedding + 1)  # association is left as it was
    assert torch.equal(core.track(frames)[0].embeddings, core.track(moved)[0].embeddings)
    assert different(context_aware.track(frames)[0].embeddings, context_aware.track(moved)[0].embeddings)


@torch.no_grad()
def test_carried_surroundings_pass_the_mlp_and_carried_embeddings_a_layer_of_their_own():
    released, paper = twins({}, {"tracker_context": "surroundings"}, lacking=("tracker.fusion.",))
    frames = random_frames(frames=3, queries=8)
    assert different(released.track(frames)[0].embeddings, paper.track(frames)[0].embeddings)
    for model, carried in ((released, frames.context_embedding), (paper, frames.context)):
        context = model.track(frames)[1].context[0]
        assert torch.equal(context.sort(dim=0).values, carried[0, 2].sort(dim=0).values)  # the same rows, reordered
    alike = replace(frames, context_embedding=frames.context)
    layer = Mlp((64, 32))  # an MLP of one layer with the weights of the tracker's own
    layer.layers[0].load_state_dict(released.tracker.fusion.state_dict())
    left, right = released.tracker(alike)[0], paper.tracker(alike, context_mlp=layer)[0]
    assert torch.equal(left.embeddings, right.embeddings)


def tracks_of(monkeypatch, order, alignment: str):
    """The tracks of the same weights with Eq. 10 read rightly and otherwise, where every assignment is ``order``."""
    monkeypatch.setattr(tracker_module, "match", lambda reference, current: torch.tensor([order]))
    frames = random_frames(frames=3, queries=8)
    models = twins({"alignment": "true"}, {"alignment": alignment})
    true, other = (model.track(frames)[0].embeddings for model in models)
    assert torch.equal(true[:, 0], other[:, 0])
    return true, other


@torch.no_grad()
@pytest.mark.parametrize(("order", "agrees"), [(SAME, True), (SWAPS, False), (CYCLE, False)])
def test_a_track_starts_where_it_was_seen_or_found_or_where_the_links_lead(monkeypatch, order, agrees):
    tracked, linked = twins({"tracker_start": "tracked"}, {"tracker_start": "linked"})
    frames = random_frames(frames=4, queries=8)
    assert different(tracked.track(frames)[0].embeddings, linked.track(frames)[0].embeddings)
    monkeypatch.setattr(tracker_module, "match", lambda reference, current: torch.tensor([order]))
    first = random_frames(frames=1, queries=8)
    found, led = (model.track(first)[1].reference for model in (tracked, linked))
    assert torch.equal(found, first.context_aware[:, 0, order])
    assert torch.equal(led, first.context_aware[:, 0])
    assert torch.equal(found, led) is agrees
    seen, tracked = twins({"tracker_start": "seen"}, {"tracker_start": "tracked"})
    bias = seen.tracker.heads.class_head.bias
    _, before = seen.track(first)
    for no_object, sees in ((50.0, False), (-50.0, True)):
        bias[-1] = no_object
        second = random_frames(frames=1, queries=8, seed=1)
        after, found = (model.track(second, before)[1].reference for model in (seen, tracked))
        assert torch.equal(after, found) is sees
        assert torch.equal(after, before.reference) is not sees


@torch.no_grad()
@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_a_track_is_looked_for_as_it_looked_on_average_or_last(stage):
    average, last = (nano_model(stage=stage, tracker_start="linked", reference_memory=memory) for memory in (0.75, 0.0))
    last.load_state_dict(average.state_dict())
    frames = random_frames(frames=1, queries=8)
    sights = [frames, replace(frames, context_aware=frames.context_aware + 0.3 * frames.context_aware.roll(1, -1))]
    mean, latest = None, None
    for sight in (*sights, *sights):
        mean, latest = (model.track(sight, state)[1] for model, state in ((average, mean), (last, latest)))
    unit = [F.normalize(sight.context_aware[:, 0], dim=-1) for sight in sights]
    expected = unit[0]
    for t in (1, 0, 1):
        expected = 0.75 * F.normalize(expected, dim=-1) + 0.25 * unit[t]
    for state, wanted in ((mean, expected), (latest, unit[1])):
        found = F.normalize(state.reference, dim=-1)
        nearest = (found[0] @ F.normalize(wanted[0], dim=-1).T).max(dim=1)
        torch.testing.assert_close(nearest.values, torch.ones(8), atol=1e-5, rtol=0)
        assert sorted(nearest.indices.tolist()) == list(range(8))


@torch.no_grad()
@pytest.mark.parametrize(("order", "agrees"), [(SAME, True), (SWAPS, True), (CYCLE, False)])
def test_the_inverted_permutation_is_right_only_if_it_is_its_own_inverse(monkeypatch, order, agrees):
    true, inverted = tracks_of(monkeypatch, order, "inverted")
    assert torch.equal(true, inverted) is agrees
    assert different(true, inverted) is not agrees


@torch.no_grad()
@pytest.mark.parametrize(("order", "agrees"), [(SAME, True), (SWAPS, False), (CYCLE, False)])
def test_unaligned_context_is_right_only_if_nothing_moved(monkeypatch, order, agrees):
    true, unaligned = tracks_of(monkeypatch, order, "none")
    assert torch.equal(true, unaligned) is agrees
    assert different(true, unaligned) is not agrees


# --- followed without a switch --------------------------------------------------------------------------------------


def laplacian(maps, sign: int):
    kernel = -sign * torch.ones(1, 1, 3, 3)
    kernel[..., 1, 1] = 8 * sign
    return F.conv2d(maps.flatten(0, 1)[:, None], kernel, padding=1)[:, 0].view(maps.shape)


def test_the_boundary_lies_inside_the_binarised_mask():
    logits, _ = scene()
    mask = (logits > 0).float()
    edge = inner_boundary(logits > 0)
    assert torch.equal(edge, laplacian(mask, 1) > 0)
    outside = laplacian(mask, -1) > 0  # a Laplacian of the other sign, as common
    assert edge.any()
    assert not (edge & outside).any()
    assert not (outside & (mask > 0)).any()
    soft = logits * (1 + torch.arange(24.0) ** 2)  # the same masks, but not binarised
    assert not torch.equal(laplacian(soft, 1) > 0, edge)


@torch.no_grad()
def test_an_empty_mask_has_a_context_of_zeros_instead_of_none():
    logits, features = scene()
    logits[0, 1] = -1
    edge = inner_boundary(logits > 0).float()
    as_written = torch.einsum("bqhw,bchw->bqc", edge, features) / edge.sum(dim=(-2, -1))[..., None]
    ours = ContextPooling(6, "per_channel", 1)(logits, features)
    assert as_written[0, 1].isnan().all()
    assert (ours[0, 1] == 0).all()
    torch.testing.assert_close(ours[0, ::2], as_written[0, ::2], atol=1e-5, rtol=1e-5)


def test_the_gradient_of_the_context_reaches_the_features_and_not_the_masks():
    logits, features = (x.requires_grad_() for x in scene())
    ContextPooling(6)(logits * 1, features * 1).square().sum().backward()
    assert features.grad.abs().max() > 0
    assert logits.grad is None


@torch.no_grad()
def test_attention_has_heads_and_projections_and_without_them_is_eq_9():
    torch.manual_seed(0)
    residual, query, key, value = torch.randn(4, 1, 5, 16)
    plain = ((query @ key.transpose(1, 2)) / 4).softmax(dim=-1) @ value
    ours = CrossAttention(16, 4)
    assert different(ours(residual, query, ours.attention.project(key, value)), ours.norm(residual + plain))
    single = CrossAttention(16, 1)
    for layer in (single.attention.query, single.attention.key, single.attention.value, single.attention.out):
        layer.weight.copy_(torch.eye(16))
        layer.bias.zero_()
    written = single(residual, query, single.attention.project(key, value))
    torch.testing.assert_close(written, single.norm(residual + plain), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_values_are_the_queries_before_the_final_norm():
    model, frames = nano_model(), random_frames(frames=2, queries=8)
    longer = replace(frames, queries=3 * frames.queries)  # the same after a norm, and the same to a cosine
    assert different(model.track(frames)[0].embeddings, model.track(longer)[0].embeddings)
    for block in model.tracker.blocks:
        block.cross.attention.value.weight.zero_()
    assert torch.equal(model.track(frames)[0].embeddings, model.track(longer)[0].embeddings)


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 2])
def test_in_the_first_frame_tracks_ask_anew_in_every_block(blocks):
    tracker, frames = nano_model().tracker, random_frames(queries=8)
    tracker.blocks = tracker.blocks[:blocks]
    core, context = frames.core[:, 0], frames.context_embedding[:, 0]
    asked = tracker.fuse(core, context, None)
    once = anew = core
    for block in tracker.blocks:
        memory = block.project(asked[:, None], frames.queries).at(0)
        once = block(once, asked, memory)
        anew = block(anew, tracker.fuse(anew, context, None), memory)
    tracks = tracker(frames)[1].tracks
    torch.testing.assert_close(tracks, anew)
    assert different(tracks, once) is (blocks > 1)


@torch.no_grad()
def test_tracks_start_and_frames_are_linked_in_the_order_of_core_and_context_together():
    frames = random_frames(frames=2, queries=8)
    core, embedding = frames.core.clone(), frames.context_embedding.clone()
    core[0, 1] = core[0, 0, list(CYCLE)]  # the core features say one thing
    embedding[0, 1] = 9 * embedding[0, 0]  # the embeddings, longer, another
    both = torch.cat((core, embedding), dim=-1)
    frames = replace(frames, core=core, context_embedding=embedding, context_aware=both)
    by_core = FrameLinker()(replace(frames, context_aware=core))[0].order[0, 1]
    assert torch.equal(by_core, torch.tensor(CYCLE).argsort())
    for linked in (FrameLinker()(frames)[0], nano_model(tracker_start="linked").track(frames)[0]):
        order = linked.order[:, 1]
        assert torch.equal(order, match(both[:, 0], both[:, 1]))
        assert not torch.equal(order[0], by_core)


@torch.no_grad()
def test_context_is_aligned_by_features_before_the_final_norm():
    model, frames = nano_model(), random_frames(queries=8)
    as_written = []
    for core in (frames.core, frames.queries):
        tracks, state = model.track(replace(frames, core=core))
        embedding = frames.context_embedding[:, 0]
        assert torch.equal(state.context, take(embedding, match(state.tracks, frames.queries[:, 0])))
        normed = match(tracks.embeddings[:, 0], core[:, 0])
        as_written.append(torch.equal(state.context, take(embedding, normed)))
    assert as_written == [False, True]  # a norm that changes nothing makes no difference


def test_logits_are_averaged_and_not_probabilities():
    torch.manual_seed(0)
    logits = 3 * torch.randn(5, 4, 3)
    standing = logits[:1].expand(5, -1, -1)
    for frames, agree in ((logits, False), (standing, True)):
        mean = RunningMean()
        mean.add(frames[:2])
        mean.add(frames[2:])
        averaged = frames.softmax(dim=-1).mean(dim=0).numpy()
        assert np.allclose(mean.probabilities(), averaged, atol=1e-5) is agree
        np.testing.assert_allclose(mean.probabilities(), frames.mean(dim=0).softmax(dim=-1), atol=1e-6)


def test_offline_scores_are_the_best_of_refiner_and_tracker():
    refined, tracked = (torch.randn(4, 3, generator=torch.Generator().manual_seed(i)).softmax(dim=-1) for i in (1, 2))
    both = best_of_both(refined.numpy(), tracked.numpy())
    assert not np.allclose(both, refined)
    for q in range(4):
        assert both[q, :2].tolist() == [max(refined[q, k].item(), tracked[q, k].item()) for k in range(2)]
        assert both[q, 2] == refined[q, 2].item()
    np.testing.assert_array_equal(best_of_both(refined.numpy(), refined.numpy()), refined)


@pytest.mark.parametrize(("height", "agrees"), [(32, True), (75, False)])
def test_segments_are_cut_from_probabilities_and_instances_from_logits(height, agrees):
    logits = 4 * torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(0))
    sizes = Sizes((height, height * 3 // 2), (32, 48))
    instances, segments = instance_masks(logits, sizes), mask_probabilities(logits, sizes) > 0.5
    assert torch.equal(instances, segments) is agrees  # without a second resize they are the same
    assert (instances != segments).float().mean() < 0.1
