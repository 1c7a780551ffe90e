from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch
from nano import batch_of, frames_of, hide, images, nano_config, nano_model, nano_preset, random_frames, squares

from cavis.config import OURS, PAPER, RELEASED, Reading
from cavis.losses.criterion import SegmenterCriterion, TrackerCriterion
from cavis.model import build_model

THREE_CYCLE, SWAP = (1, 2, 0, 3, 4, 5, 6, 7), (1, 0, 2, 3, 4, 5, 7, 6)


def permuted(order):
    """Two frames with the same instances; in the second one their slots are in another order."""
    first = random_frames(queries=8)
    second = {
        name: value[:, :, list(order)]
        for name, value in vars(first).items()
        if name not in ("mask_features", "auxiliary")
    }
    second = replace(first, **second)
    both = {
        name: torch.cat((value, getattr(second, name)), dim=1)
        for name, value in vars(first).items()
        if name != "auxiliary"
    }
    return replace(first, **both)


@torch.no_grad()
@pytest.mark.parametrize(
    ("alignment", "order", "follows"),
    [("true", THREE_CYCLE, True), ("true", SWAP, True), ("inverted", SWAP, True), ("inverted", THREE_CYCLE, False)],
)
def test_tracks_start_from_their_own_slot_unless_a_cycle_of_three_is_inverted(alignment, order, follows):
    frames = permuted(order)
    tracks, state = nano_model(alignment=alignment, tracker_start="linked").track(frames)
    started = frames.core[0, 1, tracks.order[0, 1]]
    assert torch.equal(started, frames.core[0, 0]) is follows
    assert torch.equal(state.reference[0], frames.context_aware[0, 0]) is follows


@torch.no_grad()
def test_inverted_alignment_changes_the_tracks_after_a_cycle_of_three():
    frames = permuted(THREE_CYCLE)
    model, inverted = nano_model(), nano_model(alignment="inverted")
    inverted.load_state_dict(model.state_dict())
    left, right = model.track(frames)[0], inverted.track(frames)[0]
    assert (left.embeddings[:, 1] - right.embeddings[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_without_alignment_the_context_stays_where_the_segmenter_put_it():
    frames = random_frames(queries=8)
    _, state = nano_model(alignment="none").track(frames)
    assert torch.equal(state.context, frames.context_embedding[:, 0])
    _, aligned = nano_model(alignment="true").track(frames)
    slots = aligned.context[0][:, None] == frames.context_embedding[0, 0]
    assert slots.all(dim=-1).any(dim=1).all()  # the same rows, in track order


@torch.no_grad()
def test_the_context_that_is_carried_is_the_one_the_reading_names():
    frames = random_frames(queries=8)
    for context, carried in (("embedding", frames.context_embedding), ("surroundings", frames.context)):
        _, state = nano_model(tracker_context=context, alignment="none").track(frames)
        assert torch.equal(state.context, carried[:, 0])


def test_reading_eq_10_as_written_needs_the_segmenters_mlp():
    model = nano_model(tracker_context="surroundings")
    assert model.tracker.fusion is None
    with pytest.raises(ValueError, match="expected the segmenter's context MLP"):
        model.tracker(random_frames(queries=8))


@torch.no_grad()
def test_a_video_of_one_frame_is_tracked():
    for stage in ("segmenter", "tracker"):
        prediction, state = nano_model(stage=stage)(images(1, 1))
        assert prediction.order[0, 0].tolist() == list(range(8))
        assert prediction.references is None
        assert torch.isfinite(prediction.mask_logits).all()
        assert state.tracks.shape == (1, 8, 32)


@torch.no_grad()
def test_every_block_is_predicted_in_training_only():
    model = nano_model()
    frames = random_frames(frames=3, queries=8)
    assert model.track(frames)[0].auxiliary == ()
    prediction = nano_model().train().tracker(frames)[0]
    assert len(prediction.auxiliary) == 1
    assert prediction.references.shape == (1, 2, 8, 32)


@torch.no_grad()
def test_the_past_matters_and_the_future_does_not():
    model = nano_model()
    frames = random_frames(frames=4, queries=8)
    whole, _ = model.track(frames)
    begun, _ = model.track(frames_of(frames, slice(0, 3)))
    torch.testing.assert_close(whole.class_logits[:, :3], begun.class_logits)
    late, _ = model.track(frames_of(frames, slice(3, 4)))
    assert (whole.class_logits[:, 3] - late.class_logits[:, 0]).abs().max() > 1e-3


def readings():
    """Every reading with a name, and every value of every switch beside the defaults."""
    yield from {"ours": OURS, "paper": PAPER, "released": RELEASED}.items()
    for name, kind in get_type_hints(Reading).items():
        values = get_args(kind) or {bool: (False, True), int: (1, 3, 15), float: (0.0, 0.5)}[kind]
        for value in values:
            yield f"{name}={value}", Reading(**{name: value})


@pytest.mark.parametrize(("reading"), [pytest.param(reading, id=name) for name, reading in readings()])
def test_every_reading_learns_without_a_nan(reading):
    torch.manual_seed(0)
    model = build_model(replace(nano_config(), reading=reading)).train()
    batch = batch_of(hide(squares(0), (0, 1)), squares(1))
    loss = replace(nano_preset().loss, points=32)
    frames = model.segmenter(batch.frames)
    tracks, _ = model.track(frames)
    generator = torch.Generator().manual_seed(0)
    terms = SegmenterCriterion(loss, reading, 3)(frames, batch.targets, generator)
    terms |= {f"t_{k}": v for k, v in TrackerCriterion(loss, reading, 3)(tracks, batch.targets, generator).items()}
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_an_even_filter_is_refused():
    with pytest.raises(ValueError, match="expected an odd context_filter_size of at least 1, got 4"):
        Reading(context_filter_size=4)
