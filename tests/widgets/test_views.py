"""The views from Python's side; their JavaScript is tested in a browser."""

import base64
import io
import json
import re
from xml.etree import ElementTree

import ipywidgets
import numpy as np
import pytest
from PIL import Image
from traitlets import TraitError

from cavis import rle
from widgets import AssociationMatrix, EmbeddingMap, TrackPlayer, runs
from widgets.colours import COLOURS, SHAPES, mark
from widgets.still import png


def some_map(count: int = 30, **more) -> EmbeddingMap:
    rng = np.random.default_rng(0)
    return EmbeddingMap(rng.normal(size=(count, 2)), rng.integers(-1, 3, count), names={0: "cat"}, **more)


def some_player(**more) -> TrackPlayer:
    frames = np.random.default_rng(0).integers(0, 255, (6, 20, 30, 3), dtype=np.uint8)
    masks = np.zeros((6, 20, 30), int)
    masks[:, 2:8, 2:8] = 1
    masks[3:, 10:15, 10:25] = 2
    rows = np.where([[True] * 6, [False] * 3 + [True] * 3], np.arange(12).reshape(2, 6) + 100, -1)
    return TrackPlayer(frames, masks, names=["cat 1", "dog 2"], rows=rows, **more)


def some_matrix(**more) -> AssociationMatrix:
    return AssociationMatrix(np.eye(3)[:, :2], [(0, 0), (1, 1)], left_rows=[5, 6, 7], right_rows=[8, 9], **more)


VIEWS = {"map": some_map, "player": some_player, "matrix": some_matrix}
each = pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)


def ask(view, question: dict) -> tuple[dict, list[bytes]]:
    """What the kernel answers to the front end."""
    answers = []
    view.send = lambda content, buffers=None: answers.append((content, buffers))
    view._handle_custom_msg(question, [])
    (answer,) = answers
    return answer


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - made here


@each
def test_a_view_shows_a_still_picture_where_there_is_no_kernel(make):
    data, _ = make(title="A <title>", note="seed 3 & perplexity 30")._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html"} <= set(data)
    picture = parsed(data["text/html"])
    text = "".join(picture.itertext())
    assert "A <title>" in text
    assert "seed 3 & perplexity 30" in text


@each
def test_a_still_picture_is_saved_with_its_note(make, tmp_path):
    view = make(note="perplexity 12")
    assert "perplexity 12" in view.save(tmp_path / "a.svg").read_text()
    with pytest.raises(ValueError, match=r"ends with \.svg"):
        view.save(tmp_path / "a.png")


@each
def test_state_travels_as_json_and_bytes(make):
    state = make().get_state()
    json.dumps({key: value for key, value in state.items() if not isinstance(value, bytes | memoryview)}, default=str)


def test_one_selection_is_shared_by_linked_views():
    map_, player, matrix = some_map(), some_player(), some_matrix()
    ipywidgets.link((map_, "selection"), (player, "selection"))
    ipywidgets.link((map_, "selection"), (matrix, "selection"))
    player.selection = np.array([103, 104])
    assert map_.selection == matrix.selection == [103, 104]
    matrix.selection = []
    assert map_.selection == player.selection == []


@pytest.mark.parametrize("bad", [[-1], [[1, 2]], ["a"], [0.5], np.zeros((2, 2), int)])
def test_a_selection_is_row_numbers(bad):
    with pytest.raises(ValueError, match="expected row numbers"):
        some_map().selection = bad


def test_a_map_selects_points_by_their_rows():
    view = some_map(4, rows=[7, 3, 9, 1])
    view.selection = [9, 7, 1000]
    assert view.selected.tolist() == [True, False, True, False]


HOSTILE = {
    "no axes": np.zeros(3),
    "three axes": np.zeros((2, 3, 2)),
    "three columns": np.zeros((5, 3)),
    "text": np.array([["a", "b"]]),
    "not a number": np.array([[0, 1], [np.nan, 2]]),
    "infinite": np.array([[np.inf, 1]]),
    "too large for float32": np.array([[1e300, 1.0]]),
    "a million": np.zeros((10**6, 2), np.float32),
}


