from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import assert_same_clip, empty, hide, squares

from cavis.config import Augmentation
from cavis.data.augmentation import (
    Crop,
    Drift,
    Flip,
    Paste,
    Resize,
    Rotate,
    Twin,
    add_twin,
    augment,
    draw_paste,
    draw_steps,
    draw_twin,
    fit,
    paste,
    seen_in,
)
from cavis.data.looks import Tone
from cavis.data.mixing import repeat
from cavis.inference.postprocess import network_size, to_network
from cavis.presets import VIPSEG_AUGMENTATION, VIS_AUGMENTATION
from cavis.records import Clip, Targets

SMALL = Augmentation(
    crop=0.5,
    crop_short_sides=(50, 70),
    crop_range=(40, 60),
    short_sides=(32, 48, 80),
    max_side=100,
    flip=0.5,
    rotation=15,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def lantern(seed=0, frames=3, height=64, width=96):
    """One object that shines red on black: its mask can be read off the picture."""
    masks = torch.zeros(1, frames, height, width, dtype=torch.bool)
    for t in range(frames):
        top, left = rng(seed + t).integers(4, 24, 2)
        masks[0, t, top : top + 34, left : left + 50] = True
    pictures = torch.zeros(frames, 3, height, width, dtype=torch.uint8)
    pictures[:, 0] = 255 * masks[0]
    targets = Targets(
        torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), masks, masks.flatten(2).any(2)
    )
    return Clip(pictures, targets)


def grown(masks):
    """Masks and what lies within two pixels of them; beyond the picture counts as within."""
    padded = torch.nn.functional.pad(masks.float(), (2, 2, 2, 2), value=1.0)
    return torch.nn.functional.max_pool2d(padded, 5, stride=1).bool()


def still(seed=0, frames=4):
    return repeat(squares(seed, frames=1), frames)


def drawn(augmentation, count=300, size=(720, 1280), frames=3, **more):
    return [draw_steps(augmentation, size, frames, rng(seed), **more) for seed in range(count)]


# --- applying -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("is_still", [False, True])
def test_masks_stay_on_their_objects(seed, is_still):
    clip = repeat(lantern(seed, frames=1), 3) if is_still else lantern(seed)
    changed = augment(clip, draw_steps(SMALL, (64, 96), 3, rng(seed), still=is_still))
    shining = changed.frames[:, 0] > 127
    mask = changed.targets.masks[0]
    assert shining.shape == mask.shape
    assert not (shining & ~grown(mask)).any()
    assert not (~shining & ~grown(~mask)).any()


def test_a_drifting_camera_moves_steadily_and_stays_within_the_picture():
    size, frames = (64, 96), 6
    drifts = [step for steps in drawn(Augmentation(drift=0.4), size=size, frames=frames, still=True) for step in steps]
    windows = np.array([drift.windows for drift in drifts])
    places, sides = windows[..., :2], windows[..., 2:]
    assert sides.min() >= 0.6
    assert sides.min() < 0.65
    assert sides.max() <= 1
    assert places.min() >= 0
    assert (places + sides).max() <= 1 + 1e-9
    np.testing.assert_allclose(np.diff(windows, n=2, axis=1), 0, atol=1e-9)
    assert np.abs(windows[:, -1] - windows[:, 0]).max(axis=1).min() > 0
    assert drawn(Augmentation(drift=0.4), count=1, frames=frames) == [()]  # videos have motion of their own


@pytest.mark.parametrize("seed", range(6))
def test_masks_drift_with_their_objects(seed):
    clip = repeat(lantern(seed, frames=1), 3)
    changed = augment(clip, draw_steps(Augmentation(drift=0.4), (64, 96), 3, rng(seed), still=True))
    shining, mask = changed.frames[:, 0] > 127, changed.targets.masks[0]
    assert not (shining & ~grown(mask)).any()
    assert not (~shining & ~grown(~mask)).any()
    assert not mask[0].equal(mask[2])
    whole = Drift(((0.0, 0.0, 1.0),) * 3)
    assert_same_clip(augment(clip, (whole,)), augment(clip, ()))


