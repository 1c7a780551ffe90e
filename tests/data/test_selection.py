"""A small training set out of a tiny COCO in the official layout."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from cavis import rle
from cavis.data.check import check
from cavis.data.coco import open_coco
from cavis.data.faults import DataError
from cavis.data.segmentations import read_mask
from cavis.data.selection import Selection, select

NAMES = {1: "person", 3: "car", 17: "cat", 38: "kite"}
SIZES = [(96, 128), (60, 40), (120, 90), (96, 128)]
"""Height and width, again and again."""
IMAGES = 24


def triangle(height, width):
    return [[0.1 * width, 0.1 * height, 0.9 * width, 0.3 * height, 0.4 * width, 0.8 * height]]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Image i shows category i modulo 4 (a polygon) and, if i divides by 5, a crowd of people (a list of runs)."""
    root = tmp_path_factory.mktemp("coco")
    images, annotations = [], []
    for i in range(1, IMAGES + 1):
        height, width = SIZES[i % 4]
        images.append({"id": i, "file_name": f"{i:012d}.jpg", "height": height, "width": width, "license": 3})
        entry = {"id": i, "image_id": i, "category_id": list(NAMES)[i % 4], "iscrowd": 0, "bbox": [0, 0, 1, 1]}
        annotations.append(entry | {"area": 1.0, "segmentation": triangle(height, width)})
        if i % 5 == 0:
            runs = [0, height * width // 2, height * width - height * width // 2]
            crowd = {"id": 100 + i, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [height, width]}}
            crowd["segmentation"]["counts"] = runs
            annotations.append(entry | crowd)
        path = root / "train2017" / images[-1]["file_name"]
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((height, width, 3), 5 * i, dtype=np.uint8)).save(path, quality=95)
    images[-1]["labelled_categories"] = ["person"]
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": id_, "name": name} for id_, name in NAMES.items()]
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return root


def read(out, split):
    return json.loads((out / f"{split}.json").read_text())


def ids(out, split):
    return [image["id"] for image in read(out, split)["images"]]


def test_what_is_written_is_a_sound_data_set_of_small_pictures(coco, tmp_path):
    counts = select(coco, tmp_path / "out", Selection(side=64))
    assert sum(counts.values()) == IMAGES
    for split in ("train", "val"):
        assert check(tmp_path / "out", "coco", split).sound
        dataset = open_coco(tmp_path / "out", split)
        assert len(dataset) == counts[split]
        for index, picture in enumerate(dataset.pictures):
            height, width = SIZES[picture.id % 4]
            scale = min(1, 64 / max(height, width))
            assert (picture.height, picture.width) == (round(height * scale), round(width * scale))
            assert abs(int(dataset.clip(index, [0]).frames.float().mean()) - 5 * picture.id) <= 2


def test_nothing_is_held_out_where_nothing_is_asked_for(coco, tmp_path):
    counts = select(coco, tmp_path / "out", Selection(side=64, held_out=0))
    assert set(counts) == {"train"}
    assert not (tmp_path / "out" / "val.json").exists()
    with pytest.raises(ValueError, match="below 1"):
        Selection(held_out=1.0)


def test_masks_are_those_of_the_source_in_the_new_size(coco, tmp_path):
    select(coco, tmp_path / "out", Selection(side=64, held_out=0.5))
    source = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    before = {one["id"]: one for one in source["annotations"]}
    content = [read(tmp_path / "out", split) for split in ("train", "val")]
    sizes = {image["id"]: (image["height"], image["width"]) for one in content for image in one["images"]}
    after = {entry["id"]: entry for one in content for entry in one["annotations"]}
    assert after.keys() == before.keys()
    for number, entry in after.items():
        old, new = SIZES[entry["image_id"] % 4], sizes[entry["image_id"]]
        whole = rle.decode(read_mask(before[number]["segmentation"], *old))
        small = np.asarray(Image.fromarray(whole).resize(new[::-1], Resampling.NEAREST))
        np.testing.assert_array_equal(rle.decode(read_mask(entry["segmentation"], *new)), small)
        assert (entry["category_id"], entry["iscrowd"]) == (before[number]["category_id"], before[number]["iscrowd"])
        assert entry["area"] == small.sum()


