import json

import numpy as np
import pytest
from PIL import Image

from cavis import categories, rle
from cavis.categories import COCO, COCO_AS, CategoryMap
from cavis.data.coco import open_coco
from cavis.data.faults import DataError
from cavis.data.opening import open_annotated

HEIGHT, WIDTH = 10, 14
NOT_COCO = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = dict(zip((i for i in range(1, 91) if i not in NOT_COCO), COCO, strict=True))


def block(y, x, height=4, width=5):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def coco_annotation(number, image, category, mask, **more):
    packed = rle.encode(mask)
    fields = {"bbox": list(rle.box(packed)), "area": int(mask.sum()), "iscrowd": 0}
    return (
        {"id": number, "image_id": image, "category_id": category, "segmentation": rle.to_json(packed)} | fields | more
    )


def coco_content():
    """A cat and a kite; a crowd only; nothing; a cat, in an image in which nobody looked for kites."""
    images = [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in (4, 9, 2, 7)]
    images[3]["labelled_categories"] = ["cat"]
    polygon = [[3.0, 2.0, 8.0, 2.0, 8.0, 6.0, 3.0, 6.0]]
    return {
        "images": images,
        "annotations": [
            coco_annotation(31, 7, 17, block(1, 1)),
            coco_annotation(30, 4, 38, block(2, 3), segmentation=polygon),
            coco_annotation(32, 9, 17, block(0, 0), iscrowd=1),
            coco_annotation(33, 4, 17, block(5, 8)),
            coco_annotation(34, 4, 17, block(6, 0), iscrowd=1),
        ],
        "categories": [{"id": 38, "name": "kite"}, {"id": 17, "name": "cat"}],
    }


def write_coco(root, content, name="instances.json", images="images"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content))
    (root / images).mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        Image.new("RGB", (WIDTH, HEIGHT), (image["id"], 50, 90)).save(root / images / image["file_name"])
    return root


def test_a_pseudo_clip_repeats_the_picture_and_its_objects(tmp_path):
    dataset = open_coco(write_coco(tmp_path, coco_content()))
    assert dataset.names == ("cat", "kite")
    assert [dataset.length(i) for i in range(len(dataset))] == [1] * len(dataset)
    clip = dataset.clip(0, [0, 0, 0])
    assert clip.still
    assert clip.frames.shape == (3, 3, HEIGHT, WIDTH)
    assert clip.frames[:, 0].unique().tolist() == [4]
    assert clip.targets.ids.tolist() == [30, 33]
    assert clip.targets.labels.tolist() == [1, 0]
    assert clip.targets.present.all()
    np.testing.assert_array_equal(clip.targets.masks, np.stack([[block(2, 3)] * 3, [block(5, 8)] * 3]))
    np.testing.assert_array_equal(dataset.source(0)[0], clip.frames[0].permute(1, 2, 0))


def test_images_without_objects_are_left_out_unless_asked_for(tmp_path):
    write_coco(tmp_path, coco_content())
    assert [one.id for one in open_coco(tmp_path).pictures] == [4, 7]
    everything = open_coco(tmp_path, keep_empty=True)
    assert [one.id for one in everything.pictures] == [4, 9, 2, 7]
    assert [everything.objects(i) for i in range(4)] == [2, 0, 0, 1]
    for index, same in ((0, 0), (3, 1)):
        left, right = everything.clip(index, [0]).targets, open_coco(tmp_path).clip(same, [0]).targets
        assert left.ids.equal(right.ids)
        assert left.masks.equal(right.masks)


def test_labels_nobody_looked_for_are_unknown(tmp_path):
    dataset = open_coco(write_coco(tmp_path, coco_content()))
    assert dataset.clip(1, [0]).targets.unknown.tolist() == [1]


def test_what_there_is_a_crowd_of_is_unknown_too(tmp_path):
    content = coco_content()
    crowded = open_coco(write_coco(tmp_path / "crowd", content)).clip(0, [0]).targets
    assert crowded.unknown.tolist() == [0]
    assert crowded.ids.tolist() == [30, 33]  # the cat that stands alone is learned all the same
    content["annotations"].pop()
    assert open_coco(write_coco(tmp_path / "none", content)).clip(0, [0]).targets.unknown.tolist() == []