def test_masks_are_resampled_by_the_nearest_pixel():
    clip, steps = squares(1), (Resize(91, 53), Crop(5, 7, 60, 40), Flip())
    rows = ((np.arange(91) + 0.5) * 64 / 91).astype(int)[5:65]
    columns = ((np.arange(53) + 0.5) * 96 / 53).astype(int)[7:47][::-1]
    expected = clip.targets.masks.numpy()[:, :, rows][..., columns]
    kept = expected.any(axis=(1, 2, 3))
    np.testing.assert_array_equal(augment(clip, steps).targets.masks, expected[kept])


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (37, 200), (300, 301)])
def test_pictures_are_resized_in_training_as_at_inference(size):
    assert network_size(*size, 48, 80) == (fit(size, 48, 80).height, fit(size, 48, 80).width)
    picture = rng().integers(0, 256, (*size, 3), dtype=np.uint8)
    nothing = empty(squares(frames=1)).targets
    clip = Clip(torch.from_numpy(picture).permute(2, 0, 1)[None], replace(nothing, masks=torch.zeros(0, 1, *size) > 0))
    seen = to_network(picture, network_size(*size, 48, 80))
    assert augment(clip, (fit(size, 48, 80),)).frames[0].equal(seen)


def test_every_frame_is_changed_as_if_it_were_alone():
    clip, steps = squares(3), (Resize(50, 80), Crop(3, 4, 40, 60), Flip(), Tone(1.1, 0.8, 0.7))
    together = augment(clip, steps)
    for t in range(3):
        targets = replace(
            clip.targets, masks=clip.targets.masks[:, t : t + 1], present=clip.targets.present[:, t : t + 1]
        )
        alone = augment(Clip(clip.frames[t : t + 1], targets), steps)
        assert alone.frames[0].equal(together.frames[t])
        for n, identity in enumerate(together.targets.ids.tolist()):
            row = (alone.targets.ids == identity).nonzero().flatten()
            expected = alone.targets.masks[row[0], 0] if len(row) else torch.zeros(40, 60, dtype=torch.bool)
            assert together.targets.masks[n, t].equal(expected)


@pytest.mark.parametrize("seed", range(4))
def test_what_frames_of_a_still_picture_share_may_be_done_once(seed):
    clip = still(seed)
    steps = (*draw_steps(SMALL, (64, 96), 4, rng(seed), still=True), Tone(1.2, 0.9, 0.5))
    assert_same_clip(augment(clip, steps), replace(augment(replace(clip, still=False), steps), still=True))


def test_a_quarter_turn_is_a_quarter_turn():
    clip = lantern(frames=2, height=96)
    turned = augment(clip, (Rotate((90.0, 0.0), (0.5, 0.5)),))
    np.testing.assert_array_equal(turned.frames[0], np.rot90(clip.frames[0], axes=(1, 2)))
    np.testing.assert_array_equal(turned.targets.masks[0, 0], np.rot90(clip.targets.masks[0, 0]))
    assert turned.frames[1].equal(clip.frames[1])


def test_flipping_twice_changes_nothing_and_once_mirrors():
    clip = squares(2)
    assert_same_clip(augment(clip, (Flip(), Flip())), clip)
    assert augment(clip, (Flip(),)).frames.equal(clip.frames.flip(-1))


def test_objects_that_leave_a_frame_are_absent_there_and_left_out_if_they_leave_all():
    clip = hide(squares(4), (0, 1))
    columns = [clip.targets.masks[n].any(dim=0).any(dim=0).nonzero().flatten() for n in range(3)]
    far = max(range(3), key=lambda n: int(columns[n].min()))
    left = augment(clip, (Crop(0, 0, 64, int(columns[far].min())),))
    assert clip.targets.ids[far] not in left.targets.ids
    assert left.targets.present.equal(left.targets.masks.flatten(2).any(dim=2))
    row = (left.targets.ids == clip.targets.ids[0]).nonzero().flatten()
    assert all(not left.targets.present[n, 1] for n in row)


def test_objects_that_were_not_annotated_stay_absent():
    clip = squares(1)
    present = clip.targets.present.clone()
    present[0, 1] = False  # though it has a mask
    targets = seen_in(replace(clip.targets, present=present), clip.targets.masks)
    assert targets.present.equal(present)
    assert not targets.masks[0, 1].any()


