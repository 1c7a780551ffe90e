import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from cavis import rle
from cavis.data import ytvis_json
from cavis.data.run_lengths import covered_pixels
from cavis.data.ytvis_json import open_ytvis

HEIGHT, WIDTH, FRAMES = 12, 16, 5


def block(y, x, height=4, width=5):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def annotation(number, category, masks, **fields):
    """An annotation as the json has it; None where the object is absent."""
    return {
        "id": number,
        "video_id": 5,
        "category_id": category,
        "iscrowd": 0,
        "segmentations": [None if mask is None else rle.to_json(rle.encode(mask)) for mask in masks],
        "bboxes": [None if mask is None else list(rle.box(rle.encode(mask))) for mask in masks],
        "areas": [None if mask is None else int(mask.sum()) for mask in masks],
        **fields,
    }


def content():
    """One video: a dog that comes late, a cat that is always there, a crowd."""
    return {
        "videos": [
            {
                "id": 5,
                "height": HEIGHT,
                "width": WIDTH,
                "length": FRAMES,
                "file_names": [f"clip/{t:03d}.jpg" for t in range(FRAMES)],
            }
        ],
        "categories": [{"id": 30, "name": "dog"}, {"id": 7, "name": "cat"}],
        "annotations": [
            annotation(11, 30, [None, None, None, block(2, 3), block(2, 4)]),
            annotation(12, 7, [block(t, t) for t in range(FRAMES)]),
            annotation(13, 7, [block(0, 0)] * FRAMES, iscrowd=1),
        ],
    }


def write(root, json_path, images, data):
    (root / json_path).parent.mkdir(parents=True, exist_ok=True)
    (root / json_path).write_text(json.dumps(data))
    (root / images / "clip").mkdir(parents=True, exist_ok=True)
    for t in range(FRAMES):
        frame = np.full((HEIGHT, WIDTH, 3), (10 * t, 100, 200), dtype=np.uint8)
        Image.fromarray(frame).save(root / images / "clip" / f"{t:03d}.jpg", quality=95)
    return root


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, "annotations.json", "JPEGImages", content())


def test_what_nobody_looked_for_and_what_stands_in_a_crowd_is_unknown(folder, tmp_path):
    assert [open_ytvis(folder).names[k] for k in open_ytvis(folder).clip(0, [0]).targets.unknown.tolist()] == ["cat"]
    data = content()
    data["annotations"].pop()  # the crowd
    for listed, unknown in ((["Dog"], ["cat"]), (["dog", "CAT"], []), ("all", [])):
        data["videos"][0]["labelled_categories"] = listed
        dataset = open_ytvis(write(tmp_path / "other", "annotations.json", "JPEGImages", data))
        assert [dataset.names[k] for k in dataset.clip(0, [0]).targets.unknown.tolist()] == unknown
    data["videos"][0]["labelled_categories"] = ["dgo"]
    with pytest.raises(
        ValueError, match="video 5: expected labelled_categories out of the file's categories, got 'dgo'"
    ):
        open_ytvis(write(tmp_path / "other", "annotations.json", "JPEGImages", data))


@pytest.mark.parametrize(
    ("json_path", "images"),
    [
        ("annotations.json", "JPEGImages"),
        ("instances.json", "JPEGImages"),
        ("valid.json", "valid/JPEGImages"),
        ("valid/instances.json", "valid/JPEGImages"),
        ("annotations/annotations_valid.json", "valid"),
        ("annotations_valid.json", "valid"),
    ],
)
def test_every_layout_is_recognised(tmp_path, json_path, images):
    root = write(tmp_path, json_path, images, content())
    for path, split in ((root, None), (root / json_path, None), (root, "valid")):
        dataset = open_ytvis(path, split)
        assert dataset.images == root / images
        assert dataset.frames(0, [0]).shape == (1, HEIGHT, WIDTH, 3)


def test_the_folder_of_a_split_is_recognised(tmp_path):
    write(tmp_path, "valid.json", "valid/JPEGImages", content())
    assert open_ytvis(tmp_path / "valid").path == tmp_path / "valid.json"


def test_several_splits_need_a_choice(tmp_path):
    write(tmp_path, "valid.json", "valid/JPEGImages", content())
    write(tmp_path, "train.json", "train/JPEGImages", content())
    with pytest.raises(ValueError, match=r"several splits \(train, valid\)"):
        open_ytvis(tmp_path)
    assert open_ytvis(tmp_path, "train").images == tmp_path / "train" / "JPEGImages"


