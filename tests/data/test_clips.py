from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nano import Squares, consecutive, squares

from cavis.config import DataRules
from cavis.data.clips import apply_rules, collate, draw_frames


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 6), st.integers(0, 10_000))
def test_frames_are_sorted_in_range_and_as_many_as_asked_for(length, frames, frame_range, seed):
    drawn = draw_frames(length, frames, frame_range, np.random.default_rng(seed))
    assert len(drawn) == frames
    assert drawn == sorted(drawn)
    assert all(isinstance(t, int) and 0 <= t < length for t in drawn)
    assert drawn == draw_frames(length, frames, frame_range, np.random.default_rng(seed))


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 10_000))
def test_range_zero_means_consecutive_frames(length, frames, seed):
    drawn = draw_frames(length, frames, 0, np.random.default_rng(seed))
    steps = set(np.diff(drawn).tolist())
    if length >= frames:
        assert steps <= {1}
    else:
        assert drawn == [*range(length), *[length - 1] * (frames - length)]


@given(st.integers(2, 40), st.integers(2, 5), st.integers(1, 6), st.integers(0, 10_000))
def test_frames_lie_around_one_of_them_and_differ_where_they_can(length, frames, frame_range, seed):
    drawn = draw_frames(length, frames, frame_range, np.random.default_rng(seed))
    assert any(all(abs(t - reference) <= frame_range for t in drawn) for reference in drawn)
    if min(frame_range, length - 1) >= frames - 1:  # enough neighbours even at the first frame
        assert len(set(drawn)) == frames


@pytest.mark.parametrize(("frames", "frame_range"), [(3, 0), (3, 2), (1, 0), (1, 2)])
def test_every_frame_can_be_drawn_the_last_start_too(frames, frame_range):
    rng = np.random.default_rng(0)
    drawn = [draw_frames(7, frames, frame_range, rng) for _ in range(300)]
    assert {t for clip in drawn for t in clip} == set(range(7))
    if frame_range == 0:
        assert {clip[0] for clip in drawn} == set(range(7 - frames + 1))


def test_an_empty_video_is_refused():
    with pytest.raises(ValueError, match="expected a video with at least one frame, got 0"):
        draw_frames(0, 2, 0, np.random.default_rng(0))


def test_clips_are_stacked_in_order():
    clips = [squares(seed) for seed in range(3)]
    batch = collate(clips)
    for b, clip in enumerate(clips):
        assert batch.frames[b].equal(clip.frames)
        assert batch.targets[b] is clip.targets


def test_clips_of_different_sizes_are_refused_by_their_sizes():
    small = Squares(height=48).draw(np.random.default_rng(0), consecutive(3))
    with pytest.raises(ValueError, match=r"expected clips of one length and size .*\(3, 3, 48, 96\), \(3, 3, 64, 96\)"):
        collate([squares(), small])


def test_the_released_rules_never_draw_the_last_start_and_the_corrected_ones_do():
    rng = np.random.default_rng(0)
    released = {draw_frames(7, 3, 0, rng, DataRules(skip_last_start=True))[0] for _ in range(200)}
    corrected = {draw_frames(7, 3, 0, rng)[0] for _ in range(200)}
    assert released == set(range(4))
    assert corrected == set(range(5))


def test_labels_of_the_last_frame_turn_an_object_that_left_into_no_object():
    clip = squares()
    absent = clip.targets.present.clone()
    absent[0, -1] = False
    left = replace(clip, targets=replace(clip.targets, present=absent))
    ruled = apply_rules(left, DataRules(labels_of_last_frame=True), num_classes=3)
    assert ruled.targets.labels[0] == 3
    assert ruled.targets.labels[1:].equal(clip.targets.labels[1:])
    assert apply_rules(left, DataRules(), num_classes=3).targets.labels.equal(clip.targets.labels)
    assert apply_rules(left, DataRules(always_present=True), num_classes=3).targets.present.all()
