import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cavis.evaluation import segmentation_tracking_quality as tracking_quality
from cavis.evaluation import video_panoptic_quality as panoptic_quality
from cavis.evaluation.panoptic_files import (
    evaluate_panoptic,
    open_panoptic,
    open_panoptic_results,
    panoptic_json,
    read_ids,
)
from cavis.evaluation.panoptic_overlap import PanopticCategory, PanopticFrame, PanopticSegment, measure_overlap
from cavis.evaluation.segmentation_tracking_quality import StqCounts, count_stq, semantic_counts, stq
from cavis.evaluation.video_panoptic_quality import WINDOWS, count_tubes

HERE = Path(__file__).parents[1] / "parity" / "golden"
GOLDEN = Path(os.environ.get("CAVIS_GOLDEN_DIR", HERE)) / "eval_vps"


@pytest.fixture(scope="module")
def metrics():
    dataset = open_panoptic(GOLDEN / "gt.json", GOLDEN / "gt")
    return evaluate_panoptic(dataset, open_panoptic_results(GOLDEN / "pred", dataset))


@pytest.fixture(scope="module")
def expected():
    return json.loads((GOLDEN / "metrics.json").read_text())


def test_vpq_is_that_of_the_released_evaluation(metrics, expected):
    for window in metrics.vpq.windows:
        means = expected["vpq"][str(window.frames)]
        for name, quality in (("All", window.all), ("Things", window.things), ("Stuff", window.stuff)):
            assert quality._asdict() == pytest.approx({key: means[name][key] for key in ("pq", "sq", "rq")}, abs=1e-9)
        for row in window.per_category:
            theirs = expected["per_class"][str(window.frames)][str(row.category.id)]
            ours = row.quality._asdict() | {"tp": row.matched, "fp": row.spurious, "fn": row.missed}
            assert ours == pytest.approx({key: theirs[key] for key in ours}, abs=1e-9)
    whole = [expected[f"vpq_final_{name}"] / 100 for name in ("All", "Things", "Stuff")]
    assert [metrics.vpq.vpq, metrics.vpq.vpq_things, metrics.vpq.vpq_stuff] == pytest.approx(whole, abs=1e-9)


def test_stq_is_that_of_the_released_evaluation(metrics, expected):
    theirs = expected["stq"]
    assert metrics.stq[:3] == pytest.approx([theirs["STQ"], theirs["AQ"], theirs["IoU"]], abs=1e-9)
    videos = np.array([row.stq[:3] for row in metrics.per_video])
    each = [theirs[f"{name}_per_seq"] for name in ("STQ", "AQ", "IoU")]
    np.testing.assert_allclose(videos.T, each, atol=1e-9)
    assert panoptic_json(metrics)["STQ"] == metrics.stq.stq


# An independent path: one window, one pair of tubes at a time, on decoded pixels, as the paper words it.

CATEGORIES = tuple(PanopticCategory(id_, f"c{id_}", id_ in (3, 5)) for id_ in (1, 3, 5, 8))


def random_video(seed, frames=9, size=(10, 12)):
    """Blocks of changing segments; some void, some crowds, predictions mostly agree."""
    rng = np.random.default_rng(seed)
    kinds = {int(id_): int(rng.choice([1, 3, 5, 8])) for id_ in rng.choice(np.arange(1, 70_000), 6, replace=False)}
    crowds = set(list(kinds)[4:5])
    own = {id_ + 70_000: kind for id_, kind in kinds.items()}
    grid = rng.choice([0, *kinds], (4, 4))
    truth, predicted = [], []
    for _ in range(frames):
        grid = np.where(rng.random(grid.shape) < 0.1, rng.choice([0, *kinds], grid.shape), grid)
        ids = np.kron(grid, np.ones((3, 3), dtype=int))[: size[0], : size[1]]
        found = np.where(ids > 0, ids + 70_000, 0)
        found = np.where(rng.random(size) < 0.25, rng.choice([0, *own], size), found)
        truth.append(frame(ids, kinds, crowds))
        predicted.append(frame(found, own, set()))
    return truth, predicted


def frame(ids, kinds, crowds):
    listed = tuple(PanopticSegment(i, kinds[i], i in crowds) for i in np.unique(ids).tolist() if i)
    return PanopticFrame(ids, listed)


