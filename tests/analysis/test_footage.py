import json

import numpy as np
import pytest
from PIL import Image

from cavis.analysis import of_dataset, open_footage, twins
from cavis.data.faults import DataError
from cavis.data.opening import open_annotated
from cavis.data.synthetic import TwinsConfig, synthesize
from cavis.video import VideoError, VideoWriter

SMALL = TwinsConfig(height=64, width=96, frames=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twins") / "world"
    synthesize(folder, 2, 5, SMALL)
    return folder


def test_twins_are_the_clips_that_synthesize_writes(world):
    made, written = twins(2, 5, SMALL), of_dataset(open_annotated(world))
    assert len(made) == len(written) == 2
    for one, other in zip(made, written, strict=True):
        with one.open() as left, other.open() as right:
            assert len(left) == len(right) == 3
            assert np.abs(left[1].astype(int) - right[1]).mean() < 12  # JPEG
        for t in range(3):
            shown, known = one.truth(t), other.truth(t)
            seen = [n for n, mask in enumerate(shown.masks) if mask.any()]
            assert tuple(shown.categories[n] for n in seen) == known.categories
            np.testing.assert_array_equal(shown.masks[seen], known.masks)


def test_ids_stay_with_their_objects(world):
    clip = open_footage(world)[0]
    categories = [dict(zip(clip.truth(t).ids, clip.truth(t).categories, strict=True)) for t in range(3)]
    for id_ in set(categories[0]) & set(categories[2]):
        assert categories[0][id_] == categories[2][id_]


def test_without_companions_the_twins_stay_where_they_are():
    whole, alone = twins(1, 5, SMALL)[0], twins(1, 5, TwinsConfig(height=64, width=96, frames=3, companions=False))[0]
    assert len(alone.truth(0).ids) < len(whole.truth(0).ids)
    with whole.open() as first, alone.open() as second:
        assert (first[0] != second[0]).any()


def test_what_a_path_is_its_content_tells(world, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), dtype=np.uint8)
    (tmp_path / "pictures").mkdir()
    with VideoWriter(tmp_path / "film.mp4", 32, 48, fps=10) as writer:
        for t, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / "pictures" / f"{t}.png")
            writer.write(frame)
    for path in (tmp_path / "pictures", tmp_path / "film.mp4"):
        (clip,) = open_footage(path)
        assert (clip.name, clip.truth) == (path.name, None)
        with clip.open() as source:
            assert len(source) == 3
    assert [clip.name for clip in open_footage(tmp_path)] == ["film", "pictures"]
    assert [clip.truth is not None for clip in open_footage(world)] == [True, True]
    assert len(open_footage(world / "annotations.json")) == 2


def test_what_cannot_be_used_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a video file"):
        open_footage(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected annotations"):
        open_footage(tmp_path / "empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "annotations.json").write_text(json.dumps({"videos": 3}))
    Image.new("RGB", (8, 8)).save(tmp_path / "broken" / "0.png")
    with pytest.raises(DataError):
        open_footage(tmp_path / "broken")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoError):
        open_footage(tmp_path / "text.mp4")[0].open()
    with pytest.raises(ValueError, match="at least 1 clip"):
        twins(0)
