import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_coco import coco_content, write_coco
from test_panoptic_maps import write_coco_panoptic, write_vipseg, write_vspw
from test_ytvis_json import FRAMES, HEIGHT, WIDTH, annotation, block, content, write

from cavis.data.check import check
from cavis.data.faults import DataError
from cavis.data.layouts import recognise
from cavis.data.opening import open_annotated
from cavis.data.ytvis_json import open_ytvis

TINY = [[1, 1, 1.2, 1, 1.2, 1.2]]


def sentences(report, *, harmless):
    return [str(fault) for fault in report.faults if fault.harmless == harmless]


def many_faults():
    """A data set in which nearly everything is wrong, and what should be said of it."""
    data = content()
    box, areas = [[0, 0, 4, 4]] * FRAMES, [20] * FRAMES
    solid = [block(1, 1)] * FRAMES
    data["annotations"] += [
        annotation(20, 7, solid, video_id=6),
        annotation(21, 8, solid),
        annotation(12, 7, solid),
        annotation(22, 7, solid, segmentations=[None]),
        annotation(23, 7, solid, bboxes=box[:2]),
        annotation(24, 7, solid, areas=areas + areas),
        annotation(25, 7, [np.zeros((3, 3), dtype=bool)] * FRAMES),
        annotation("26", 7, solid),
        annotation(27, "7", solid),
        17,
        annotation(28, 7, solid, segmentations="no list"),
        annotation(40, 7, [None] * FRAMES),
        annotation(41, 7, solid, areas=[20, 20, 3000, 20, 20]),
        annotation(42, 7, solid, bboxes=[*box[:4], [10, 10, 90, 90]]),
        annotation(43, 7, [np.zeros((HEIGHT, WIDTH), dtype=bool)] * FRAMES, bboxes=box),
        annotation(44, 7, solid, bboxes=[None, *box[1:]]),
    ]
    mixed = annotation(45, 7, solid)
    mixed["segmentations"][1] = [[1, 1, 6, 1, 6, 5, 1, 5]]
    data["annotations"].append(mixed)
    data["videos"] += [
        {"id": 5, "height": 4, "width": 4, "file_names": ["a/0.jpg"]},
        {"id": "8", "height": 4, "width": 4, "file_names": ["a/0.jpg"]},
        {"id": 9, "height": 4, "width": 4, "file_names": []},
        {"id": 10, "height": HEIGHT, "width": WIDTH, "length": 2, "file_names": ["clip/000.jpg"]},
    ]
    data["categories"].append({"id": 7, "name": "cat again"})
    data["annotations"].append(annotation(46, 7, [None], video_id=9))
    faults = [
        "category 7: expected every category to have its own id",
        "video 5: expected every video to have its own id",
        "video 8: expected a whole number as id, got the text '8'",
        "video 9: expected at least one frame, got none",
        "video 6, annotation 20: annotation 20 belongs to video 6, which is not listed",
        "video 5, annotation 21: category 8 is not listed",
        "video 5, annotation 12: the same id",
        "video 5, annotation 22: expected segmentations for 5 frames, got 1",
        "video 5, annotation 23: expected boxes for 5 frames, got 2",
        "video 5, annotation 24: expected areas for 5 frames, got 10",
        "video 5, annotation 25: frame 0: expected a mask of 12 x 16, got 3 x 3",
        "video 5, annotation 26: expected a whole number as id, got the text '26'",
        "video 5, annotation 27: expected a whole number as category_id, got the text '7'",
        "expected a record with named fields, got 17",
        "video 5, annotation 28: expected a list as segmentations",
    ]
    oddities = [
        "video 10: expected a length of 1, as there are file_names, got 2",
        "video 5, annotation 40: expected a mask in at least one frame, got null in all of them",
        "video 5, annotation 41: frame 2: expected an area of 20 pixels, as the mask has, got 3000",
        "video 5, annotation 42: frame 4: expected a box inside the image of 12 x 16",
        "video 5, annotation 43: frame 0: expected a mask with pixels, got one of none",
        "video 5, annotation 44: frame 0: expected both a mask and a box or neither",
        "video 5, annotation 45: expected run lengths or polygons, got both",
    ]
    return data, faults, oddities


@pytest.fixture
def ruin(tmp_path):
    data, faults, oddities = many_faults()
    write(tmp_path, "annotations.json", "JPEGImages", data)
    frames = tmp_path / "JPEGImages" / "clip"
    (frames / "001.jpg").unlink()
    (frames / "002.jpg").write_bytes(b"not a picture")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(frames / "003.jpg")
    faults = [
        *faults,
        "video 5: expected every frame on disk, got clip/001.jpg, which does not exist",
        "video 5: expected frames that can be read, got clip/002.jpg, which is not a readable image",
        "video 5: expected frames of 12 x 16 pixels, as declared, got clip/003.jpg of 13 x 16",
    ]
    return tmp_path, faults, oddities


