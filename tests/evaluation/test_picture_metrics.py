"""Pictures of COCO as videos of one frame."""

import json
from dataclasses import replace

import numpy as np
import pytest
from nano import nano_model, nano_preset
from PIL import Image

from cavis import rle
from cavis.categories import COCO, COCO_AS, LITE
from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.data.coco import open_coco
from cavis.data.pictures import as_videos
from cavis.evaluation.run import evaluate, ground_truth
from cavis.evaluation.start import in_words_of, open_dataset, task_for
from cavis.records import Track, VideoResult

SIDE = 32
PLACES = {"cat": 2, "kite": 12, "dog": 20}
IDS = {38: "kite", 17: "cat", 18: "dog"}


def square(name, side=8):
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[PLACES[name] : PLACES[name] + side, PLACES[name] : PLACES[name] + side] = True
    return rle.encode(mask)


@pytest.fixture
def album(tmp_path):
    """A cat and a crowd of dogs; a cat, a kite and a dog; a kite, where nobody looked for anything else; nothing."""
    shown = {4: ["cat", "dog"], 9: ["cat", "kite", "dog"], 2: ["kite"], 7: []}
    ids = {name: number for number, name in IDS.items()}
    content = {"images": [], "annotations": [], "categories": [{"id": n, "name": name} for n, name in IDS.items()]}
    (tmp_path / "images").mkdir()
    for number, names in shown.items():
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE})
        Image.new("RGB", (SIDE, SIDE), (9 * number, 50, 90)).save(tmp_path / "images" / f"{number}.png")
        for name in names:
            entry = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": ids[name]}
            entry |= {"iscrowd": int((number, name) == (4, "dog")), "segmentation": rle.to_json(square(name))}
            content["annotations"].append(entry | {"area": 64, "bbox": list(rle.box(square(name)))})
    content["images"][2]["labelled_categories"] = ["kite"]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def sees(*names):
    """A predictor that sees the same things in every picture."""

    def predict(source):
        tracks = []
        for n, name in enumerate(names, start=1):
            scores = np.array([0.9 * (name == one) for one in IDS.values()])
            zeros = np.zeros((1, 2))
            tracks.append(Track(n, scores, (square(name),), np.zeros((1, 4)), zeros, zeros))
        return VideoResult(tuple(tracks), SIDE, SIDE, source.timestamps, tuple(IDS.values()), "made up")

    return predict


def ready(names):
    preset = nano_preset()
    config = replace(preset.model, categories=names)
    return ReadyModel(nano_model(), ModelFile("nano", "nano", config, "tracker", ""), preset.inference, "")


def test_a_picture_is_a_video_of_one_frame_with_the_same_objects(album):
    dataset = open_dataset(album)
    pictures = open_coco(album, keep_empty=True)
    assert [video.id for video in dataset.videos] == [4, 9, 2, 7]
    assert dataset.categories == dict(sorted(IDS.items()))
    for index in range(4):
        video, picture = dataset.clip(index, [0]), pictures.clip(index, [0])
        assert video.frames.equal(picture.frames)
        for name in ("labels", "ids", "masks", "present"):
            assert getattr(video.targets, name).equal(getattr(picture.targets, name))
    assert [one.iscrowd for one in ground_truth(dataset)] == [False, True, False, False, False, False]


def test_labels_and_crowds_are_honoured(album):
    dataset = open_dataset(album)

    def ap50(name):
        evaluation = evaluate(dataset, sees(name), top_k=100)
        return {row.name: row.ap50 for row in evaluation.per_category}[name]

    # Equal scores rank by picture: 2, where nobody looked (left out), 4 right, 7 wrong, 9 right.
    assert ap50("cat") == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    # 4 is the crowd (ignored), 7 wrong, 9 right.
    assert ap50("dog") == pytest.approx(1 / 2)
    # 2 is right, for kites were looked for there; 4 and 7 are wrong, 9 is right.
    assert ap50("kite") == pytest.approx((51 * 1 + 50 * 1 / 2) / 101)
    assert [row.objects for row in evaluate(dataset, sees("cat")).per_category] == [2, 1, 2]


def test_a_model_of_other_categories_is_measured_in_its_own_words(album):
    assert in_words_of(open_dataset(album), ready(LITE)).videos[1].known == (2,)  # few kinds of objects: no measure
    content = json.loads((album / "instances.json").read_text())
    others = sorted(set(COCO) - set(IDS.values()))
    content["categories"] += [{"id": 100 + n, "name": name} for n, name in enumerate(others)]
    (album / "instances.json").write_text(json.dumps(content))
    dataset = in_words_of(open_dataset(album), ready(LITE))
    assert dataset.names == LITE
    renamed = as_videos(open_coco(album, categories=COCO_AS["lite"], keep_empty=True))
    assert ground_truth(dataset) == ground_truth(renamed)
    # Objects are of several kinds, so that in the third picture nobody looked for all of them.
    names = [dataset.categories[one.category_id] for one in ground_truth(dataset)]
    assert names == ["cat", "object", "cat", "object", "object"]
    plain = open_dataset(album)
    assert in_words_of(plain, ready(("red", "green", "blue"))) is plain


def test_pictures_pass_through_the_task_of_instances(album, tmp_path):
    dataset = open_dataset(album)
    task = task_for(dataset, ready(("cat", "kite", "dog")), tmp_path / "out", 5)
    found = [task.predict(index) for index in range(len(dataset))]
    (tmp_path / "out").mkdir()
    outcome = task.finish(found.__getitem__)
    assert outcome.table[0] == ["category", "AP", "AP50", "ABO"]
    assert set(outcome.numbers) >= {"AP", "AP50", "HOTA"}
    assert not [one for one in found[2]["predictions"] if one["category_id"] != 38]