def test_a_label_of_several_categories_is_known_only_if_the_file_has_all_of_them_and_all_were_looked_for(tmp_path):
    few, every = coco_content(), coco_content()
    every["categories"] = [{"id": number, "name": name} for number, name in COCO_IDS.items()]
    cat, thing = (COCO_AS["lite"].names.index(name) for name in ("cat", "object"))
    others = [name for name in COCO if name != "zebra"]
    cases = [(every, ["cat"], {cat}), (every, others, {cat}), (every, list(COCO), {cat, thing}), (few, "all", {cat})]
    for content, listed, known in cases:
        content["images"][3]["labelled_categories"] = listed
        dataset = open_coco(write_coco(tmp_path, content), categories=COCO_AS["lite"])
        unknown = set(dataset.clip(1, [0]).targets.unknown.tolist())
        assert {cat, thing} - unknown == known
    assert [categories.LITE[k] for k in dataset.clip(0, [0]).targets.labels.tolist()] == ["object", "cat"]


def test_categories_that_have_the_wanted_names_already_keep_them(tmp_path):
    content = coco_content()
    content["categories"] = [{"id": 38, "name": "Object"}, {"id": 17, "name": "cat"}]
    del content["images"][3]["labelled_categories"]
    dataset = open_coco(write_coco(tmp_path, content), categories=COCO_AS["lite"])
    targets = dataset.clip(0, [0]).targets
    assert [categories.LITE[k] for k in targets.labels.tolist()] == ["object", "cat"]
    unknown = dataset.clip(1, [0]).targets.unknown.tolist()
    assert [categories.LITE[k] for k in unknown] == ["person", "car", "bicycle", "motorcycle"]


def test_what_was_looked_for_is_meant_whatever_its_capitals_and_a_slip_is_a_fault(tmp_path):
    content = coco_content()
    content["images"][3]["labelled_categories"] = ["Cat"]
    dataset = open_coco(write_coco(tmp_path, content))
    assert [dataset.names[k] for k in dataset.clip(1, [0]).targets.unknown.tolist()] == ["kite"]
    content["images"][3]["labelled_categories"] = ["cat", "kitten"]
    words = "image 7: expected labelled_categories out of the file's categories, got 'kitten'"
    content["images"][0]["labelled_categories"] = ["cat", "kitten"]
    with pytest.raises(DataError, match=r"got 'kitten' \(and 1 more fault\)") as refused:
        open_coco(write_coco(tmp_path, content))
    assert any(words in str(fault) for fault in refused.value.faults)


@pytest.mark.parametrize(
    ("json_path", "images", "split"),
    [
        ("annotations/instances_val2017.json", "val2017", "valid"),
        ("annotations/instances_train2017.json", "train2017", "train"),
        ("annotations/instances_train.json", "images", None),
        ("instances_val.json", "val", "val"),
        ("train.json", "images/train", "train"),
        ("annotations.json", ".", None),
    ],
)
def test_every_layout_of_images_opens(tmp_path, json_path, images, split):
    dataset = open_annotated(write_coco(tmp_path, coco_content(), json_path, images), split)
    assert dataset.images == tmp_path / images
    assert dataset.clip(1, [0]).frames.shape == (1, 3, HEIGHT, WIDTH)


def test_annotations_may_come_before_what_they_belong_to(tmp_path):
    content = coco_content()
    straight = open_coco(write_coco(tmp_path / "a", content))
    turned = open_coco(
        write_coco(tmp_path / "b", dict(reversed(content.items())) | {"annotations": content["annotations"]})
    )
    backwards = {name: content[name] for name in ("annotations", "categories", "images")}
    assert open_coco(write_coco(tmp_path / "c", backwards)).table.counts == straight.table.counts == turned.table.counts


