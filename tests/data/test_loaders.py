from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import Squares, consecutive, nano_preset

from cavis.config import DataRules
from cavis.data.clips import draw_frames
from cavis.data.loaders import StepBatches, TwinsSource, batches_from, world_clip
from cavis.data.synthetic import TwinsClip, TwinsConfig

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