def test_a_clip_without_objects_can_be_augmented():
    changed = augment(empty(squares()), (Resize(32, 48), Flip()))
    assert changed.targets.masks.shape == (0, 3, 32, 48)


def test_no_steps_leave_the_clip_itself():
    clip, generator = squares(), rng()
    steps = draw_steps(Augmentation(), (64, 96), 3, generator)
    assert steps == ()
    assert augment(clip, steps) is clip
    assert generator.random() == rng().random()


# --- drawing --------------------------------------------------------------------------------------------------------


def test_the_same_generator_draws_the_same_numbers():
    assert drawn(SMALL, 20, still=True) == drawn(SMALL, 20, still=True)
    assert len(set(drawn(SMALL, 20, still=True))) > 10


def test_released_video_clips_are_cropped_in_half_the_cases_then_resized_then_flipped():
    clips = drawn(VIS_AUGMENTATION)
    kinds = {tuple(type(step) for step in steps) for steps in clips}
    assert kinds == {(*crop, Resize, *flip) for crop in ((), (Resize, Crop)) for flip in ((), (Flip,))}
    assert 100 < sum(isinstance(steps[-1], Flip) for steps in clips) < 200
    cropped = [steps for steps in clips if any(isinstance(step, Crop) for step in steps)]
    assert 100 < len(cropped) < 200
    assert {steps[0].height for steps in cropped} == {400, 500, 600}
    for steps in cropped:
        whole, window = steps[:2]
        for least, side, kept, first in (
            (384, whole.height, window.height, window.top),
            (384, whole.width, window.width, window.left),
        ):
            assert min(side, least) <= kept <= min(side, 600)
            assert 0 <= first <= side - kept


def test_released_sizes_are_those_of_the_configuration():
    plain = [steps[0] for steps in drawn(replace(VIS_AUGMENTATION, crop=0.0), 400, size=(480, 500))]
    assert {step.height for step in plain} == set(VIS_AUGMENTATION.short_sides)
    wide = [steps[0] for steps in drawn(replace(VIS_AUGMENTATION, crop=0.0), 100)]
    assert max(step.width for step in wide) == 768
    assert {step.height for step in wide} >= {320, 432}  # 640 would make it 1138 wide
    large = [steps[0] for steps in drawn(VIPSEG_AUGMENTATION, 400)]
    assert {step.height for step in large} == {*range(480, 737, 32), 750}  # 750 x 1333


def test_a_window_comes_after_the_size_and_before_the_flip():
    clips = drawn(replace(VIPSEG_AUGMENTATION, window=608))
    assert {tuple(type(step) for step in steps) for steps in clips} == {(Resize, Crop), (Resize, Crop, Flip)}
    for resize, crop, *_ in clips:
        assert (crop.height, crop.width) == (min(608, resize.height), 608)
        assert crop.top + crop.height <= resize.height
        assert crop.left + crop.width <= resize.width
    assert len({crop.left for _, crop, *_ in clips}) > 50
    assert all(len(steps) == 1 for steps in drawn(Augmentation(short_sides=(48,), window=90), size=(64, 96)))


def test_only_still_pictures_turn_steadily_one_way():
    clips = drawn(VIS_AUGMENTATION, frames=5, still=True)
    turns = [steps[-1] for steps in clips]
    assert all(isinstance(turn, Rotate) and len(turn.angles) == 5 for turn in turns)
    rising = [turn for turn in turns if list(turn.angles) == sorted(turn.angles)]
    falling = [turn for turn in turns if list(turn.angles) == sorted(turn.angles, reverse=True)]
    assert len(rising) + len(falling) == len(turns)
    assert 100 < len(rising) < 200
    assert all(abs(angle) <= 15 for turn in turns for angle in turn.angles)
    assert max(angle for turn in turns for angle in turn.angles) > 14
    assert all(0.4 <= share <= 0.6 for turn in turns for share in turn.centre)
    assert not any(isinstance(step, Rotate) for steps in drawn(VIS_AUGMENTATION) for step in steps)


def test_scale_jitter_fits_the_clip_into_a_square_times_a_factor():
    clips = drawn(Augmentation(scale_jitter=(0.5, 2.0), window=100), size=(64, 96))
    longest = [steps[0].width for steps in clips]
    assert 50 <= min(longest) < 60
    assert 190 < max(longest) <= 200
    for resize, *crop in clips:
        assert abs(resize.height / resize.width - 64 / 96) < 0.02
        assert bool(crop) == (resize.width > 100)
        assert all((one.height, one.width) == (min(resize.height, 100), 100) for one in crop)


