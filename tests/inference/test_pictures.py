"""Panoptic and semantic results as PNGs."""

import json

import numpy as np
import pytest
from PIL import Image

from cavis import rle
from cavis.inference.export import write_panoptic, write_panoptic_list, write_semantic
from cavis.inference.panoptic import PanopticResult, Segment
from cavis.inference.second_pass import make_track
from cavis.inference.semantic import ClassRegion, SemanticResult

CATEGORIES, IDS = ("cat", "dog", "sky"), (7, 20, 255)
NAMES = ("00003", "00007")


def labels(count, frames=2):
    """A frame of vertical stripes, each a label; the last two labels are absent in the second frame."""
    maps = np.repeat(np.tile(np.arange(count), (frames, 20, 1)), 2, axis=2)
    maps[1][maps[1] >= count - 2] = 0
    return maps


def masks_of(maps, label):
    return tuple(rle.encode(map_ == label) if (map_ == label).any() else None for map_ in maps)


def panoptic_result(segments=4):
    maps = labels(segments + 1)
    found = []
    for number in range(1, segments + 1):
        scores = np.eye(3, dtype=np.float32)[number % 3] * 0.9
        track = make_track(number, scores, masks_of(maps, number), np.zeros((2, 4), np.float32), 2)
        found.append(Segment(track, number % 3 < 2, number))
    height, width = maps.shape[1:]
    return PanopticResult(tuple(found), height, width, np.arange(2) / 10, CATEGORIES, "nano"), maps


def semantic_result():
    maps = labels(3)
    regions = tuple(ClassRegion(k, masks_of(maps, k), 0.5) for k in range(3))
    return SemanticResult(regions, *maps.shape[1:], np.arange(2) / 10, CATEGORIES, "nano"), maps


@pytest.mark.parametrize("segments", [4, 150])
def test_panoptic_pictures_and_their_entry_say_what_the_result_says(tmp_path, segments):
    result, maps = panoptic_result(segments)
    entry = write_panoptic(tmp_path, result, "clip", NAMES, IDS)
    assert entry["video_id"] == "clip"
    seen = {}
    for t, (name, frame) in enumerate(zip(NAMES, entry["annotations"], strict=True)):
        picture = np.array(Image.open(tmp_path / "pan_pred" / "clip" / f"{name}.png").convert("RGB"), dtype=int)
        ids = picture @ (1, 256, 65536)
        assert frame["file_name"] == f"{name}.png"
        assert {info["id"] for info in frame["segments_info"]} == set(np.unique(ids)) - {0}
        np.testing.assert_array_equal(ids == 0, maps[t] == 0)
        for info in frame["segments_info"]:
            ys, xs = (ids == info["id"]).nonzero()
            assert (info["area"], info["iscrowd"]) == (len(ys), 0)
            assert info["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            number = int(maps[t][ys[0], xs[0]])
            assert (maps[t] == number).sum() == len(ys)
            assert info["category_id"] == IDS[number % 3]
            assert seen.setdefault(number, info["id"]) == info["id"]  # one id through the video
    assert len(set(seen.values())) == len(seen) == segments


def test_entries_are_written_as_one_list(tmp_path):
    entries = [write_panoptic(tmp_path, panoptic_result()[0], name, NAMES, IDS) for name in ("a", "b")]
    write_panoptic_list(tmp_path / "pred.json", entries)
    assert json.loads((tmp_path / "pred.json").read_text()) == {"annotations": entries}


@pytest.mark.parametrize("ids", [None, IDS])
def test_semantic_pictures_hold_the_classes(tmp_path, ids):
    result, maps = semantic_result()
    write_semantic(tmp_path, result, "clip", NAMES, ids)
    for t, name in enumerate(NAMES):
        picture = np.array(Image.open(tmp_path / "clip" / f"{name}.png"))
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, np.array(ids or range(3))[maps[t]])


@pytest.mark.parametrize(
    ("video", "names", "ids", "message"),
    [
        ("clip", NAMES, (1, 2), "expected 3 category ids, got 2"),
        ("clip", ("one",), IDS, "expected 2 different frame names, got 1"),
        ("clip", ("one", "one"), IDS, "expected 2 different frame names, got 1"),
        ("../clip", NAMES, IDS, r"expected names of files without a folder, got '../clip'"),
        ("..", NAMES, IDS, r"expected names of files without a folder, got '\.\.'"),
        ("clip", ("a/b", "c"), IDS, r"expected names of files without a folder, got 'a/b'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, video, names, ids, message):
    with pytest.raises(ValueError, match=message):
        write_panoptic(tmp_path, panoptic_result()[0], video, names, ids)
    assert list(tmp_path.iterdir()) == []


def test_ids_that_grey_cannot_hold_are_refused(tmp_path):
    for ids in ((0, 1, 256), (-1, 0, 1), (0, 1)):
        with pytest.raises(ValueError, match=r"expected 3 category ids of 0 ... 255"):
            write_semantic(tmp_path, semantic_result()[0], "clip", NAMES, ids)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already"):
        write_semantic(tmp_path, semantic_result()[0], "clip", NAMES)
    assert [file.name for file in tmp_path.rglob("*")] == ["clip", "precious.txt"]


def test_a_broken_run_leaves_no_picture(tmp_path, monkeypatch):
    saved = []

    def save(picture, path):
        if saved:
            raise OSError("disk full")
        saved.append(path)
        path.write_bytes(b"")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="disk full"):
        write_semantic(tmp_path, semantic_result()[0], "clip", NAMES)
    assert len(saved) == 1
    assert list(tmp_path.iterdir()) == []
