from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import Squares, consecutive, empty, hide, nano_preset, squares

from cavis.config import CORRECTED, Augmentation, DataRules
from cavis.data.clips import draw_frames
from cavis.data.loaders import StepBatches, TwinsSource, batches_from, world_clip
from cavis.data.synthetic import TwinsClip, TwinsConfig
from cavis.presets import tiny

SMALL = TwinsConfig(height=48, width=64, frames=6, twin_pairs=(1, 1), singles=(0, 1))


def equal(left, right):
    return left.frames.equal(right.frames) and all(
        a.masks.equal(b.masks) and a.labels.equal(b.labels) and a.present.equal(b.present)
        for a, b in zip(left.targets, right.targets, strict=True)
    )


def batches(seed=1, clips=2, source=None, frames=2, frame_range=2):
    schedule = replace(nano_preset().segmenter, clips_per_step=clips, frames=frames, frame_range=frame_range)
    return StepBatches(source or Squares(), schedule, seed=seed, num_classes=3)


def test_the_same_step_of_the_same_seed_is_the_same_batch():
    source = TwinsSource(SMALL)
    first, second = batches(source=source), batches(source=source)
    assert equal(first[3], second[3])
    first[0], first[7]
    assert equal(first[3], second[3])  # whatever was drawn in between
    np.random.seed(4)
    torch.manual_seed(4)
    assert equal(first[3], second[3])


def test_steps_seeds_and_clips_differ():
    dataset = batches()
    assert not equal(dataset[0], dataset[1])
    assert not equal(dataset[0], batches(seed=2)[0])
    clips = dataset[0].frames
    assert not clips[0].equal(clips[1])


def test_a_larger_batch_begins_with_the_smaller_one():
    small, large = batches(clips=1)[5], batches(clips=3)[5]
    assert large.frames[0].equal(small.frames[0])


def test_some_slots_of_a_step_are_those_of_the_whole_batch():
    whole = batches(clips=4)
    some = StepBatches(Squares(), whole.schedule, seed=1, num_classes=3, slots=(1, 3))[5]
    assert len(some.targets) == 2
    for place, slot in enumerate((1, 3)):
        assert some.frames[place].equal(whole[5].frames[slot])
        assert some.targets[place].masks.equal(whole[5].targets[slot].masks)


def test_rules_reach_the_frames_and_the_targets():
    schedule = replace(nano_preset().segmenter, frames=2, frame_range=0)
    rules = DataRules(skip_last_start=True, labels_of_last_frame=True)
    corrected, released = (
        StepBatches(Squares(length=3), schedule, seed=1, num_classes=3, rules=chosen) for chosen in (DataRules(), rules)
    )
    assert any(not equal(corrected[step], released[step]) for step in range(8))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_step_order_from_any_start(workers):
    dataset = batches(clips=1)
    drawn = list(batches_from(dataset, 2, 6, workers))
    assert len(drawn) == 4
    assert all(equal(batch, dataset[step]) for step, batch in zip(range(2, 6), drawn, strict=True))
    assert list(batches_from(dataset, 6, 6, workers)) == []


def test_a_world_clip_is_what_the_world_shows():
    world = TwinsClip(5, SMALL)
    clip = world_clip(world, [1, 4])
    rendered = [world.render(t) for t in (1, 4)]
    seen = np.stack([masks for _, masks in rendered], axis=1).any(axis=(1, 2, 3))
    assert clip.targets.ids.tolist() == np.flatnonzero(seen).tolist()
    assert clip.targets.labels.tolist() == world.labels[seen].tolist()
    for t, (image, masks) in enumerate(rendered):
        np.testing.assert_array_equal(clip.frames[t].permute(1, 2, 0), image)
        np.testing.assert_array_equal(clip.targets.masks[:, t], masks[seen])
        assert clip.targets.present[:, t].tolist() == masks[seen].any(axis=(1, 2)).tolist()
    assert clip.targets.present.any(dim=1).all()


def test_the_twins_source_draws_frames_of_one_world():
    source = TwinsSource(SMALL)
    clip = source.draw(np.random.default_rng(3), consecutive(3))
    rng = np.random.default_rng(3)
    world = TwinsClip(int(rng.integers(2**62)), SMALL)
    expected = world_clip(world, draw_frames(SMALL.frames, 3, 0, rng))
    assert clip.frames.equal(expected.frames)
    assert clip.targets.masks.equal(expected.targets.masks)


# --- augmentation ---------------------------------------------------------------------------------------------------

AUGMENTED = Augmentation(short_sides=(32, 48, 64), flip=0.5, rotation=10, reversal=0.5, paste=0.5)


def augmented(augmentation=AUGMENTED, rules=CORRECTED, clips=4, source=None):
    schedule = replace(nano_preset().tracker, clips_per_step=clips, augmentation=augmentation)
    return StepBatches(source or Squares(), schedule, seed=1, num_classes=3, rules=rules)


