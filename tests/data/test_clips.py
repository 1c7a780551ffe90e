from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nano import Squares, consecutive, nano_model, squares

from cavis.config import DataRules
from cavis.data.augmentation import Crop, augment
from cavis.data.clips import PADDING, apply_rules, collate, draw_frames, enlarge, mark_present, relabel
from cavis.losses.matching import on_grid


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


def test_clips_of_different_sizes_are_padded_right_and_below():
    low, narrow = squares(0), squares(1)
    low = augment(low, (Crop(0, 0, 40, 96),))
    narrow = augment(narrow, (Crop(0, 0, 64, 70),))
    batch = collate([low, narrow])
    assert batch.frames.shape == (2, 3, 3, 64, 96)
    for b, clip in enumerate((low, narrow)):
        height, width = clip.frames.shape[-2:]
        for whole, part, ground in (
            (batch.frames[b], clip.frames, torch.tensor(PADDING)[:, None, None]),
            (batch.targets[b].masks, clip.targets.masks, torch.tensor(False)),
        ):
            assert whole[..., :height, :width].equal(part)
            assert (whole[..., height:, :] == ground).all()
            assert (whole[..., :, width:] == ground).all()
        for name in ("labels", "ids", "present"):
            assert getattr(batch.targets[b], name).equal(getattr(clip.targets, name))


def test_the_model_turns_padding_into_the_zeros_it_pads_with():
    segmenter = nano_model(stage="segmenter").segmenter
    clips = [augment(squares(0), (Crop(0, 0, 50, 96),)), squares(1)]
    batch = segmenter.normalise(collate(clips).frames[0])
    alone = segmenter.normalise(clips[0].frames)
    assert alone.shape == batch.shape  # 50 rows are padded to 64 either way
    assert batch[..., :50, :].equal(alone[..., :50, :])
    assert not alone[..., 50:, :].any()
    assert batch[..., 50:, :].abs().max() < 0.01


def test_padding_counts_as_background_wherever_it_comes_from():
    clip = augment(squares(0), (Crop(0, 0, 50, 96),))
    logits = torch.zeros(1, 3, 8, 16, 24)
    (alone,) = on_grid((clip.targets,), logits)
    (padded, _) = on_grid(collate([clip, squares(1)]).targets, logits.expand(2, -1, -1, -1, -1))
    assert padded.masks.equal(alone.masks)


def test_clips_of_different_lengths_are_refused_by_their_lengths():
    with pytest.raises(ValueError, match=r"expected clips of one length in a batch, got \[2, 3\] frames"):
        collate([squares(frames=3), squares(frames=2)])


def test_the_released_rule_fills_short_videos_up_in_any_order():
    released, corrected = (
        {tuple(draw_frames(3, 6, 0, np.random.default_rng(seed), rules)) for seed in range(300)}
        for rules in (DataRules(shuffled_repeats=True), DataRules())
    )
    assert corrected == {(0, 1, 2, 2, 2, 2)}
    assert {clip[:3] for clip in released} == {(0, 1, 2)}
    assert {clip[3:] for clip in released} == set(product(range(3), repeat=3))
    assert draw_frames(9, 6, 0, np.random.default_rng(0), DataRules(shuffled_repeats=True)) == draw_frames(
        9, 6, 0, np.random.default_rng(0)
    )


def test_the_released_rule_may_draw_a_neighbour_twice():
    released, corrected = (
        [draw_frames(9, 3, 2, np.random.default_rng(seed), rules) for seed in range(300)]
        for rules in (DataRules(repeated_neighbours=True), DataRules())
    )
    assert all(len(set(clip)) == 3 for clip in corrected)
    assert {len(set(clip)) for clip in released} == {2, 3}
    assert all(clip == sorted(clip) for clip in released)


def test_labels_follow_what_was_annotated_and_presence_what_is_left_in_sight():
    clip = squares()
    gone = replace(clip, targets=replace(clip.targets, present=torch.zeros_like(clip.targets.present)))
    rules = DataRules(labels_of_last_frame=True, always_present=True)
    assert relabel(gone, rules, 3).targets.present.equal(gone.targets.present)
    assert (relabel(gone, rules, 3).targets.labels == 3).all()
    assert mark_present(gone, rules).targets.present.all()
    assert mark_present(gone, rules).targets.labels.equal(clip.targets.labels)


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


def test_an_enlarged_batch_is_as_it_would_be_beside_a_larger_clip():
    small, taller = (Squares(2, height=height).draw(np.random.default_rng(0), consecutive(2)) for height in (64, 96))
    beside, enlarged = collate([small, taller]), enlarge(collate([small]), *taller.frames.shape[-2:])
    assert enlarged.frames[0].equal(beside.frames[0])
    assert enlarged.targets[0].masks.equal(beside.targets[0].masks)
    assert enlarge(beside, *beside.frames.shape[-2:]) is beside