def test_what_is_not_a_data_set_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        open_ytvis(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"annotations\.json, instances\.json, <split>\.json"):
        open_ytvis(tmp_path)
    for text, message in (("{", "expected a json file"), ("[]", '"videos"'), ('{"videos": []}', '"categories"')):
        (tmp_path / "annotations.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            open_ytvis(tmp_path)


def test_labels_are_the_order_of_the_category_ids(folder):
    dataset = open_ytvis(folder)
    assert dataset.names == ("cat", "dog")
    assert dataset.labels == {7: 0, 30: 1}


def test_a_clip_holds_what_its_frames_show(folder):
    clip = open_ytvis(folder).clip(0, [4, 1, 4])
    assert clip.frames.dtype == torch.uint8
    assert clip.frames.shape == (3, 3, HEIGHT, WIDTH)
    np.testing.assert_allclose(clip.frames[:, 0].float().mean((1, 2)), [40, 10, 40], atol=3)
    assert clip.targets.labels.tolist() == [1, 0]
    assert clip.targets.ids.tolist() == [11, 12]
    assert clip.targets.present.tolist() == [[True, False, True], [True, True, True]]
    expected = np.stack([[block(2, 4), block(0, 0) & False, block(2, 4)], [block(4, 4), block(1, 1), block(4, 4)]])
    np.testing.assert_array_equal(clip.targets.masks, expected)


def test_objects_absent_from_all_frames_of_a_clip_are_no_targets(folder):
    assert open_ytvis(folder).clip(0, [0, 2]).targets.ids.tolist() == [12]


def test_a_clip_without_objects_has_empty_targets(tmp_path):
    targets = open_ytvis(write(tmp_path, "annotations.json", "JPEGImages", content() | {"annotations": []})).clip(
        0, [1]
    )
    assert targets.targets.masks.shape == (0, 1, HEIGHT, WIDTH)
    assert targets.targets.present.shape == (0, 1)
    assert targets.targets.labels.shape == (0,)


def test_a_clip_decodes_only_its_own_frames_and_masks(folder, monkeypatch):
    dataset = open_ytvis(folder)
    for t in (0, 1, 3):
        (folder / "JPEGImages" / "clip" / f"{t:03d}.jpg").unlink()
    decoded = []
    decode = rle.decode
    monkeypatch.setattr(ytvis_json.rle, "decode", lambda mask: decoded.append(mask) or decode(mask))
    dataset.clip(0, [2, 4])
    assert len(decoded) == 3  # the cat twice, the dog once


def test_a_mask_without_a_box_does_not_count_as_present(tmp_path):
    data = content()
    data["annotations"][1]["bboxes"][2] = None
    dataset = open_ytvis(write(tmp_path, "annotations.json", "JPEGImages", data))
    clip = dataset.clip(0, [2, 3])
    assert clip.targets.present.tolist() == [[False, True], [False, True]]
    assert not clip.targets.masks[:, 0].any()
    assert dataset.videos[0].annotations[1].masks[2] is not None


def test_run_lengths_and_polygons_read_like_compressed_masks(tmp_path):
    data = content()
    mask = block(2, 3)
    runs = np.diff(np.flatnonzero(np.diff(mask.flatten(order="F"), prepend=False, append=False)))
    counts = [int(np.flatnonzero(mask.flatten(order="F"))[0]), *runs.tolist()]
    counts.append(HEIGHT * WIDTH - sum(counts))
    data["annotations"][0]["segmentations"][3] = {"size": [HEIGHT, WIDTH], "counts": counts}
    data["annotations"][0]["segmentations"][4] = [[3.0, 2.0, 8.0, 2.0, 8.0, 6.0, 3.0, 6.0]]
    dog = open_ytvis(write(tmp_path, "annotations.json", "JPEGImages", data)).videos[0].annotations[0]
    np.testing.assert_array_equal(rle.decode(dog.masks[3]), mask)
    np.testing.assert_array_equal(rle.decode(dog.masks[4]), mask)
    assert coco_mask.area(rle.as_coco(dog.masks[3])) == 20


def test_the_source_gives_every_frame_in_order(folder):
    dataset = open_ytvis(folder)
    with dataset.source(0) as source:
        frames = list(source)
        assert len(source) == len(frames) == len(source.timestamps) == FRAMES
        assert (source.height, source.width) == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(np.stack(frames), dataset.frames(0, range(FRAMES)))


def test_a_test_split_has_no_annotations_but_opens(tmp_path):
    data = content()
    del data["annotations"]
    dataset = open_ytvis(write(tmp_path, "test.json", "test/JPEGImages", data))
    assert not dataset.annotated
    assert dataset.videos[0].annotations == ()


def test_missing_and_broken_frames_name_video_and_file(folder):
    dataset = open_ytvis(folder)
    frames = folder / "JPEGImages" / "clip"
    (frames / "001.jpg").unlink()
    (frames / "002.jpg").write_bytes(b"not a picture")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(frames / "003.jpg")
    for t, message in ((1, "no such file"), (2, "not a readable image"), (3, "expected 12 x 16 pixels, got 13 x 16")):
        with pytest.raises(ValueError, match=rf"frame {t} of video 5 .*{t:03d}\.jpg.*{message}"):
            dataset.clip(0, [t])


def test_frames_that_are_nowhere_are_reported_when_asked_for(tmp_path):
    (tmp_path / "annotations.json").write_text(json.dumps(content()))
    dataset = open_ytvis(tmp_path)
    with pytest.raises(ValueError, match=r"no frames found .* expected clip/000\.jpg in one of .*JPEGImages"):
        dataset.frames(0, [0])


def broken(change):
    data = content()
    change(data)
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (broken(lambda d: d["annotations"][0].update(video_id=9)), "annotation 11 belongs to video 9"),
        (
            broken(lambda d: d["annotations"][0].update(category_id=9)),
            "video 5, annotation 11: category 9 is not listed",
        ),
        (broken(lambda d: d["annotations"][0].update(id=12)), "video 5, annotation 12: the same id"),
        (
            broken(lambda d: d["annotations"][0]["segmentations"].pop()),
            "annotation 11: expected segmentations for 5 fr",
        ),
        (broken(lambda d: d["annotations"][0].pop("category_id")), "an entry has no 'category_id'"),
        (broken(lambda d: d["videos"].append(d["videos"][0])), "its own id"),
        (broken(lambda d: d["videos"].clear() or d["annotations"].clear()), "at least one video"),
        (
            broken(lambda d: d["annotations"][1]["segmentations"].__setitem__(2, {"size": [3, 3], "counts": [9]})),
            "annotation 12: frame 2: expected a mask of 12 x 16, got 3 x 3",
        ),
        (
            broken(lambda d: d["annotations"][1]["segmentations"].__setitem__(2, {"size": [12, 16], "counts": [9]})),
            "annotation 12: frame 2: expected run lengths that add up to 192, got 9",
        ),
        (
            broken(lambda d: d["annotations"][1]["segmentations"].__setitem__(2, 3)),
            "annotation 12: frame 2: expected a",
        ),
    ],
)
def test_errors_name_the_file_the_video_and_the_annotation(tmp_path, data, message):
    write(tmp_path, "annotations.json", "JPEGImages", data)
    with pytest.raises(ValueError, match=message) as caught:
        open_ytvis(tmp_path)
    assert str(tmp_path / "annotations.json") in str(caught.value)