def test_the_laboratorys_model_is_trained_on_clips_as_they_are():
    preset = tiny()
    source = TwinsSource(SMALL)
    for schedule in (preset.segmenter, preset.tracker, preset.refiner):
        assert schedule.augmentation is None
        schedule = replace(schedule, clips_per_step=2)
        batch = StepBatches(source, schedule, seed=7, num_classes=20)[11]
        for slot in range(2):
            rng = np.random.default_rng([7, 11, slot])
            world = TwinsClip(int(rng.integers(2**62)), SMALL)
            clip = world_clip(world, draw_frames(SMALL.frames, schedule.frames, schedule.frame_range, rng))
            assert batch.frames[slot].equal(clip.frames)
            for name, value in vars(clip.targets).items():
                assert getattr(batch.targets[slot], name).equal(value)


def test_augmented_batches_are_a_function_of_seed_and_step():
    first, second = augmented(), augmented()
    assert equal(first[3], second[3])
    assert not equal(first[3], first[4])
    sizes = {tuple(first[step].frames.shape[-2:]) for step in range(8)}
    assert sizes <= {(32, 48), (48, 72), (64, 96)}
    assert len(sizes) > 1
    assert equal(augmented(Augmentation())[3], augmented(None)[3])


def test_some_clips_are_played_backwards():
    class Film:
        """Every frame shows its number; nothing is drawn after the frames."""

        def draw(self, rng, choose):
            numbers = torch.tensor(choose(200, rng), dtype=torch.uint8)
            clip = empty(squares(frames=len(numbers)))
            return replace(clip, frames=numbers[:, None, None, None].expand_as(clip.frames))

    forwards, mixed = (augmented(Augmentation(reversal=share), clips=1, source=Film()) for share in (0.0, 0.5))
    backwards = []
    for step in range(40):
        there, here = (batches[step].frames[0, :, 0, 0, 0].tolist() for batches in (forwards, mixed))
        assert here in (there, there[::-1])
        backwards.append(here != there)
    assert 10 < sum(backwards) < 30


def test_pasted_clips_have_the_objects_of_two():
    counts = [len(augmented(Augmentation(paste=0.5), clips=1)[step].targets[0].labels) for step in range(30)]
    assert min(counts) == 3
    assert max(counts) > 3


def test_of_clips_with_twins_each_has_one_object_twice_and_without_nothing_is_drawn_anew():
    plain, twice, never = (augmented(Augmentation(twin=share, flip=0.5), clips=1) for share in (0.0, 1.0, 1e-9))
    for step in range(10):
        labels = twice[step].targets[0].labels.tolist()
        assert labels[:3] == plain[step].targets[0].labels.tolist()
        assert len(labels) == 4
        assert labels[3] in labels[:3]
        assert equal(plain[step], never[step])


def test_what_augmentation_leaves_too_little_of_counts_as_absent():
    plain, strict = (augmented(Augmentation(paste=0.5, least_pixels=least), clips=1) for least in (1, 600))
    hidden = 0
    for step in range(20):
        batches = plain[step], strict[step]
        before, after = (batch.targets[0] for batch in batches)
        assert batches[0].frames.equal(batches[1].frames)
        enough = before.masks.flatten(2).sum(2) >= 600
        kept = (before.present & enough).any(1)
        assert after.ids.equal(before.ids[kept])
        assert after.present.equal((before.present & enough)[kept])
        assert after.masks.equal((before.masks & enough[..., None, None])[kept])
        hidden += int((before.present & ~enough).sum())
    assert hidden > 0


def test_an_object_that_only_augmentation_took_from_the_last_frame_keeps_its_label():
    class Leaving:
        """Object 0 lies at the right end in the last frame, object 1 is not annotated there."""

        def draw(self, rng, choose):
            clip = hide(squares(0, frames=len(choose(8, rng))), (1, 2))
            masks = clip.targets.masks.clone()
            masks[0, 2] = False
            masks[0, 2, 30:40, 90:] = True
            return replace(clip, targets=replace(clip.targets, masks=masks))

    rules = DataRules(labels_of_last_frame=True)
    crop = Augmentation(crop=1.0, crop_short_sides=(64,), crop_range=(64, 64))
    clips = [augmented(crop, rules, clips=1, source=Leaving())[step].targets[0] for step in range(40)]
    taken = [clip for clip in clips if 0 in clip.ids and not clip.present[clip.ids == 0, 2].any()]
    left = [clip for clip in clips if 1 in clip.ids]
    label = squares(0).targets.labels
    assert len(taken) > 5
    assert len(left) > 5
    assert all(clip.labels[clip.ids == 0] == label[0] for clip in taken)
    assert all(clip.labels[clip.ids == 1] == 3 for clip in left)


def test_objects_that_augmentation_leaves_in_sight_count_as_present_by_the_released_rule():
    flip = Augmentation(flip=0.5)

    class Late:
        def draw(self, rng, choose):
            return hide(squares(0, frames=len(choose(8, rng))), (1, 0))

    released, corrected = (
        augmented(flip, DataRules(always_present=rule), 1, Late())[0].targets[0] for rule in (True, False)
    )
    assert released.present.all()
    assert corrected.present.tolist()[1] == [False, True, True]