@pytest.mark.parametrize("points", HOSTILE.values(), ids=HOSTILE)
def test_hostile_points_are_answered_with_one_sentence(points):
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        EmbeddingMap(points)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"groups": [0]}, {"groups": np.zeros(3)}, {"rows": [1, 1, 2]}, {"rows": [0.5, 1, 2]}, {"rows": [-1, 0, 1]}],
    ids=["few groups", "groups not whole", "a row twice", "rows not whole", "rows below 0"],
)
def test_hostile_settings_are_answered_with_one_sentence(settings):
    with pytest.raises(ValueError, match=r"^expected "):
        EmbeddingMap(np.zeros((3, 2)), **settings)


def test_more_groups_than_a_legend_can_hold_are_refused():
    with pytest.raises(ValueError, match="at most 200 groups, got 1,000"):
        EmbeddingMap(np.zeros((1000, 2)), np.arange(1000))


@pytest.mark.parametrize("count", [0, 1, 2, 5000, 100_000])
def test_few_and_many_points_have_a_map_and_a_still_picture(count):
    view = EmbeddingMap(np.random.default_rng(0).normal(size=(count, 2)), np.arange(count) % 4)
    parsed(view.still().svg)
    assert view.points.shape == (count, 2)


def test_points_as_far_apart_as_float32_can_tell_stay_in_the_picture():
    svg = EmbeddingMap([[-3e38, -3e38], [3e38, 3e38], [0, 0]]).still().svg
    places = [float(x) for x in re.findall(r'<circle cx="([-\d.]+)"', svg)]
    assert len(places) == 4  # with the legend's
    assert all(0 < x < 420 for x in places)


def test_a_map_with_more_groups_than_marks_says_so():
    assert "28 marks for 29 groups" in EmbeddingMap(np.zeros((29, 2)), np.arange(29)).still().svg
    assert "marks for" not in EmbeddingMap(np.zeros((29, 2)), np.arange(29) - 1).still().svg
    assert "1 marks for 2 groups" in EmbeddingMap(np.zeros((2, 2)), [0, 28]).still().svg


def test_points_that_are_all_one_stay_in_the_picture():
    svg = EmbeddingMap(np.full((5, 2), 3e8)).still().svg
    places = [float(x) for x in re.findall(r'<circle cx="([-\d.]+)"', svg)]
    assert all(0 < x < 420 for x in places)


def test_moved_points_keep_their_groups_and_must_be_as_many():
    view = some_map(5)
    view.points = np.ones((5, 2))
    assert (view.points == 1).all()
    with pytest.raises(ValueError, match="expected 5 points"):
        view.points = np.ones((4, 2))


def test_what_a_point_shows_comes_when_it_is_asked_for():
    picture = np.arange(24 * 36 * 3, dtype=np.uint8).reshape(24, 36, 3)
    view = some_map(
        4, rows=[4, 5, 6, 7], crops=lambda row: picture[:, : row * 4], describe=lambda row: f"this is {row}"
    )
    content, (data,) = ask(view, {"kind": "crop", "row": 6})
    assert (content["row"], content["text"]) == (6, "this is 6")
    np.testing.assert_array_equal(np.frombuffer(data, np.uint8).reshape(24, 24, 3), picture[:, :24])


def test_a_crop_that_cannot_be_made_is_told_and_breaks_nothing():
    content, data = ask(some_map(crops=lambda row: np.zeros((3, 3))), {"kind": "crop", "row": 1})
    assert "expected an RGB picture" in content["error"]
    assert data == []
    content, _ = ask(some_map(crops=lambda row: {}[row]), {"kind": "crop", "row": 1})
    assert "error" in content


def test_large_crops_are_made_smaller():
    content, (data,) = ask(some_map(crops=lambda row: np.zeros((1000, 500, 3), np.uint8)), {"kind": "crop", "row": 0})
    assert max(content["height"], content["width"]) <= 160
    assert len(data) == 3 * content["height"] * content["width"]


def test_groups_look_different_from_one_another():
    marks = [mark(group) for group in range(len(COLOURS) * len(SHAPES))]
    assert len(set(marks)) == len(marks)
    assert mark(-1) not in marks
    legend = some_map()._legend
    assert {entry["name"] for entry in legend} == {"unknown", "cat", "group 1", "group 2"}
    assert sum(entry["count"] for entry in legend) == 30


def test_run_length_masks_are_decoded_as_pycocotools_does_it():
    rng = np.random.default_rng(0)
    masks = [np.zeros((7, 9), bool), np.ones((7, 9), bool), *(rng.random((5, 40, 60)) < rng.random((5, 1, 1)))]
    masks.append(np.kron(rng.random((4, 6)) < 0.5, np.ones((90, 90), bool)))
    for mask in masks:
        np.testing.assert_array_equal(runs.decode(rle.encode(mask)), mask)