RELEASED = {
    "ytvis19": "1 1 2 21 3 6 4 21 5 28 7 17 8 29 9 34 17 14 18 8 19 18 21 15 22 32 23 20 24 30 25 22 35 33 36 33 41 5 "
    "42 27 43 40",
    "ytvis21": "1 26 2 23 3 5 4 23 5 1 7 36 8 37 9 4 16 3 17 6 18 9 19 19 21 7 22 12 23 2 24 40 25 18 34 14 35 31 "
    "36 31 41 29 42 33 43 34",
    "ovis": "1 1 2 21 3 25 4 22 5 23 6 25 8 25 9 24 17 3 18 4 19 5 20 6 21 7 22 8 23 9 24 10 25 11",
}


@pytest.mark.parametrize("name", RELEASED)
def test_category_maps_are_the_released_ones(name):
    numbers = [int(word) for word in RELEASED[name].split()]
    released = dict(zip(numbers[::2], numbers[1::2], strict=True))
    ours = {number: COCO_AS[name].label(COCO_IDS[number]) for number in COCO_IDS}
    assert {number: label + 1 for number, label in ours.items() if label is not None} == released


def test_a_category_map_gives_the_labels_of_the_other_data_set(tmp_path):
    write_coco(tmp_path, coco_content())
    dataset = open_coco(tmp_path, categories=COCO_AS["ovis"])
    assert dataset.names == categories.OVIS
    targets = dataset.clip(0, [0]).targets
    assert targets.ids.tolist() == [33]
    assert [categories.OVIS[label] for label in targets.labels.tolist()] == ["Cat"]
    assert dataset.clip(1, [0]).targets.unknown.tolist() == [
        i for i, name in enumerate(categories.OVIS) if name != "Cat"
    ]
    with pytest.raises(DataError, match="expected categories of COCO by their names, got kite, cat"):
        open_coco(tmp_path, categories=CategoryMap(("a",), {"b": "a"}))


def broken(change):
    content = coco_content()
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (broken(lambda c: c["annotations"][0].update(image_id=5)), "annotation 31: annotation 31 belongs to image 5"),
        (broken(lambda c: c["annotations"][0].update(category_id=5)), "image 7, annotation 31: category 5 is not"),
        (broken(lambda c: c["annotations"][0].update(id=30)), "image 4, annotation 30: the same id"),
        (broken(lambda c: c["annotations"][0].update(segmentation=None)), "annotation 31: expected a segmentation"),
        (broken(lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]])), "at least three points, got 4"),
        (broken(lambda c: c["annotations"][0].update(segmentation=[1, 2, 3, 4, 5, 6])), "as lists x, y"),
        (broken(lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 1e9, 5, 6]])), "far outside"),
        (broken(lambda c: c["annotations"][0].update(image_id="7")), "whole number as image_id, got the text '7'"),
        (broken(lambda c: c["images"][1].update(height=0)), "image 9: expected a height and width of at least 1"),
        (broken(lambda c: c["images"].append(c["images"][0])), "image 4: expected every image to have its own id"),
        (broken(lambda c: c["images"][0].pop("file_name")), "image 4: an entry has no 'file_name'"),
    ],
)
def test_faults_of_images_name_file_image_and_annotation(tmp_path, content, message):
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        open_coco(tmp_path)
    assert str(tmp_path / "instances.json") in str(caught.value)


def test_faulty_images_and_annotations_are_left_out_on_request(tmp_path):
    content = coco_content()
    content["annotations"][3]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": "08"}
    write_coco(tmp_path, content)
    (tmp_path / "images" / "7.png").unlink()
    with pytest.raises(DataError, match="annotation 33: frame 0: expected run lengths"):
        open_coco(tmp_path)
    dataset = open_coco(tmp_path, skip_faulty=True)
    assert [one.id for one in dataset.pictures] == [4]
    assert dataset.clip(0, [0]).targets.ids.tolist() == [30]
    assert [fault.item for fault in dataset.left_out] == ["image 4", "image 7"]
