import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavis import rle
from cavis.data import json_stream
from cavis.data.coco import open_coco
from cavis.data.faults import DataError
from cavis.data.json_stream import Entry, entries, entries_after
from cavis.data.ytvis_json import open_ytvis

SIZE = 6_000_000
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.sampled_from([None, 1, "\t"]), st.integers(1, 9))
def test_entries_are_those_of_the_whole_file_however_it_is_cut(tmp_path_factory, content, indent, chunk):
    file = tmp_path_factory.mktemp("json") / "a.json"
    file.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    expected = []
    for key, value in content.items():
        if isinstance(value, list):
            expected += [Entry(key, -1, None), *(Entry(key, i, one) for i, one in enumerate(value))]
        else:
            expected.append(Entry(key, None, value))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        assert list(entries(file)) == expected


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_file_that_ends_too_early_is_refused(tmp_path, cut):
    text = json.dumps({"videos": [{"id": 1}, {"id": 22}], "categories": [3, 4, 55], "info": 7})
    (tmp_path / "a.json").write_text(text[:-cut])
    with pytest.raises(DataError, match="expected a json file"):
        list(entries(tmp_path / "a.json"))


def test_heads_come_before_the_body_wherever_they_are(tmp_path):
    parts = {"a": [1, 2], "body": [3], "other": [9], "b": [4]}
    for order in (["a", "b", "body", "other"], ["body", "a", "other", "b"], ["a", "body", "b"]):
        (tmp_path / "a.json").write_text(json.dumps({key: parts[key] for key in order}))
        got = [value for _, index, value in entries_after(tmp_path / "a.json", ("a", "b"), "body") if index != -1]
        assert got == [1, 2, 4, 3]


def peak_ratio(file, open_it):
    """The peak of memory while opening, over the size of the file."""
    tracemalloc.start()
    try:
        assert len(open_it(file)) > 0
        return tracemalloc.get_traced_memory()[1] / file.stat().st_size
    finally:
        tracemalloc.stop()


def write_large(file, annotation, heads, count):
    """Many copies of one annotation, written as they are counted."""
    with file.open("w") as stream:
        stream.write(json.dumps(heads)[:-1] + ', "annotations": [')
        for number in range(count):
            stream.write((", " if number else "") + json.dumps(annotation | {"id": number}))
        stream.write("]}")


@pytest.mark.parametrize("compressed", [True, False])
def test_opening_takes_less_memory_than_four_times_the_file(tmp_path, compressed):
    frames, side = 30, 64
    runs = {"size": [side, side], "counts": [1000, *[3, 5] * 150, side * side - 1000 - 1200]}
    packed = rle.to_json(rle.from_json(runs, side, side))
    annotation = {
        **{"video_id": 1, "category_id": 1, "iscrowd": 0},
        "segmentations": [packed if compressed else runs] * frames,
        "bboxes": [[1.25, 2.5, 30.75, 41.5]] * frames,
        "areas": [600] * frames,
    }
    video = {"id": 1, "height": side, "width": side, "file_names": [f"a/{t}.jpg" for t in range(frames)]}
    heads = {"videos": [video], "categories": [{"id": 1, "name": "cat"}]}
    write_large(tmp_path / "a.json", annotation, heads, SIZE // len(json.dumps(annotation)))
    assert peak_ratio(tmp_path / "a.json", open_ytvis) < 4


def test_opening_images_takes_less_memory_than_four_times_the_file(tmp_path):
    polygon = [[round(10 + 0.37 * i, 2) for i in range(60)]]
    annotation = {"image_id": 1, "category_id": 1, "iscrowd": 0, "area": 9.5, "bbox": [1, 2, 3, 4]}
    heads = {
        "images": [{"id": 1, "height": 64, "width": 64, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    annotation["segmentation"] = polygon
    write_large(tmp_path / "a.json", annotation, heads, SIZE // len(json.dumps(annotation)))
    assert peak_ratio(tmp_path / "a.json", open_coco) < 4
