import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import squares

from cavis.config import Augmentation
from cavis.data.animation import MOTION, animate, moving_clip
from cavis.data.check import check
from cavis.data.ytvis_json import open_ytvis


class Album:
    """Pictures of squares; in the second one nobody looked for green."""

    names = ("red", "green", "blue")
    left_out = ()

    def __len__(self):
        return 3

    def length(self, index):
        return 1

    def objects(self, index):
        return 3

    def clip(self, index, frames):
        assert frames == [0]
        clip = squares(index, frames=1)
        unknown = torch.tensor([1] if index == 1 else [], dtype=torch.int64)
        return replace(clip, targets=replace(clip.targets, unknown=unknown), still=True)

    def source(self, index):
        raise AssertionError(f"expected pictures to be drawn from, but video {index} is played")


def test_what_is_written_is_a_sound_data_set_of_the_clips(tmp_path):
    animate(Album(), tmp_path / "out", frames=4, seed=5)
    assert check(tmp_path / "out").sound
    dataset = open_ytvis(tmp_path / "out")
    assert dataset.names == Album.names
    for index in range(3):
        written, made = dataset.clip(index, range(4)), moving_clip(Album(), index, 4, 5, MOTION)
        assert written.targets.masks.equal(made.targets.masks)
        assert written.targets.labels.equal(made.targets.labels)
        assert written.targets.present.equal(made.targets.present)
        assert written.targets.unknown.tolist() == ([1] if index == 1 else [])
        difference = (written.frames.float() - made.frames.float()).abs().mean()
        assert difference < 6  # what JPEG costs
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        animate(Album(), tmp_path / "out", frames=4)


def test_clips_move_and_depend_on_the_seed_alone(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        animate(Album(), tmp_path / name, frames=3, seed=seed)
    a, b, c = (json.loads((tmp_path / name / "annotations.json").read_text()) for name in "abc")
    assert a == b
    assert a != c
    masks = open_ytvis(tmp_path / "a").clip(0, range(3)).targets.masks
    assert not masks[:, 0].equal(masks[:, 2])


def test_without_motion_a_picture_stays_as_it_is():
    clip = moving_clip(Album(), 0, 3, 0, Augmentation())
    for t in range(3):
        assert clip.frames[t].equal(squares(0, frames=1).frames[0])
        assert clip.targets.masks[:, t].equal(squares(0, frames=1).targets.masks[:, 0])


def test_in_half_of_the_clips_something_passes_by():
    more = [len(moving_clip(Album(), 0, 2, seed, MOTION).targets.labels) for seed in range(40)]
    plain = [len(moving_clip(Album(), 0, 2, seed, replace(MOTION, paste=0.0)).targets.labels) for seed in range(40)]
    assert 8 < np.count_nonzero(np.array(more) != plain) < 32


def test_what_passes_by_moves():
    clips = [moving_clip(Album(), 0, 2, seed, MOTION) for seed in range(40)]
    plain = [len(moving_clip(Album(), 0, 2, seed, replace(MOTION, paste=0.0)).targets.labels) for seed in range(40)]
    passing = [clip.targets.masks[plain[i] :] for i, clip in enumerate(clips)]  # in front: behind what is in the clip
    there = [masks for masks in passing if masks.flatten(2).any(2).all(1).any()]
    assert len(there) > 5
    assert all(not masks[:, 0].equal(masks[:, 1]) for masks in there)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("there", [False, True], ids=["new folder", "empty folder"])
def test_an_interruption_leaves_nothing_that_blocks_the_next_try(tmp_path, error, there):
    out = tmp_path / "out"
    if there:
        out.mkdir()

    def interrupt(done, of):
        if done == 2:
            assert list(out.glob("*")) == []  # nothing either where no exception can clean up
            raise error

    with pytest.raises(error):
        animate(Album(), out, frames=2, progress=interrupt)
    assert [path.name for path in tmp_path.rglob("*")] == (["out"] if there else [])
    animate(Album(), out, frames=2)
    assert check(out).sound
    assert {path.name for path in out.iterdir()} == {"annotations.json", "JPEGImages"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