def test_tones_lie_around_one():
    tones = [steps[-1] for steps in drawn(Augmentation(brightness=0.2, saturation=0.5))]
    assert all(tone.contrast == 1 for tone in tones)
    assert 0.8 <= min(tone.brightness for tone in tones) < 0.85
    assert 1.4 < max(tone.saturation for tone in tones) <= 1.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flip": 1.5}, "expected flip between 0 and 1, got 1.5"),
        ({"crop": 0.5}, "expected crop_short_sides to choose from where crop is not 0, got none"),
        ({"crop_range": (600, 384)}, r"expected crop_range as a positive range, smallest first, got \(600, 384\)"),
        ({"least_pixels": 0}, "expected least_pixels of 1 or more, got 0"),
        ({"scale_jitter": (0.1, 2.0)}, "expected scale_jitter with a window and without short_sides"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**wrong)


# --- pasting --------------------------------------------------------------------------------------------------------


def test_a_pasted_object_covers_what_is_behind_it():
    clip, other = squares(0), squares(1)
    pasted = paste(clip, other, Paste((1,), 1.0, (0.5, 0.5)))
    front = other.targets.masks[1]
    assert pasted.targets.masks[-1].equal(front)
    assert pasted.targets.labels[-1] == other.targets.labels[1]
    assert torch.where(front[:, None], other.frames, clip.frames).equal(pasted.frames)
    behind = pasted.targets.masks[:-1]
    assert behind.equal((clip.targets.masks & ~front)[behind.new_ones(len(behind))])
    assert not (behind & front).any()


def test_an_object_that_is_covered_everywhere_is_left_out():
    clip = squares(0)
    pasted = paste(clip, clip, Paste((0,), 1.0, (0.0, 0.0)))
    assert pasted.frames.equal(clip.frames)
    assert pasted.targets.labels.tolist() == [*clip.targets.labels[1:].tolist(), int(clip.targets.labels[0])]
    assert pasted.targets.ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("place", [(0.0, 1.0), (0.3, 0.6)])
def test_pasted_objects_are_what_a_resized_clip_shows_at_that_place(scale, place):
    clip, other = empty(squares(0)), squares(1)
    pasted = paste(clip, other, Paste((0, 1, 2), scale, place))
    height, width = int(64 * scale + 0.5), int(96 * scale + 0.5)
    scaled = augment(other, (Resize(height, width),))
    top, left = round((64 - height) * place[0]), round((96 - width) * place[1])
    shown = 0
    for y, x in [(y, x) for y in range(0, 64, 3) for x in range(0, 96, 3)]:
        inside = 0 <= y - top < height and 0 <= x - left < width
        for t in range(3):
            covered = inside and bool(scaled.targets.masks[:, t, y - top, x - left].any())
            source = scaled.frames[t, :, y - top, x - left] if covered else clip.frames[t, :, y, x]
            assert pasted.frames[t, :, y, x].equal(source)
            assert bool(pasted.targets.masks[:, t, y, x].any()) == covered
            shown += covered
    assert shown > 0


def test_what_is_unknown_in_a_clip_stays_so_whatever_is_pasted():
    clip, other = squares(0), squares(1)
    partly = replace(clip, targets=replace(clip.targets, unknown=other.targets.labels[:1]))
    drawn = Paste((0, 1), 1.0, (0.5, 0.5))
    pasted, plain = paste(partly, other, drawn), paste(clip, other, drawn)
    assert set(other.targets.labels[:1].tolist()) <= set(pasted.targets.labels.tolist())
    assert pasted.targets.unknown.equal(partly.targets.unknown)
    assert_same_clip(replace(pasted, targets=replace(pasted.targets, unknown=plain.targets.unknown)), plain)