def plain_tubes(truth, predicted, length):
    """(category, what became of it) -> how often, and category -> sum of the IoU."""
    counts, ious = Counter(), Counter()
    for start in range(len(truth) - length + 1):
        sides = [side[start : start + length] for side in (truth, predicted)]
        t, p = (np.stack([one.ids for one in side]) for side in sides)
        t_info, p_info = ({s.id: s for one in side for s in one.segments} for side in sides)
        matched = set()
        for g, info in t_info.items():
            for d, other in p_info.items():
                both = ((t == g) & (p == d)).sum()
                iou = both / (((t == g) | (p == d)) & ~((t == 0) & (p == d))).sum()
                if info.category_id == other.category_id and not info.iscrowd and iou > 0.5:
                    matched |= {g, d}
                    counts[info.category_id, "matched"] += 1
                    ious[info.category_id] += iou
        counts.update((s.category_id, "missed") for g, s in t_info.items() if g not in matched and not s.iscrowd)
        for d, s in p_info.items():
            excuses = [0, *(g for g, one in t_info.items() if one.iscrowd and one.category_id == s.category_id)]
            if d not in matched and np.isin(t[p == d], excuses).mean() <= 0.5:
                counts[s.category_id, "spurious"] += 1
    return counts, ious


@pytest.mark.parametrize("seed", range(4))
def test_tubes_equal_a_plain_count_of_pixels(seed):
    truth, predicted = random_video(seed)
    counts = count_tubes(measure_overlap(truth, predicted), CATEGORIES)
    assert counts.matched.any()
    assert counts.spurious.any()
    for w, length in enumerate(WINDOWS):
        plain, ious = plain_tubes(truth, predicted, length)
        for k, category in enumerate(CATEGORIES):
            for name in ("matched", "spurious", "missed"):
                assert getattr(counts, name)[w, k] == plain[category.id, name], (length, category, name)
            assert counts.iou[w, k] == pytest.approx(ious[category.id])


@pytest.mark.parametrize("seed", range(4))
def test_association_equals_a_plain_count_of_pixels(seed):
    truth, predicted = random_video(seed)
    t, p = (np.stack([one.ids for one in side]) for side in (truth, predicted))
    t_kind, p_kind = ({s.id: s.category_id for one in side for s in one.segments} for side in (truth, predicted))
    things = [[id_ for id_, kind in side.items() if kind in (3, 5)] for side in (t_kind, p_kind)]
    first = truth[0].segments[0].id
    crowd = (t == first) & (first in things[0])
    tubes = [id_ for id_ in things[0] if id_ != first]
    total = 0.0
    for g in tubes:
        for d in things[1]:
            both = ((t == g) & (p == d)).sum()
            total += both / (t == g).sum() * both / ((t == g) | ((p == d) & ~crowd)).sum()
    counts = count_stq(measure_overlap(truth, predicted), CATEGORIES)
    assert counts.tubes == len(tubes)
    assert counts.association == pytest.approx(total)


@pytest.mark.parametrize(("kinds", "followed"), [((3, 5, 3), 2), ((1, 5, 3), 2), ((1, 8, 3), 1), ((3, 8, 1), 0)])
def test_the_thing_that_is_listed_first_is_not_followed(kinds, followed):
    """Bands of segments, of which only things count; each but the first one if it is a thing, found by half."""
    ids = np.repeat([11, 12, 13], 4)[:, None].repeat(6, axis=1)
    names = dict(zip((11, 12, 13), kinds, strict=True))
    found = np.where(np.arange(6) < 3, ids, 0)
    counts = count_stq(measure_overlap([frame(ids, names, ())], [frame(found, names, ())]), CATEGORIES)
    things = sum(kind in (3, 5) for kind in kinds)
    assert counts.tubes == followed == things - (kinds[0] in (3, 5))
    assert counts.association == pytest.approx(followed * 0.5 * 0.5)  # half of its pixels, at an IoU of one half


def test_perfect_predictions_reach_one():
    truth, _ = random_video(1)
    plain = [PanopticFrame(one.ids, [s._replace(iscrowd=False) for s in one.segments]) for one in truth]
    overlap = measure_overlap(plain, truth)
    vpq = panoptic_quality.summarise(count_tubes(overlap, CATEGORIES), CATEGORIES)
    assert vpq.vpq == pytest.approx(1.0)
    assert stq(count_stq(overlap, CATEGORIES)).stq == pytest.approx(1.0)


def test_counts_of_videos_add_up():
    overlaps = [measure_overlap(*random_video(seed)) for seed in (1, 2)]
    tubes = [count_tubes(one, CATEGORIES) for one in overlaps]
    assert ((tubes[0] + tubes[1]).iou == tubes[0].iou + tubes[1].iou).all()
    pixels = [count_stq(one, CATEGORIES) for one in overlaps]
    total = pixels[0] + pixels[1] + StqCounts.nothing(len(CATEGORIES))
    assert total.confusion.sum() == sum(one.shared.sum() for one in overlaps)
    assert total.tubes == pixels[0].tubes + pixels[1].tubes