def test_so_many_pictures_of_each_category_are_taken(coco, tmp_path):
    select(coco, tmp_path / "out", Selection(categories=("cat", "person"), most=4, seed=2))
    chosen = ids(tmp_path / "out", "train") + ids(tmp_path / "out", "val")
    assert len(set(chosen)) == len(chosen) == 8
    assert sorted(i % 4 for i in chosen) == [0] * 4 + [2] * 4  # people in crowds are not counted
    select(coco, tmp_path / "again", Selection(categories=("cat", "person"), most=4, seed=2))
    assert read(tmp_path / "again", "train") == read(tmp_path / "out", "train")
    select(coco, tmp_path / "other", Selection(categories=("cat", "person"), most=4, seed=3))
    assert read(tmp_path / "other", "train") != read(tmp_path / "out", "train")


def test_a_file_can_say_how_pictures_are_divided(coco, tmp_path):
    (tmp_path / "split.json").write_text(json.dumps({"train": [1, 24, 7], "val": [5, 2, 99]}))
    assert select(coco, tmp_path / "out", Selection(), tmp_path / "split.json") == {"train": 3, "val": 2}
    assert (ids(tmp_path / "out", "train"), ids(tmp_path / "out", "val")) == ([1, 7, 24], [2, 5])
    partly = {image["id"]: image.get("labelled_categories") for image in read(tmp_path / "out", "train")["images"]}
    assert partly == {1: None, 7: None, 24: ["person"]}


def test_what_does_not_fit_is_said(coco, tmp_path):
    with pytest.raises(DataError, match="expected the category zebra, got person, car, cat, kite"):
        select(coco, tmp_path / "out", Selection(categories=("zebra",)))
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        select(coco, coco, Selection())
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(DataError, match='expected lists "train" and "val" of image ids'):
        select(coco, tmp_path / "out", Selection(), tmp_path / "split.json")
    (tmp_path / "split.json").write_text('{"train": [1, 2, 3], "val": [7, 3]}')
    with pytest.raises(DataError, match="expected every image in one of train and val, got image 3 in both"):
        select(coco, tmp_path / "out", Selection(), tmp_path / "split.json")
    assert not (tmp_path / "out").exists()


def broken(change):
    def broken_as(content, root):
        change(content)

    return broken_as


def cut_short(content):
    """The first mask ends before its first pixel."""
    first = content["annotations"][0]
    image = next(one for one in content["images"] if one["id"] == first["image_id"])
    first["segmentation"] = {"size": [image["height"], image["width"]], "counts": "0"}


def same_name(content, root):
    """Two folders with a picture of one name each."""
    for number, folder in enumerate(("a", "b")):
        name = content["images"][number]["file_name"]
        (root / "train2017" / folder).mkdir()
        (root / "train2017" / name).rename(root / "train2017" / folder / "1.jpg")
        content["images"][number]["file_name"] = f"{folder}/1.jpg"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (same_name, "expected pictures that differ in their names, .* got a/1.jpg and b/1.jpg"),
        (broken(lambda c: c["images"][2].pop("id")), "images: an entry has no 'id'"),
        (broken(lambda c: c["images"][2].update(height="9")), "images, id 3: expected a whole number as height, got"),
        (
            broken(lambda c: c["annotations"][0].update(image_id=99)),
            "expected annotations of listed images, got",
        ),
        (broken(lambda c: c["annotations"][0].pop("category_id")), "annotations, id 1: an entry has no 'category_id'"),
        (
            broken(lambda c: c["annotations"][0].pop("segmentation")),
            "id 1: an entry has no 'segmentation'",
        ),
        (broken(lambda c: c["annotations"][0].update(segmentation=7)), "annotations, id 1: expected"),
        (broken(cut_short), "annotations, id 1: .*expected run lengths that add up to .* got 0"),
        (broken(lambda c: c["images"][5].update(width=77)), "expected .*000006.jpg to have 77 x 120 pixels, got"),
        (lambda c, root: (root / "train2017" / "000000000009.jpg").unlink(), "expected a picture in .*000009.jpg"),
        (lambda c, root: (root / "train2017" / "000000000009.jpg").write_bytes(b"no"), "none that can be read"),
    ],
)
def test_a_faulty_source_is_refused_in_a_sentence_and_nothing_is_left(coco, tmp_path, change, words):
    root = tmp_path / "coco"
    shutil.copytree(coco, root)
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    change(content, root)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        select(root, tmp_path / "out", Selection(side=64))
    assert not (tmp_path / "out").exists()


def test_an_interruption_leaves_no_half_data_set(coco, tmp_path):
    def interrupt(done, of):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select(coco, tmp_path / "out", Selection(side=64), progress=interrupt)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote(coco, tmp_path):
    words = ["--category", "car", "--most", "3", "--side", "48", "--held-out", "0.34"]
    command = [sys.executable, "-m", "cavis", "data", "select", str(coco), str(tmp_path / "out"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 train, 1 val" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train.json", "val.json", "images"}