@pytest.mark.parametrize("counts", ["0", "!!", "08", "a"])
def test_a_damaged_mask_names_its_place(tmp_path, counts):
    data = content()
    data["annotations"][1]["segmentations"][2]["counts"] = counts
    write(tmp_path, "annotations.json", "JPEGImages", data)
    with pytest.raises(ValueError, match=r"video 5, annotation 12: frame 2: expected run lengths that add up to 192"):
        open_ytvis(tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_pixels_covered_by_the_runs_of_a_mask_are_those_of_its_image(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 120, (40, 2))
    masks = [rng.random(size) < rng.choice([0, 0.01, 0.5, 1]) for size in sizes]
    covered = covered_pixels([rle.encode(mask).counts for mask in masks] + [b"", b"~", b"0`0"])
    np.testing.assert_array_equal(covered, [*sizes.prod(1), -1, -1, 16])


def compressed(runs):
    """Runs as COCO writes them, whatever they are."""
    text = bytearray()
    for i, run in enumerate(runs):
        value, more = (run - runs[i - 2] if i > 2 else run), True
        while more:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text.append(48 + digit + 32 * more)
    return bytes(text)


@pytest.mark.parametrize(
    "runs", [[10, 192, -10], [20, 30, 20, -10, 132], [-1, 193], [0, -1, 2, 191], [5, 2**33, 187 - 2**33]]
)
def test_runs_below_0_are_refused_though_they_add_up(tmp_path, runs):
    assert sum(runs) == 12 * 16
    data = content()
    data["annotations"][1]["segmentations"][2]["counts"] = compressed(runs).decode()
    write(tmp_path, "annotations.json", "JPEGImages", data)
    with pytest.raises(
        ValueError, match=r"annotation 12: frame 2: expected run lengths that add up to 192, got a run of"
    ):
        open_ytvis(tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_a_mask_is_judged_by_its_own_runs_whatever_lies_beside_it(seed):
    rng = np.random.default_rng(seed)
    masks = [rng.integers(-4, 40, rng.integers(1, 9)).tolist() for _ in range(60)]
    expected = [-2 if min(runs) < 0 else sum(runs) for runs in masks]
    assert len({*expected} - {-2}) > 5 < expected.count(-2)
    np.testing.assert_array_equal(covered_pixels([compressed(runs) for runs in masks]), expected)