def test_every_fault_is_reported_and_none_stops_the_check(ruin):
    root, faults, oddities = ruin
    report = check(root)
    assert report.format == "ytvis"
    assert not report.sound
    for expected, found in ((faults, sentences(report, harmless=False)), (oddities, sentences(report, harmless=True))):
        assert len(found) == len(expected)
        for wanted in expected:
            assert any(f"annotations.json: {wanted}" in sentence for sentence in found), (wanted, found)


def test_opening_names_the_first_fault_and_how_many_more(ruin):
    root, faults, _ = ruin
    with pytest.raises(DataError, match=r"more faults?\)$") as caught:
        open_ytvis(root)
    on_disk = 3
    assert len(caught.value.faults) == len(faults) - on_disk
    assert str(caught.value) == f"{caught.value.faults[0]} (and {len(faults) - on_disk - 1} more faults)"


def test_skipping_leaves_out_exactly_the_faulty_records(ruin):
    root, faults, _ = ruin
    dataset = open_ytvis(root, skip_faulty=True)
    assert [video.id for video in dataset.videos] == [10]
    assert len(dataset.left_out) == len(faults)
    for t in range(FRAMES):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "JPEGImages" / "clip" / f"{t:03d}.jpg")
    dataset = open_ytvis(root, skip_faulty=True)
    assert [video.id for video in dataset.videos] == [5, 10]
    assert [one.id for one in dataset.videos[0].annotations] == [11, 12, 13, 40, 41, 42, 43, 44, 45]
    assert dataset.clip(0, [4]).targets.ids.tolist() == [11, 12, 41, 42, 43, 44, 45]


def test_a_sound_data_set_has_no_faults_and_is_counted(tmp_path):
    """Gaps between category ids, crowds, videos of one frame and of very many are all fine."""
    data = content()
    long = {"id": 6, "height": HEIGHT, "width": WIDTH, "file_names": [f"long/{t % 3:03d}.jpg" for t in range(2000)]}
    short = {"id": 7, "height": HEIGHT, "width": WIDTH, "file_names": ["long/001.jpg"]}
    data["videos"] += [long, short]
    data["annotations"] += [annotation(20, 7, [block(1, 1)] * 2000, video_id=6)]
    data["annotations"] += [annotation(21, 30, [block(1, 1)], video_id=7)]
    root = write(tmp_path, "annotations.json", "JPEGImages", data)
    (root / "JPEGImages" / "long").mkdir()
    for t in range(3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "JPEGImages" / "long" / f"{t:03d}.jpg")
    report = check(root)
    assert report.faults == ()
    assert report.sound
    assert report.counts == (3, 2006, 2, 5, 1)
    assert "3 videos, 2006 frames, 2 categories, 5 objects, 1 of them crowds" in str(report)
    assert open_ytvis(root).clip(1, [1999]).targets.ids.tolist() == [20]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got something else"),
        ("{", "got something else"),
        ('{"videos": [{"id": 1', "got something else"),
        ("[" * 100_000, "got something else"),
        ('{"videos": ' + "[" * 100_000, "got something else"),
        ("[]", '"videos"'),
        ('{"a": 1}', '"videos" (YouTube-VIS, VIPSeg) or "images" (COCO)'),
        ('{"videos": []}', '"categories"'),
        ('{"videos": [], "categories": []}', "expected at least one video, got none"),
        ('{"images": [], "categories": []}', "expected at least one image, got none"),
    ],
)
def test_what_is_no_data_set_is_a_report_too(tmp_path, text, message):
    file = tmp_path / "annotations.json"
    file.write_text(text)
    for path in (tmp_path, file):
        report = check(path)
        assert not report.sound
        assert message in str(report.faults[0])
        assert str(report.faults[0]).count(str(file)) == 1
    assert "does not exist" in str(check(tmp_path / "nowhere").faults[0])