def test_run_lengths_that_do_not_fill_the_picture_are_refused():
    mask = rle.encode(np.ones((4, 4), bool))
    with pytest.raises(ValueError, match=r"^expected run"):
        runs.decode(type(mask)(5, 5, mask.counts))
    with pytest.raises(ValueError, match=r"^expected run"):
        runs.run_lengths(b"PPo")


def test_label_maps_and_run_length_masks_give_the_same_player():
    maps = some_player()
    labels = np.zeros((6, 20, 30), int)
    labels[:, 2:8, 2:8] = 1
    labels[3:, 10:15, 10:25] = 2
    tracks = [[rle.encode(m == n) if (m == n).any() else None for m in labels] for n in (1, 2)]
    packed = TrackPlayer(maps._frames, tracks, names=["cat 1", "dog 2"])
    assert packed._visible == maps._visible
    for t in range(6):
        assert ask(maps, {"kind": "frame", "t": t}) == ask(packed, {"kind": "frame", "t": t})


def test_the_first_of_overlapping_tracks_lies_on_top():
    whole, half = np.ones((4, 4), bool), np.arange(4)[:, None] + np.zeros(4) < 2
    view = TrackPlayer(np.zeros((1, 4, 4, 3), np.uint8), [[rle.encode(half)], [rle.encode(whole)]])
    _, (_, labels) = ask(view, {"kind": "frame", "t": 0})
    np.testing.assert_array_equal(np.frombuffer(labels, np.uint8).reshape(4, 4), np.where(half, 1, 2))


def test_selected_rows_bring_out_their_tracks():
    view = some_player()
    view.selection = [109]
    assert view.selected == [1]
    view.selection = [109, 102]
    assert view.selected == [0, 1]


def test_tracks_can_be_selected_without_rows_of_a_table():
    masks = np.zeros((2, 4, 4), int)
    masks[:, 0], masks[1, 1] = 1, 2
    view = TrackPlayer(np.zeros((2, 4, 4, 3), np.uint8), masks)
    assert np.frombuffer(view._rows, "<i4").tolist() == [0, 1, -1, 3]
    view.selection = [3]
    assert view.selected == [1]


def test_hostile_clips_are_answered_with_one_sentence():
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    for arguments in (
        (frames[:0],),
        (frames[..., 0],),
        (frames.astype(float),),
        (frames, np.zeros((2, 8, 8), int)),
        (frames, np.zeros((3, 8, 8))),
        (frames, np.full((3, 8, 8), -1)),
        (frames, [[None]]),
        (frames, np.full((3, 8, 8), 999)),
        (None,),
        (frames, np.zeros((3, 4, 8), int)),
        (frames, [None]),
        (frames, [np.zeros((3, 8, 8), bool)]),
        (frames, [[np.ones((8, 8), bool)] * 3]),
        (frames, [[rle.encode(np.ones((4, 4), bool))] * 3]),
    ):
        with pytest.raises(ValueError, match=r"^expected "):
            TrackPlayer(*arguments)
    with pytest.raises(ValueError, match="expected 0 names"):
        TrackPlayer(frames, names=["a"])
    with pytest.raises(ValueError, match="expected 2 different numbers of tracks, got 1"):
        some_player(numbers=[7, 7])
    with pytest.raises(ValueError, match="expected rows"):
        TrackPlayer(frames, np.ones((3, 8, 8), int), rows=[[1, 2]])
    with pytest.raises((ValueError, TraitError), match="expected a frame between 0 and 2"):
        TrackPlayer(frames).frame = 3


def test_label_maps_of_any_whole_numbers_are_shown_as_they_are():
    for kind in (bool, np.uint8, np.uint64, np.int16):
        maps = np.ones((1, 4, 4), kind)
        view = TrackPlayer(np.zeros((1, 4, 4, 3), np.uint8), maps)
        assert view._masks._maps is maps  # not copied: there may be gigabytes of them
        _, (_, labels) = ask(view, {"kind": "frame", "t": 0})
        assert labels == bytes([1]) * 16


