import json
from pathlib import Path

import numpy as np
import pytest

from cavis import rle
from cavis.data.ytvis_json import open_ytvis
from cavis.evaluation.average_precision import (
    RECALLS,
    SIZE_RANGES,
    THRESHOLDS,
    GroundTruthTrack,
    PredictedTrack,
    average_precision,
)
from cavis.evaluation.masks import TrackMasks, video_iou
from cavis.evaluation.run import ground_truth, read_results

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "eval_ytvis"
STATS = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "APs": "ap_small",
    "APm": "ap_medium",
    "APl": "ap_large",
    "AR1": "ar1",
    "AR10": "ar10",
    "AR100": "ar100",
    "ARs": "ar_small",
    "ARm": "ar_medium",
    "ARl": "ar_large",
}


@pytest.fixture(scope="module")
def golden():
    dataset = open_ytvis(GOLDEN / "gt.json")
    return ground_truth(dataset), read_results(GOLDEN / "results.json", dataset)


def test_golden_stats_are_those_of_the_released_evaluation(golden):
    metrics = average_precision(*golden)
    expected = json.loads((GOLDEN / "metrics.json").read_text())
    assert list(expected["stats"]) == list(STATS)
    got = {name: getattr(metrics, field) for name, field in STATS.items()}
    assert got == pytest.approx(expected["stats"], abs=1e-9)
    per_category = {str(row.id): row.ap for row in metrics.per_category}
    assert per_category == pytest.approx(expected["per_category_AP"], abs=1e-9)