def test_videos_shorter_than_a_window_do_not_enter_it():
    counts = count_tubes(measure_overlap(*random_video(0, frames=3)), CATEGORIES)
    assert counts.matched[:2].any()
    assert not (counts.matched + counts.missed + counts.spurious)[2:].any()


@pytest.mark.parametrize("frames", [1, 3, 7, 9])
def test_perfect_predictions_of_short_videos_reach_one_too(frames):
    truth, _ = random_video(1, frames=frames)
    plain = [PanopticFrame(one.ids, [s._replace(iscrowd=False) for s in one.segments]) for one in truth]
    vpq = panoptic_quality.summarise(count_tubes(measure_overlap(plain, truth), CATEGORIES), CATEGORIES)
    assert vpq.vpq == pytest.approx(1.0)
    assert [np.isnan(window.all.pq) for window in vpq.windows] == [length > frames for length in WINDOWS]


@pytest.mark.parametrize("things", [True, False])
def test_without_things_or_stuff_there_is_no_quality_of_them(things):
    categories = tuple(category._replace(isthing=things) for category in CATEGORIES)
    vpq = panoptic_quality.summarise(count_tubes(measure_overlap(*random_video(0)), CATEGORIES), categories)
    there, missing = (vpq.vpq_things, vpq.vpq_stuff) if things else (vpq.vpq_stuff, vpq.vpq_things)
    assert there == vpq.vpq > 0
    assert np.isnan(missing)
    nothing = panoptic_quality.summarise(panoptic_quality.TubeCounts.nothing(len(CATEGORIES)), CATEGORIES)
    assert np.isnan([nothing.vpq, nothing.vpq_things, nothing.vpq_stuff]).all()


@pytest.mark.parametrize("seed", range(4))
def test_annotated_segments_that_are_not_listed_are_void_but_excuse_nothing(seed):
    truth, predicted = random_video(seed)
    hidden = truth[0].segments[0].id
    silent = [PanopticFrame(one.ids, [s for s in one.segments if s.id != hidden]) for one in truth]
    overlap = measure_overlap(silent, predicted)
    counts = count_tubes(overlap, CATEGORIES)
    for w, length in enumerate(WINDOWS):
        plain, ious = plain_tubes(silent, predicted, length)
        for k, category in enumerate(CATEGORIES):
            for name in ("matched", "spurious", "missed"):
                assert getattr(counts, name)[w, k] == plain[category.id, name], (length, category, name)
            assert counts.iou[w, k] == pytest.approx(ious[category.id])
    void = [PanopticFrame(np.where(one.ids == hidden, 0, one.ids), one.segments) for one in silent]
    theirs = measure_overlap(void, predicted)
    assert (counts.spurious >= count_tubes(theirs, CATEGORIES).spurious).all()
    ours, expected = (count_stq(one, CATEGORIES) for one in (overlap, theirs))
    np.testing.assert_array_equal(ours.confusion, expected.confusion)
    assert (ours.association, ours.tubes) == (pytest.approx(expected.association), expected.tubes)


def test_a_segment_that_some_frames_do_not_list_counts_as_in_the_released_evaluation():
    overlap = half_listed(8, 13)
    assert overlap.truth_categories.tolist() == [[1, 1], [-1, 1]]
    counts = count_tubes(overlap, CATEGORIES)
    # Alone the second frame has no such tube to match; in both frames the pixels count, the area does not.
    assert (counts.matched[:2, 0].tolist(), counts.spurious[:2, 0].tolist()) == ([3, 2], [1, 0])
    assert counts.iou[1, 0] == pytest.approx(16 / (26 + 8 - 16) + 14 / 24)


def test_an_overlap_is_never_above_one():
    assert count_tubes(half_listed(10, 10), CATEGORIES).iou[1, 0] == pytest.approx(1 + 1)  # pixels 20 + 10 - 20


def half_listed(annotated, predicted):
    """Two equal frames of 20 pixels; the second one lists only the right one of the two annotated segments."""
    segments = (PanopticSegment(7, 1), PanopticSegment(9, 1))
    truth, found = (np.repeat([[7, 9]], [left, 20 - left], axis=1) for left in (annotated, predicted))
    return measure_overlap(
        [PanopticFrame(truth, segments), PanopticFrame(truth, segments[1:])], [PanopticFrame(found, segments)] * 2
    )


def test_semantic_and_panoptic_counts_are_the_same():
    truth, predicted = random_video(3)
    index = {category.id: k for k, category in enumerate(CATEGORIES)}
    total = StqCounts.nothing(len(CATEGORIES))
    for pair in zip(truth, predicted, strict=True):
        labels = []
        for one in pair:
            table = {s.id: index[s.category_id] for s in one.segments} | {0: 255}
            labels.append(np.vectorize(table.get)(one.ids))
        total += semantic_counts(*labels, len(CATEGORIES))
    panoptic = count_stq(measure_overlap(truth, predicted), CATEGORIES)
    np.testing.assert_array_equal(total.confusion, panoptic.confusion)
    assert stq(total).mean_iou == stq(panoptic).mean_iou


