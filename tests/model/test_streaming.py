"""A video cut into windows, in any way, gives the tracks of the video in one piece."""

import pytest
import torch
from nano import clips_of, frames_of, images, nano_model, random_frames

FIELDS = ("class_logits", "mask_logits", "embeddings", "core", "context_aware", "order")
CUTS = [(1, 1, 1, 1, 1), (2, 3), (4, 1), (1, 4)]


def run(link, frames, cuts):
    """The predictions of consecutive windows, joined, and the last state."""
    start, state, parts = 0, None, []
    for length in cuts:
        prediction, state = link(frames_of(frames, slice(start, start + length)), state)
        parts.append(prediction)
        start += length
    return {name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in FIELDS}, state


def assert_same(left, right, **tolerance):
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@torch.no_grad()
@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize(
    "reading",
    [
        {},
        {"alignment": "inverted"},
        {"tracker_start": "tracked"},
        {"tracker_start": "linked"},
        {"alignment": "none"},
        {"tracker_context": "surroundings"},
        {"tracker_query": "core"},
    ],
    ids=str,
)
def test_the_tracker_does_not_notice_windows(cuts, reading):
    model = nano_model(**reading)
    frames = random_frames(batch=2, frames=5, queries=8)
    whole, state = run(model.track, frames, (5,))
    pieces, last = run(model.track, frames, cuts)
    assert_same(pieces, whole)
    assert_same(vars(last), vars(state))


@torch.no_grad()
@pytest.mark.parametrize("cuts", CUTS)
def test_the_linker_does_not_notice_windows(cuts):
    model = nano_model(stage="segmenter")
    frames = random_frames(batch=2, frames=5)
    whole, state = run(model.track, frames, (5,))
    pieces, last = run(model.track, frames, cuts)
    assert_same(pieces, whole, atol=0, rtol=0)
    assert_same(vars(last), vars(state), atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_the_whole_model_does_not_notice_windows(stage):
    model = nano_model(stage=stage)
    video = images(1, 5)
    whole, _ = model(video)
    state, parts = None, []
    for frame in video.split(1, dim=1):
        prediction, state = model(frame, state)
        parts.append(prediction)
    for name in FIELDS:
        joined = torch.cat([getattr(part, name) for part in parts], dim=1)
        torch.testing.assert_close(joined, getattr(whole, name), atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_a_batch_of_clips_equals_each_clip_alone(stage):
    model = nano_model(stage=stage)
    frames = random_frames(batch=2, frames=4, queries=8)
    together, state = model.track(frames)
    for b in (slice(0, 1), slice(1, 2)):
        alone, alone_state = model.track(clips_of(frames, b))
        assert_same({n: getattr(clips_of(together, b), n) for n in FIELDS}, {n: getattr(alone, n) for n in FIELDS})
        assert_same(vars(clips_of(state, b)), vars(alone_state))


@torch.no_grad()
def test_the_state_does_not_grow():
    model = nano_model()
    sizes = set()
    state = None
    for t in range(4):
        _, state = model.track(random_frames(queries=8, seed=t), state)
        sizes.add(sum(value.numel() for value in vars(state).values()))
    assert len(sizes) == 1