def test_pasted_objects_of_a_moving_picture_move_and_those_of_a_still_one_do_not():
    drift = (Drift(((0.0, 0.0, 1.0), (0.3, 0.1, 0.7))),)
    picture = replace(single(leaning()), still=True)
    for steps in ((), drift):
        pasted = paste(empty(squares(0, frames=2)), augment(picture, steps), Paste((0,), 1.0, (0.0, 0.0)))
        first, last = pasted.targets.masks[0]
        assert first.equal(last) == (steps == ())
        assert first.any()
        assert last.any()


def test_any_objects_may_come_along_and_one_does_at_least():
    other = squares(0)
    draws = [draw_paste(Augmentation(paste=1.0), other, rng(seed)) for seed in range(60)]
    assert {draw.rows for draw in draws} == {(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}
    assert all(0.5 <= draw.scale <= 1.5 and 0 <= min(draw.place) <= max(draw.place) <= 1 for draw in draws)
    assert draw_paste(Augmentation(paste=1.0), empty(other), rng()).rows == ()


def test_clips_of_different_lengths_are_not_pasted():
    with pytest.raises(ValueError, match="expected clips of one length to paste, got 3 and 2 frames"):
        paste(squares(), squares(frames=2), Paste((0,), 1.0, (0.0, 0.0)))


# --- twins ----------------------------------------------------------------------------------------------------------


def single(mask, frames=2):
    """One object, red from left to right, on black; it does not move."""
    red = torch.linspace(50, 250, mask.shape[1]).to(torch.uint8)
    pictures = torch.zeros(frames, 3, *mask.shape, dtype=torch.uint8)
    pictures[:, 0] = torch.where(mask, red, 0)
    one = torch.zeros(1, dtype=torch.long)
    return Clip(pictures, Targets(one, one, mask.expand(1, frames, *mask.shape).clone(), torch.ones(1, frames) > 0))


def leaning():
    """A triangle, 10 pixels high and wide, whose upper left corner is at (20, 30)."""
    mask = torch.zeros(64, 96, dtype=torch.bool)
    mask[20:30, 30:40] = torch.ones(10, 10).tril().bool()
    return mask


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_twin_is_the_object_once_more_at_its_side(mirrored):
    clip = single(leaning())
    both = add_twin(clip, Twin(0, mirrored, (0.5, 1.2)))
    first, copy = both.targets.masks[:, 0]
    expected = torch.zeros_like(copy)
    shape = leaning()[20:30, 30:40]
    expected[25:35, 42:52] = shape.flip(1) if mirrored else shape
    assert first.equal(leaning())
    assert copy.equal(expected)
    assert both.targets.labels.tolist() == [0, 0]
    assert both.targets.ids.tolist() == [0, 1]
    colours = both.frames[0, 0][copy], clip.frames[0, 0][leaning()]
    assert colours[0].sort().values.equal(colours[1].sort().values)
    assert both.frames[0, 0][~(first | copy)].sum() == 0


def test_a_twin_half_in_front_hides_what_is_behind_it_and_one_outside_changes_nothing():
    clip = single(leaning())
    near = add_twin(clip, Twin(0, False, (0.0, 0.5)))
    first, copy = near.targets.masks[:, 0]
    assert not (first & copy).any()
    assert 0 < first.sum() < leaning().sum() == copy.sum()
    assert_same_clip(add_twin(clip, Twin(0, False, (0.0, 9.0))), clip)


def test_a_twin_moves_as_its_object_does_even_where_the_pictures_frames_were_one():
    clip = augment(replace(single(leaning()), still=True), (Drift(((0.0, 0.0, 1.0), (0.2, 0.0, 0.8))),))
    both = add_twin(clip, Twin(0, False, (0.0, 1.0)))
    first, copy = both.targets.masks
    assert not first[0].equal(first[1])
    assert not copy[0].equal(copy[1])


def test_any_object_may_have_a_twin_and_where_there_is_none_nothing_is_drawn():
    clip = squares(0)
    drawn = [draw_twin(clip, rng(seed)) for seed in range(40)]
    assert {one.row for one in drawn} == {0, 1, 2}
    assert {one.mirrored for one in drawn} == {False, True}
    assert all(0.4 <= abs(one.aside[1]) <= 1.1 for one in drawn)
    assert draw_twin(empty(clip), rng()) is None
    hidden = hide(clip, (0, 0), (0, 1), (0, 2))
    assert {draw_twin(hidden, rng(seed)).row for seed in range(40)} == {1, 2}
