from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from nano import Squares, consecutive, empty, nano_preset, squares

from cavis.config import Augmentation
from cavis.data.loaders import StepBatches
from cavis.data.mixing import MixedSource, PartlyLabelled, PicturesSource, repeat


class Album:
    """Pictures of squares; some without a single one. The last one is a video of two frames."""

    names = ("red", "green", "blue")
    left_out = ()

    def __init__(self, counts=(3, 0, 2, 0, 1)):
        self.counts = counts

    def __len__(self):
        return len(self.counts)

    def length(self, index):
        return 2 if index == len(self) - 1 else 1

    def objects(self, index):
        return self.counts[index]

    def clip(self, index, frames):
        whole = squares(index, frames=2)
        rows = slice(self.counts[index])
        targets = whole.targets
        chosen = replace(
            targets,
            labels=targets.labels[rows],
            ids=targets.ids[rows],
            masks=targets.masks[rows][:, frames],
            present=targets.present[rows][:, frames],
        )
        return replace(whole, frames=whole.frames[frames], targets=chosen)

    def source(self, index):
        raise AssertionError(f"expected clips to be drawn from, but video {index} is played")


class Constant:
    def __init__(self, clip):
        self.clip = clip

    def draw(self, rng, choose):
        choose(3, rng)
        return self.clip


def equal(left, right):
    return left.frames.equal(right.frames) and all(
        value.equal(getattr(right.targets, name)) for name, value in vars(left.targets).items()
    )


def test_a_pseudo_clip_is_what_the_data_set_gives_for_a_repeated_frame():
    album = Album()
    source = PicturesSource(album)
    seen = Counter()
    for seed in range(60):
        clip = source.draw(np.random.default_rng(seed), consecutive(4))
        assert clip.still
        matches = [
            (index, frame)
            for index in range(len(album))
            for frame in range(album.length(index))
            if equal(clip, album.clip(index, [frame] * 4))
        ]
        seen[matches[0]] += 1
    assert seen.keys() == {(0, 0), (2, 0), (4, 0), (4, 1)}  # of a video any frame; nothing without objects


def test_as_many_frames_are_shown_as_a_clip_of_the_stage_has():
    for frames, frame_range in ((1, 0), (5, 0), (3, 2)):
        schedule = replace(nano_preset().segmenter, frames=frames, frame_range=frame_range, clips_per_step=2)
        batch = StepBatches(PicturesSource(Album()), schedule, seed=0, num_classes=3)[0]
        assert batch.frames.shape[:2] == (2, frames)


def test_rotation_makes_a_picture_move():
    schedule = replace(nano_preset().segmenter, frames=3, augmentation=Augmentation(rotation=15, flip=0.5))
    for step in range(5):
        batch = StepBatches(PicturesSource(Album((3, 3))), schedule, seed=0, num_classes=3)[step]
        assert not batch.frames[0, 0].equal(batch.frames[0, 1])
        assert not batch.targets[0].masks[:, 0].equal(batch.targets[0].masks[:, 1])


def test_pictures_without_objects_only_are_refused():
    with pytest.raises(ValueError, match="expected at least one picture with an annotated object, got none among 2"):
        PicturesSource(Album((0, 0)))


def test_what_a_data_set_does_not_know_of_a_picture_stays_unknown():
    class Sparse(Album):
        def clip(self, index, frames):
            clip = super().clip(index, frames)
            return replace(clip, targets=replace(clip.targets, unknown=torch.tensor([1])))

    source, rng = PicturesSource(Sparse()), np.random.default_rng(0)
    assert source.draw(rng, consecutive(2)).targets.unknown.tolist() == [1]
    wrapped = PartlyLabelled(source, [1, 2], num_classes=3)
    assert wrapped.draw(rng, consecutive(2)).targets.unknown.tolist() == [0, 1]


def test_repeating_copies_nothing():
    clip = squares(frames=1)
    repeated = repeat(clip, 15)
    assert repeated.frames.data_ptr() == clip.frames.data_ptr()
    assert repeated.targets.masks.data_ptr() == clip.targets.masks.data_ptr()
    assert repeated.frames.shape[0] == repeated.targets.masks.shape[1] == repeated.targets.present.shape[1] == 15


def test_sources_are_mixed_clip_by_clip_as_their_weights_say():
    first, second = Constant(squares(0)), Constant(squares(1))
    for weights, expected in ((None, 0.5), ((3, 1), 0.25), ((1, 0), 0.0)):
        mixed = MixedSource((first, second), weights)
        rng = np.random.default_rng(0)
        drawn = [mixed.draw(rng, consecutive(2)) is second.clip for _ in range(400)]
        assert abs(np.mean(drawn) - expected) < 0.07
        if expected:  # independent: the next one does not depend on this one
            after = [b for a, b in pairwise(drawn) if a]
            assert abs(np.mean(after) - expected) < 0.1
    batch = StepBatches(
        MixedSource((first, second)), replace(nano_preset().segmenter, clips_per_step=8), seed=0, num_classes=3
    )[0]
    assert len({tuple(clip.flatten().tolist()) for clip in batch.frames[:, 0, 0]}) == 2


@pytest.mark.parametrize("weights", [(1,), (1, -1), (0, 0), (1, float("inf"))])
def test_weights_that_make_no_mixture_are_refused(weights):
    with pytest.raises(ValueError, match=r"expected (one weight for each|weights of at least 0)"):
        MixedSource((Squares(), Squares()), weights)


def test_a_partly_labelled_source_says_what_it_does_not_know():
    source = PartlyLabelled(Squares(), [0, 2], num_classes=5)
    clip, plain = (one.draw(np.random.default_rng(0), consecutive(2)) for one in (source, Squares()))
    assert clip.targets.unknown.tolist() == [1, 3, 4]
    assert plain.targets.unknown.tolist() == []
    assert equal(replace(clip, targets=replace(clip.targets, unknown=plain.targets.unknown)), plain)
    schedule = replace(nano_preset().segmenter, augmentation=Augmentation(short_sides=(32,), flip=0.5, paste=1.0))
    batch = StepBatches(source, schedule, seed=0, num_classes=5)[0]
    assert batch.targets[0].unknown.tolist() == [1, 3, 4]


def test_labels_that_are_not_there_cannot_be_known():
    with pytest.raises(ValueError, match=r"expected known labels of 0 ... 2, got \[1, 3\]"):
        PartlyLabelled(Squares(), [1, 3], num_classes=3)


def test_an_empty_clip_stays_empty_when_it_is_repeated():
    assert repeat(empty(squares(frames=1)), 3).targets.masks.shape == (0, 3, 64, 96)
    assert torch.equal(repeat(squares(frames=1), 3).frames[2], squares(frames=1).frames[0])