def test_images_are_checked_like_videos(tmp_path):
    data = coco_content()
    data["annotations"][0].update(area=500, bbox=[0, 0, 99, 3])
    data["annotations"][1].update(segmentation=TINY, area=0)
    data["annotations"][2].update(segmentation=[])
    write_coco(tmp_path, data)
    (tmp_path / "images" / "2.png").unlink()
    report = check(tmp_path)
    assert report.format == "coco"
    assert report.counts == (4, 4, 2, 4, 1)
    harmful, odd = sentences(report, harmless=False), sentences(report, harmless=True)
    assert [sentence.split(": ", 2)[1] for sentence in harmful] == ["image 9, annotation 32", "image 2"]
    assert [sentence.split(": ", 2)[1] for sentence in odd] == ["image 7, annotation 31"] * 2 + [
        "image 4, annotation 30"
    ]


def test_panoptic_maps_are_compared_with_their_lists(tmp_path):
    def change(content):
        content["annotations"][0]["annotations"][0]["segments_info"].append({"id": 99, "category_id": 2})
        for frame in content["annotations"][1]["annotations"]:
            frame["segments_info"] = [one for one in frame["segments_info"] if one["id"] != 70_000]

    report = check(write_vipseg(tmp_path, change))
    assert report.format == "vipseg"
    assert report.sound
    assert [str(fault).split(": ", 1)[1] for fault in report.faults] == [
        "video 0_x: expected every segment in a map, got none with the id 99",
        "video 12_abc: frame 0: expected segments that are listed, got the id 70000 in the map",
    ]


def test_label_maps_are_checked(tmp_path):
    root = write_vspw(tmp_path)
    assert check(root, split="train").faults == ()
    Image.fromarray(np.full((8, 12), 200, dtype=np.uint8)).save(root / "data" / "one" / "mask" / "00000001.png")
    Image.new("L", (5, 5)).save(root / "data" / "two" / "mask" / "00000003.png")
    report = check(root, split="train")
    assert [fault.harmless for fault in report.faults] == [True, False]
    assert "video one: frame 1: expected segments that are listed, got the id 200" in str(report.faults[0])
    assert "two/mask/00000003.png of 5 x 5" in str(report.faults[1])


def test_the_form_is_recognised_by_content(tmp_path):
    """The file's name is the same in both."""
    write(tmp_path / "a", "instances.json", "JPEGImages", content())
    write_coco(tmp_path / "b", coco_content())
    for folder, form in (("a", "ytvis"), ("b", "coco")):
        assert recognise(tmp_path / folder) == recognise(tmp_path / folder / "instances.json") == form
    with pytest.raises(DataError, match="expected a data set in the form 'ytvis', got one in"):
        open_ytvis(tmp_path / "b")


def test_a_broken_file_does_not_hide_behind_a_sound_one(tmp_path):
    write(tmp_path, "valid.json", "valid/JPEGImages", content())
    (tmp_path / "train.json").write_text(json.dumps(content())[:-40])
    assert "train.json" in str(check(tmp_path, split="train").faults[0])


JUNK = (None, True, -1, 0, 3, 10**30, 1e300, float("nan"), "", "7", "x" * 5000, "a\0b", [], [[]], [None], {}, {"id": 1})


def places(value, at=()):
    """The way to every part of a json value."""
    yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*at, key))


def replaced(value, at, junk):
    """A json value with one part made into something else."""
    if not at:
        return junk
    changed = value.copy()
    changed[at[0]] = replaced(value[at[0]], at[1:], junk)
    return changed


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """One data set of each kind of json."""
    root = tmp_path_factory.mktemp("sound")
    write(root / "ytvis", "annotations.json", "JPEGImages", content())
    write_coco(root / "coco", coco_content())
    write_vipseg(root / "vipseg")
    (root / "panoptic").mkdir()
    write_coco_panoptic(root / "panoptic")
    return sorted(root.rglob("*.json"))


def opened(file, *, skip_faulty):
    """The data set, or the sentence with which it is refused."""
    try:
        return open_annotated(file, skip_faulty=skip_faulty)
    except DataError as error:
        return str(error)


@settings(max_examples=150)
@given(st.data())
def test_whatever_is_broken_is_reported_and_refused_in_words(sound, data):
    file = data.draw(st.sampled_from(sound))
    text = file.read_text()
    value = json.loads(text)
    at, junk = data.draw(st.sampled_from(list(places(value)))), data.draw(st.sampled_from(JUNK))
    try:
        file.write_text(json.dumps(replaced(value, at, junk)))
        report = check(file)
        for skip_faulty in (False, True):
            dataset = opened(file, skip_faulty=skip_faulty)
            if isinstance(dataset, str):
                assert str(file) in dataset
                assert not report.sound or "expected images with objects" in dataset
            elif report.sound or (skip_faulty and dataset.images is not None):
                assert dataset.clip(len(dataset) - 1, [0]).frames.shape[:2] == (1, 3)
    finally:
        file.write_text(text)
