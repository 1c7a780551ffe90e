"""A share of a data set that is kept to measure with."""

import json

import numpy as np
import pytest
from test_coco import coco_content, write_coco
from test_ytvis_json import content, write

from cavis.data.coco import open_coco
from cavis.data.held_out import Part, as_ytvis, divide
from cavis.data.layouts import splits
from cavis.data.synthetic import TwinsConfig, synthesize
from cavis.data.ytvis_json import open_ytvis
from cavis.evaluation.average_precision import PredictedTrack, average_precision
from cavis.evaluation.run import ground_truth


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "twins"
    synthesize(folder, clips=10, seed=1, config=TwinsConfig(frames=2, height=64, width=96))
    return open_ytvis(folder)


def test_every_video_is_in_one_of_the_two_parts_and_the_seed_decides(clips):
    training, held_out = divide(clips, 0.3, seed=0)
    assert len(held_out) == 3
    assert sorted((*training.indices, *held_out.indices)) == list(range(10))
    assert divide(clips, 0.3, seed=0).held_out.indices == held_out.indices
    assert len({divide(clips, 0.3, seed).held_out.indices for seed in range(9)}) > 3
    assert len(divide(clips, 0.0, 0).held_out) == 0
    assert len(divide(clips, 0.99, 0).training) == 1


def test_a_part_is_what_the_data_set_is_there(clips):
    part = divide(clips, 0.3, seed=0).held_out
    for place, index in enumerate(part.indices):
        assert part.length(place) == clips.length(index)
        assert part.objects(place) == clips.objects(index)
        assert part.clip(place, [1]).frames.equal(clips.clip(index, [1]).frames)
    with pytest.raises(ValueError, match="expected a share of at least 0 and less than 1 to hold out, got 1"):
        divide(clips, 1.0, 0)


def reopened(part, folder):
    """The part, written where no frames lie, and read again."""
    (folder / "held_out.json").write_text(json.dumps(as_ytvis([part])))
    return open_ytvis(folder / "held_out.json")


def test_what_is_written_has_the_frames_and_objects_of_the_videos(tmp_path):
    original = open_ytvis(write(tmp_path / "set", "annotations.json", "JPEGImages", content()))
    written = reopened(Part(original, (0,)), tmp_path)
    assert written.names == original.names
    assert [one.iscrowd for one in written.videos[0].annotations] == [
        one.iscrowd for one in original.videos[0].annotations
    ]
    for t in range(original.length(0)):
        ours, theirs = written.clip(0, [t]), original.clip(0, [t])
        assert ours.frames.equal(theirs.frames)
        for name in ("labels", "masks", "present"):
            assert getattr(ours.targets, name).equal(getattr(theirs.targets, name)), (t, name)
    assert [one.mean_area for one in written.videos[0].annotations] == [
        one.mean_area for one in original.videos[0].annotations
    ]


def test_measuring_on_what_is_written_is_measuring_on_these_videos(clips, tmp_path):
    part = divide(clips, 0.3, seed=0).held_out
    written = reopened(part, tmp_path)
    numbers = []
    for dataset, ids in ((clips, [clips.videos[i].id for i in part.indices]), (written, [1, 2, 3])):
        truths = [one for one in ground_truth(dataset) if one.video_id in ids]
        found = [
            PredictedTrack(one.video_id, one.category_id, 1 / (2 + n), one.masks if n % 3 else (one.masks[0], None))
            for n, one in enumerate(truths)
            if n % 2
        ]
        numbers.append(average_precision(truths, found, dataset.categories).ap)
    assert numbers[0] == numbers[1]
    assert 0 < numbers[0] < 1


def test_pictures_become_videos_of_one_frame(tmp_path):
    write_coco(tmp_path / "album", coco_content())
    pictures = open_coco(tmp_path / "album")
    written = reopened(Part(pictures, tuple(range(len(pictures)))), tmp_path)
    assert len(written) == len(pictures)
    for index in range(len(pictures)):
        ours, theirs = written.clip(index, [0]), pictures.clip(index, [0])
        assert ours.frames.equal(theirs.frames)
        assert ours.targets.labels.equal(theirs.targets.labels)
        assert ours.targets.masks.equal(theirs.targets.masks)
        assert ours.targets.unknown.equal(theirs.targets.unknown)
    assert any(video.known for video in written.videos)
    crowds = sum(one.iscrowd for video in written.videos for one in video.annotations)
    assert crowds == np.count_nonzero(pictures.table.crowd)


def test_the_splits_of_a_folder_are_told(tmp_path):
    write(tmp_path / "one", "annotations.json", "JPEGImages", content())
    write(tmp_path / "two", "train.json", "train/JPEGImages", content())
    write(tmp_path / "two", "valid.json", "valid/JPEGImages", content())
    for path in ("one", "two/train.json", "two/train"):
        assert splits(tmp_path / path) == ()
    assert splits(tmp_path / "two") == ("train", "valid")
