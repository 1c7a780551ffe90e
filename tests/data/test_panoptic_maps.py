import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cavis.categories import COCO_AS, VIPSEG_IDS, VSPW
from cavis.data.coco_panoptic import open_coco_panoptic
from cavis.data.faults import DataError
from cavis.data.layouts import recognise
from cavis.data.mixing import PicturesSource
from cavis.data.opening import open_annotated
from cavis.data.vipseg import open_vipseg
from cavis.data.vspw import open_vspw
from cavis.presets import DATA_SETS, get_preset, tiny
from cavis.training.start import clip_source

HEIGHT, WIDTH, FRAMES = 8, 12, 4
SKY, CAR, BUS = 7, 70_000, 70_013
"""Segment ids."""
CATEGORIES = [
    {"id": 0, "name": "sky", "isthing": 0},
    {"id": 3, "name": "bus", "isthing": 1},
    {"id": 2, "name": "road", "isthing": 0},
    {"id": 1, "name": "car", "isthing": 1},
]
CATEGORY = {SKY: 0, CAR: 1, BUS: 3}


def ids_at(t):
    """The sky above, void below; a car that drives, a bus that comes late and is a crowd when asked for."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    ids[:4] = SKY
    ids[5:7, t : t + 3] = CAR
    if t >= 2:
        ids[4:6, 9:12] = BUS
    return ids


def save_ids(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)).save(path)


def save_frame(path, t):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (20 * t, 90, 30)).save(path, quality=95)


def infos(ids):
    return [{"id": one, "category_id": CATEGORY[one], "iscrowd": 0} for one in np.unique(ids).tolist() if one]


def write_vipseg(root, change=None, name="panoptic_gt_VIPSeg_val.json"):
    images = [{"id": f"{t:05d}", "width": WIDTH, "height": HEIGHT, "file_name": f"{t:05d}.jpg"} for t in range(FRAMES)]
    shown = [
        {"image_id": f"{t:05d}", "file_name": f"{t:05d}.png", "segments_info": infos(ids_at(t))} for t in range(FRAMES)
    ]
    videos = ("12_abc", "0_x")
    content = {
        "videos": [{"video_id": one, "images": images} for one in videos],
        "annotations": [{"video_id": one, "annotations": shown} for one in reversed(videos)],
        "categories": CATEGORIES,
    }
    content = json.loads(json.dumps(content))
    if change:
        change(content)
    for video in videos:
        for t in range(FRAMES):
            save_frame(root / "images" / video / f"{t:05d}.jpg", t)
            save_ids(root / "panomasksRGB" / video / f"{t:05d}.png", ids_at(t))
    (root / name).write_text(json.dumps(content))
    return root


def check_clip(clip, frames):
    """The clip against the drawing it was made of."""
    drawn = np.stack([ids_at(t) for t in frames])
    ids = [one for one in np.unique(drawn).tolist() if one]
    assert clip.targets.ids.tolist() == ids
    assert clip.targets.labels.tolist() == [{SKY: 2, CAR: 0, BUS: 1}[one] for one in ids]
    np.testing.assert_array_equal(clip.targets.masks, np.stack([drawn == one for one in ids]))
    np.testing.assert_array_equal(clip.targets.present, np.stack([(drawn == one).any((1, 2)) for one in ids]))
    assert clip.frames.shape == (len(frames), 3, HEIGHT, WIDTH)
    np.testing.assert_allclose(clip.frames[:, 0].float().mean((1, 2)), [20 * t for t in frames], atol=3)


@pytest.mark.parametrize("frames", [[0], [3, 0, 3], [0, 1], [2, 3]])
def test_a_clip_has_one_object_for_every_segment_things_and_stuff(tmp_path, frames):
    dataset = open_annotated(write_vipseg(tmp_path))
    assert dataset.names == ("car", "bus", "sky", "road")
    assert dataset.things == 2
    assert dataset.category_ids == (1, 3, 0, 2)
    assert [dataset.length(i) for i in range(len(dataset))] == [FRAMES, FRAMES]
    assert dataset.objects(0) == 3
    check_clip(dataset.clip(1, frames), frames)


def test_the_source_of_a_mapped_video_gives_every_frame(tmp_path):
    dataset = open_vipseg(write_vipseg(tmp_path))
    with dataset.source(0) as source:
        np.testing.assert_array_equal(np.stack(list(source)), dataset.clip(0, range(FRAMES)).frames.permute(0, 2, 3, 1))


def test_crowds_are_no_objects(tmp_path):
    def crowd(content):
        for video in content["annotations"]:
            for frame in video["annotations"]:
                for info in frame["segments_info"]:
                    info["iscrowd"] = int(info["id"] == BUS)

    dataset = open_vipseg(write_vipseg(tmp_path, crowd))
    assert dataset.clip(0, [3]).targets.ids.tolist() == [SKY, CAR]


def other_category(content):
    content["annotations"][0]["annotations"][1]["segments_info"][1]["category_id"] = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_category, f"video 0_x: frame 1: segment {CAR}: expected one category in all frames, got two"),
        (lambda c: c["annotations"].pop(), "video 12_abc: expected annotations, got none"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "video 0_x: expected the annotations of a video in"),
        (lambda c: c["annotations"][0].update(video_id="y"), "video y: annotations belong to a video that is not lis"),
        (lambda c: c["annotations"][0]["annotations"][0].update(image_id="z"), "image z is annotated, but not listed"),
        (lambda c: c["videos"][0]["images"][1].update(height=9), "video 12_abc: expected images of one size"),
        (lambda c: c["categories"].pop(0), f"frame 0: segment {SKY}: category 0 is not listed"),
        (lambda c: c.pop("categories"), 'got no "categories"'),
    ],
)
def test_faults_of_panoptic_videos_name_file_and_video(tmp_path, change, message):
    root = write_vipseg(tmp_path, change)
    with pytest.raises(DataError, match=message) as caught:
        open_vipseg(root)
    assert "panoptic_gt_VIPSeg_val.json" in str(caught.value)


def test_faulty_panoptic_videos_are_left_out_on_request(tmp_path):
    root = write_vipseg(tmp_path)
    (root / "panomasksRGB" / "0_x" / "00002.png").write_bytes(b"no picture")
    dataset = open_vipseg(root, skip_faulty=True)
    assert [video.id for video in dataset.videos] == ["12_abc"]
    assert "00002.png, which is not a readable image" in str(dataset.left_out[0])
    with pytest.raises(ValueError, match=r"frame 2 of video 0_x .*00002\.png\): not a readable image"):
        open_vipseg(root).clip(0, [2])


def write_coco_panoptic(root, maps="annotations/panoptic_val2017"):
    images = [{"id": t, "width": WIDTH, "height": HEIGHT, "file_name": f"{t:03d}.jpg"} for t in range(FRAMES)]
    shown = [{"image_id": t, "file_name": f"{t:03d}.png", "segments_info": infos(ids_at(t))} for t in range(FRAMES)]
    for t in range(FRAMES):
        save_frame(root / "val2017" / f"{t:03d}.jpg", t)
        save_ids(root / maps / f"{t:03d}.png", ids_at(t))
    (root / "annotations").mkdir(exist_ok=True)
    content = {"images": images, "annotations": shown, "categories": CATEGORIES}
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("maps", ["annotations/panoptic_val2017", "panoptic_val2017"])
def test_panoptic_images_become_pseudo_clips(tmp_path, maps):
    dataset = open_annotated(write_coco_panoptic(tmp_path, maps))
    assert len(dataset) == FRAMES
    clip = dataset.clip(2, [0, 0])
    assert clip.still
    check_clip(clip, [2, 2])


def test_instances_and_panoptic_annotations_of_one_folder_are_told_apart(tmp_path):
    write_coco_panoptic(tmp_path)
    assert recognise(tmp_path) == "coco_panoptic"
    instance = {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}
    images = [{"id": 0, "width": WIDTH, "height": HEIGHT, "file_name": "000.jpg"}]
    content = {"images": images, "annotations": [instance], "categories": CATEGORIES}
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    assert recognise(tmp_path) == "coco"
    assert len(open_annotated(tmp_path)) == 1
    assert len(open_annotated(tmp_path, form="coco_panoptic")) == len(open_coco_panoptic(tmp_path)) == FRAMES


def write_vspw(root):
    for name in ("one", "two"):
        for t in range(FRAMES):
            save_frame(root / "data" / name / "origin" / f"{t:08d}.jpg", t)
            (root / "data" / name / "mask").mkdir(exist_ok=True)
            Image.fromarray(classes_at(t)).save(root / "data" / name / "mask" / f"{t:08d}.png")
    (root / "val.txt").write_text("two\n")
    (root / "train.txt").write_text("one\ntwo\n")
    return root


def classes_at(t):
    values = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    values[:3] = 255
    values[3:5] = 1 + t
    values[5:, :4] = 124
    return values


def test_a_class_is_an_object_where_every_pixel_has_one(tmp_path):
    dataset = open_vspw(write_vspw(tmp_path), "val")
    assert [video.id for video in dataset.videos] == ["two"]
    clip = dataset.clip(0, [1, 3])
    assert clip.targets.ids.tolist() == [2, 4, 124]
    assert dataset.category_ids == VIPSEG_IDS
    assert [VIPSEG_IDS[label] + 1 for label in clip.targets.labels.tolist()] == [2, 4, 124]
    assert [dataset.names[label] for label in clip.targets.labels.tolist()] == ["ceiling", "stair", "train"]
    assert clip.targets.present.tolist() == [[True, False], [False, True], [True, True]]
    values = np.stack([classes_at(1), classes_at(3)])
    np.testing.assert_array_equal(clip.targets.masks, np.stack([values == one for one in (2, 4, 124)]))


def test_splits_of_a_list_of_videos_need_a_choice(tmp_path):
    write_vspw(tmp_path)
    assert recognise(tmp_path) == recognise(tmp_path / "train.txt") == "vspw"
    with pytest.raises(DataError, match=r"several splits \(train, val\)"):
        open_annotated(tmp_path)
    assert len(open_annotated(tmp_path, "train")) == len(open_annotated(tmp_path / "train.txt")) == 2
    assert open_annotated(tmp_path, "valid").names == VSPW


def test_without_lists_every_video_of_the_folder_counts(tmp_path):
    write_vspw(tmp_path)
    (tmp_path / "val.txt").unlink()
    (tmp_path / "train.txt").unlink()
    assert [video.id for video in open_annotated(tmp_path).videos] == ["one", "two"]


def test_a_missing_mask_or_video_is_named(tmp_path):
    write_vspw(tmp_path)
    (tmp_path / "data" / "two" / "mask" / "00000002.png").unlink()
    with pytest.raises(DataError, match=r"video two: expected a mask for every frame, got none for 00000002\.jpg"):
        open_vspw(tmp_path, "train")
    assert [video.id for video in open_vspw(tmp_path, "train", skip_faulty=True).videos] == ["one"]
    (tmp_path / "test.txt").write_text("three\n")
    with pytest.raises(DataError, match=r"video three: expected frames in .*origin, got none"):
        open_vspw(tmp_path, "test")


def test_panoptic_pictures_of_coco_are_read_but_not_mixed_with_vipseg(tmp_path):
    """Which of VIPSeg's categories is which of COCO's is said nowhere; for the other data sets of the paper it is."""
    path = str(write_coco_panoptic(tmp_path))
    own = replace(tiny(), model=replace(tiny().model, categories=open_annotated(path).names))
    assert isinstance(clip_source(path, own), PicturesSource)
    with pytest.raises(ValueError, match="expected the 124 categories of preset vipseg_r50 in"):
        clip_source(path, get_preset("vipseg_r50"))
    mapped = {mapping.names for mapping in COCO_AS.values()}
    assert [data for data in DATA_SETS if DATA_SETS[data].names not in mapped] == ["vipseg"]