def test_golden_curves_are_those_of_the_released_evaluation(golden):
    metrics = average_precision(*golden)
    with np.load(GOLDEN / "precision_recall.npz") as expected:
        # The precision was stored in single precision: rounded alike, the two must agree.
        np.testing.assert_allclose(metrics.precision.astype(np.float32), expected["precision"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(metrics.recall, expected["recall"], rtol=0, atol=1e-9)


def test_matching_in_parts_equals_matching_at_once(golden, monkeypatch):
    whole = average_precision(*golden)
    monkeypatch.setattr("cavis.evaluation.matching._MOST_CELLS", 1)
    parts = average_precision(*golden)
    np.testing.assert_array_equal(parts.precision, whole.precision)
    np.testing.assert_array_equal(parts.recall, whole.recall)


# An independent path: one track, one threshold, one recall at a time, as the specification words it.


def plain_outcomes(truths, predictions, threshold, low, high):
    """Of one video and category: (score, right or None for ignored) of each prediction, and the objects to find."""
    predictions = sorted(predictions, key=lambda one: -one.score)
    areas = TrackMasks.measure([one.masks for one in predictions]).mean_areas
    truth_areas = TrackMasks.measure([one.masks for one in truths]).mean_areas
    ignored = [one.iscrowd or not low <= area <= high for one, area in zip(truths, truth_areas, strict=True)]
    overlaps = video_iou(
        TrackMasks.measure([one.masks for one in predictions]), TrackMasks.measure([one.masks for one in truths])
    )
    used, outcomes = set(), []
    for d, one in enumerate(predictions):
        free = [g for g in range(len(truths)) if (g not in used or truths[g].iscrowd) and overlaps[d, g] >= threshold]
        best = max(free, key=lambda g: (not ignored[g], overlaps[d, g], g), default=None)
        if best is None:
            outcomes.append((one.score, False if low <= areas[d] <= high else None))
        else:
            used.add(best)
            outcomes.append((one.score, None if ignored[best] else True))
    return outcomes, ignored.count(False)


def plain_precision(truths, predictions, category, threshold, size_range):
    outcomes, objects = [], 0
    for video in sorted({one.video_id for one in (*truths, *predictions)}):
        found, number = plain_outcomes(
            [one for one in truths if (one.video_id, one.category_id) == (video, category)],
            [one for one in predictions if (one.video_id, one.category_id) == (video, category)],
            threshold,
            *size_range,
        )
        outcomes += found
        objects += number
    if objects == 0:
        return np.full(len(RECALLS), -1.0)
    ranked = [right for _, right in sorted(outcomes, key=lambda pair: -pair[0]) if right is not None]
    points = [(sum(ranked[: n + 1]) / objects, sum(ranked[: n + 1]) / (n + 1)) for n in range(len(ranked))]
    return np.array([max((p for r, p in points if r >= recall), default=0.0) for recall in RECALLS])


def random_world(seed):
    """Blocks that drift through small videos, some of them crowds; predictions are shifted copies with tied scores."""
    rng = np.random.default_rng(seed)
    truths, predictions = [], []

    def track(y, x, height, width):
        masks = np.zeros((4, 24, 40), dtype=bool)
        for t in range(4):
            masks[t, max(0, y) : max(0, y + height), max(0, x + t) : max(0, x + t + width)] = rng.random() < 0.9
        return tuple(rle.encode(mask) if mask.any() else None for mask in masks)

    for video in (3, 1, 2):
        for _ in range(rng.integers(0, 5)):
            place = [int(side) for side in rng.integers((0, 0, 6, 6), (12, 20, 12, 18))]
            category = int(rng.integers(1, 3))
            truths.append(GroundTruthTrack(video, category, track(*place), bool(rng.random() < 0.2)))
            for _ in range(rng.integers(0, 4)):
                shifted = (place[0] + int(rng.integers(-2, 3)), place[1] + int(rng.integers(-2, 3)), *place[2:])
                label = category if rng.random() < 0.8 else 3 - category
                predictions.append(PredictedTrack(video, label, float(rng.integers(1, 6)) / 5, track(*shifted)))
    return truths, predictions


@pytest.mark.parametrize("seed", range(12))
def test_precision_equals_a_plain_reading_of_the_specification(seed, monkeypatch):
    # Sizes are far below 128 x 128 here: smaller ranges, so that they part the objects.
    ranges = ((0, 1e10), (0, 90.0), (90.0, 130.0), (130.0, 1e10))
    monkeypatch.setattr("cavis.evaluation.average_precision.SIZE_RANGES", ranges)
    truths, predictions = random_world(seed)
    metrics = average_precision(truths, predictions, {1: "one", 2: "two"})
    for k, category in enumerate((1, 2)):
        for a, size_range in enumerate(ranges):
            for t in (0, 3, 5, 9):
                expected = plain_precision(truths, predictions, category, THRESHOLDS[t], size_range)
                np.testing.assert_allclose(metrics.precision[t, :, k, a, -1], expected, atol=1e-12)


def block(height=10, width=10):
    mask = np.zeros((20, 30), dtype=bool)
    mask[:height, :width] = True
    return rle.encode(mask)


def test_perfect_predictions_reach_one_and_none_reach_zero():
    truths = [GroundTruthTrack(video, video % 2, (block(), None, block(5))) for video in range(1, 5)]
    perfect = [PredictedTrack(one.video_id, one.category_id, 0.3, one.masks) for one in truths]
    assert average_precision(truths, perfect).ap == pytest.approx(1.0)
    assert average_precision(truths, perfect).ar1 == 1.0
    assert average_precision(truths, []).ap == 0.0


def test_what_has_no_object_to_find_is_minus_one_and_left_out_of_means():
    truth = [GroundTruthTrack(1, 1, (block(),)), GroundTruthTrack(1, 3, (block(),), iscrowd=True)]
    predictions = [PredictedTrack(1, category, 0.5, (block(),)) for category in (1, 2, 3, 9)]
    metrics = average_precision(truth, predictions, {1: "dog", 2: "cat", 3: "cow"})
    assert [row.ap for row in metrics.per_category] == pytest.approx([1.0, -1.0, -1.0])
    assert [(row.name, row.objects) for row in metrics.per_category] == [("dog", 1), ("cat", 0), ("cow", 0)]
    assert metrics.ap == pytest.approx(1.0)
    assert metrics.ap_large == -1.0
    assert average_precision([], []).ap == -1.0


def test_crowds_absorb_any_number_of_predictions():
    truths = [GroundTruthTrack(1, 1, (block(20, 30),), iscrowd=True), GroundTruthTrack(2, 1, (block(),))]
    hits = [PredictedTrack(1, 1, 0.9, (block(20, 30),))] * 5
    assert average_precision(truths, [*hits, PredictedTrack(2, 1, 0.1, (block(),))]).ap == pytest.approx(1.0)


def test_a_second_prediction_of_one_object_is_wrong():
    truths = [GroundTruthTrack(1, 1, (block(),)), GroundTruthTrack(2, 1, (block(),))]
    twice = [PredictedTrack(1, 1, 0.9, (block(),)), PredictedTrack(1, 1, 0.8, (block(),))]
    last = PredictedTrack(2, 1, 0.1, (block(),))
    # Up to recall 1/2 the precision is 1, beyond it 2/3.
    assert average_precision(truths, [*twice, last]).ap == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_annotated_areas_decide_the_size_range_of_an_object():
    small = average_precision([GroundTruthTrack(1, 1, (block(),))], [])
    large = average_precision([GroundTruthTrack(1, 1, (block(),), area=1e6)], [])
    assert (small.ar_small, small.ar_large) == (0.0, -1.0)
    assert (large.ar_small, large.ar_large) == (-1.0, 0.0)
    assert len(SIZE_RANGES) == small.recall.shape[2]


def test_masks_that_do_not_fit_name_the_video():
    with pytest.raises(ValueError, match="video 7: expected tracks of 1 frames, got 2"):
        average_precision([GroundTruthTrack(7, 1, (block(),))], [PredictedTrack(7, 1, 0.5, (block(), block()))])