def test_mean_iou_leaves_out_what_nobody_saw():
    truth, predicted = np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 1]])
    metrics = stq(semantic_counts(truth, predicted, 3))
    assert metrics.iou[:2] == pytest.approx((0.5, 0.5))
    assert np.isnan(metrics.iou[2])
    assert metrics.mean_iou == pytest.approx(0.5)
    with pytest.raises(ValueError, match="expected a prediction of 1 x 4 pixels, got 1 x 3"):
        semantic_counts(truth, predicted[:, :3], 3)


# Files that are not as they should be.


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "vps")
    return tmp_path / "vps"


def evaluate(folder):
    dataset = open_panoptic(folder / "gt.json", folder / "gt")
    return evaluate_panoptic(dataset, open_panoptic_results(folder / "pred", dataset))


def edited(path, change):
    content = json.loads(path.read_text())
    change(content["annotations"])
    path.write_text(json.dumps(content))


def wanted_words(folder, *words):
    with pytest.raises(ValueError) as caught:
        evaluate(folder)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_frame_is_named(copy):
    path = copy / "pred" / "pan_pred" / "vid_1" / "00002.png"
    path.unlink()
    wanted_words(copy, "video vid_1", str(path), "no such file")


def test_a_frame_of_another_size_is_named(copy):
    path = copy / "pred" / "pan_pred" / "vid_1" / "00002.png"
    Image.fromarray(np.zeros((5, 6, 3), dtype=np.uint8)).save(path)
    wanted_words(copy, "video vid_1", "frame 2", "48 x 64", "5 x 6")


def test_a_missing_video_or_frame_entry_is_named(copy):
    edited(copy / "pred" / "pred.json", lambda videos: videos[2]["annotations"].pop())
    wanted_words(copy, "pred.json", "video vid_2", "expected 8 frames, got 7")
    edited(copy / "pred" / "pred.json", lambda videos: videos.pop(1))
    wanted_words(copy, "pred.json", "vid_1")


def test_segments_of_png_and_json_must_be_the_same(copy):
    file = copy / "pred" / "pred.json"
    edited(file, lambda videos: videos[0]["annotations"][3]["segments_info"].append({"id": 9, "category_id": 2}))
    wanted_words(copy, "video vid_0", "frame 3", "segment 9")
    edited(file, lambda videos: videos[0]["annotations"].__getitem__(3)["segments_info"].clear())
    wanted_words(copy, "video vid_0", "frame 3", "listed")


def test_annotated_pixels_of_no_listed_segment_do_not_stop_the_evaluation(copy):
    edited(copy / "gt.json", lambda videos: videos[0]["annotations"][0]["segments_info"].pop())
    assert 0 < evaluate(copy).vpq.vpq < 1


def test_a_segment_that_is_listed_twice_is_refused(copy):
    def twice(videos):
        segments = videos[1]["annotations"][0]["segments_info"]
        segments.append(segments[0])

    edited(copy / "gt.json", twice)
    wanted_words(copy, "video vid_1", "frame 0", "different ids")


def test_unknown_categories_and_malformed_frames_are_named(copy):
    def strange(videos):
        videos[1]["annotations"][4]["segments_info"][0]["category_id"] = 77

    edited(copy / "gt.json", strange)
    wanted_words(copy, "gt.json", "video vid_1", "frame 4", "77")
    edited(copy / "gt.json", lambda videos: videos[0]["annotations"][1].pop("file_name"))
    wanted_words(copy, "gt.json", "video vid_0", "frame 1", "file_name")
    (copy / "gt.json").write_text("[]")
    wanted_words(copy, "gt.json", "annotations")
    (copy / "gt.json").write_text("{")
    wanted_words(copy, "gt.json", "json file")


def test_ids_are_read_from_all_three_channels(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3], [255, 255, 255]]], dtype=np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), [[1 + 2 * 256 + 3 * 65536, 256**3 - 1]])
    Image.new("L", (2, 2)).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match=r"grey\.png: expected a PNG in colour"):
        read_ids(tmp_path / "grey.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.png: expected a PNG of segment ids"):
        read_ids(tmp_path / "text.png")


def test_categories_that_are_not_listed_are_refused():
    overlap = measure_overlap(*random_video(0))
    for count in (panoptic_quality.count_tubes, tracking_quality.count_stq):
        with pytest.raises(ValueError, match="expected a category of the data set"):
            count(overlap, CATEGORIES[:2])