@pytest.mark.parametrize(("numbers", "one", "two"), [(None, 1, 2), ([7, 12], 7, 12), (np.array([3, 0]), 3, 0)])
def test_every_track_has_its_number_in_the_still_picture(numbers, one, two):
    texts = [text.text for text in parsed(some_player(frame=3, numbers=numbers).still().svg).findall(".//{*}text")]
    assert {str(one), str(two), f"{one} · cat 1", f"{two} · dog 2"} <= set(texts)


def test_the_number_of_a_track_stands_on_it_even_where_another_one_parts_it():
    masks = np.zeros((1, 40, 60), int)
    masks[0, 10:30, 5:55], masks[0, 5:35, 25:35] = 1, 2
    texts = parsed(TrackPlayer(np.zeros((1, 40, 60, 3), np.uint8), masks).still().svg).findall(".//{*}text")
    scale = 404 / 60
    for number, lane in (("1", 1), ("2", 2)):
        (text,) = (one for one in texts if one.text == number)
        x, y = (float(text.get("x")) - 8) / scale, (float(text.get("y")) - 4) / scale
        assert masks[0, int(y), int(x)] == lane


def test_the_still_picture_fades_tracks_that_are_not_selected():
    view = some_player(frame=3)
    before = view.still().svg
    view.selection = [103]
    after = view.still().svg
    images = [re.findall(r"base64,([^\"]+)", svg)[0] for svg in (before, after)]
    one, other = (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int) for data in images)
    changed = (one != other).any(axis=2)
    assert changed[11:14, 12:23].all()
    assert not changed[2:8, 2:8].any()


def test_a_frame_outside_and_frames_of_another_size_are_told_to_the_front_end():
    content, _ = ask(some_player(), {"kind": "frame", "t": 99})
    assert "error" in content
    view = TrackPlayer([np.zeros((8, 8, 3), np.uint8), np.zeros((4, 8, 3), np.uint8)])
    content, _ = ask(view, {"kind": "frame", "t": 1})
    assert content["error"] == "expected frames of one size, got frame 1 with 4 x 8 pixels and the first with 8 x 8"


def test_large_frames_are_made_smaller():
    view = TrackPlayer(np.zeros((1, 1080, 1920, 3), np.uint8), np.ones((1, 1080, 1920), int))
    _, (pixels, labels) = ask(view, {"kind": "frame", "t": 0})
    assert view._size == [540, 960]
    assert (len(pixels), len(labels)) == (3 * 540 * 960, 540 * 960)


def test_frames_are_asked_for_one_at_a_time():
    class Film:
        read: list[int] = []  # noqa: RUF012

        def __len__(self):
            return 500

        def __getitem__(self, t):
            self.read.append(t)
            return np.zeros((8, 8, 3), np.uint8)

    view = TrackPlayer(Film())
    ask(view, {"kind": "frame", "t": 77})
    assert sorted(set(Film.read)) == [0, 77]


def test_hostile_similarities_are_answered_with_one_sentence():
    for arguments in (
        (np.zeros(3),),
        (np.full((2, 2), np.nan),),
        (np.full((2, 2), 1e300),),
        (np.array([["a"]]),),
        (np.zeros((300, 2)),),
        (np.zeros((2, 2)), [(0, 5)]),
        (np.zeros((2, 2)), [(-1, 0)]),
        (np.zeros((2, 2)), [0, 1, 2]),
    ):
        with pytest.raises(ValueError, match=r"^expected "):
            AssociationMatrix(*arguments)
    with pytest.raises(ValueError, match="expected 2 names"):
        AssociationMatrix(np.zeros((2, 2)), left_names=["a"])


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (4, 2)])
def test_frames_with_few_or_no_slots_have_a_matrix(shape):
    view = AssociationMatrix(np.zeros(shape))
    parsed(view.still().svg)
    assert view.similarity.shape == shape


def test_similarities_as_far_apart_as_float32_can_tell_have_a_picture():
    svg = AssociationMatrix(np.array([[-3e38, 0.25], [3e38, 0.5]])).still().svg
    assert "nan" not in svg
    assert "3e+38" in svg
    assert "0.25" in svg


def test_a_matrix_marks_its_pairs_in_the_still_picture():
    svg = some_matrix().still().svg
    assert svg.count('stroke-width="2.5"') == 2


def test_pictures_are_png_files_that_others_can_read():
    pixels = np.random.default_rng(0).integers(0, 255, (13, 17, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)
    uri = re.search(r"data:image/png;base64,([^\"]+)", some_player().still().svg).group(1)
    assert Image.open(io.BytesIO(base64.b64decode(uri))).size == (30, 20)
