from dataclasses import replace

import numpy as np
import pytest
import trackeval

from cavis import rle
from cavis.evaluation.average_precision import GroundTruthTrack, PredictedTrack
from cavis.evaluation.tracking import tracking_metrics

FRAMES, SIZE = 8, (16, 24)


def random_world(seed):
    """Boxes that drift in three videos; predictions follow them, change over to another one, or follow nothing."""
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for video in (5, 2, 9):
        paths = rng.integers((0, 0), (8, 14), (int(rng.integers(0, 5)), 2))
        truths += [GroundTruthTrack(video, int(rng.integers(1, 4)), track(rng, [path] * FRAMES)) for path in paths]
        for _ in range(int(rng.integers(0, 8))):
            if len(paths) == 0:
                break
            one, other = paths[rng.integers(len(paths), size=2)]
            change = rng.integers(2, 2 * FRAMES)
            places = [(one if t < change else other) + rng.integers(-1, 2, 2) for t in range(FRAMES)]
            predictions.append(PredictedTrack(video, int(rng.integers(1, 4)), float(rng.random()), track(rng, places)))
    return truths, predictions


def track(rng, places):
    masks = []
    for t, (y, x) in enumerate(places):
        mask = np.zeros(SIZE, dtype=bool)
        mask[max(y, 0) : max(y, 0) + 6, max(x, 0) + t // 2 : max(x, 0) + t // 2 + 7] = rng.random() < 0.85
        masks.append(rle.encode(mask) if mask.any() else None)
    return tuple(masks)


def pixels(one):
    return np.stack([np.zeros(SIZE, dtype=bool) if mask is None else rle.decode(mask) for mask in one.masks])


def sequence(truths, predictions):
    """What TrackEval's measures work on, from decoded pixels."""
    present = [[pixels(one).any((1, 2)) for one in side] for side in (truths, predictions)]
    seen = [[number for number, one in enumerate(side) if one.any()] for side in present]
    data = {"gt_ids": [], "tracker_ids": [], "similarity_scores": [], "num_timesteps": FRAMES}
    for t in range(FRAMES):
        g = [(i, pixels(truths[n])[t]) for i, n in enumerate(seen[0]) if present[0][n][t]]
        d = [(i, pixels(predictions[n])[t]) for i, n in enumerate(seen[1]) if present[1][n][t]]
        data["gt_ids"].append(np.array([i for i, _ in g], dtype=int))
        data["tracker_ids"].append(np.array([i for i, _ in d], dtype=int))
        overlaps = [[(one & other).sum() / (one | other).sum() for _, other in d] for _, one in g]
        data["similarity_scores"].append(np.array(overlaps, dtype=float).reshape(len(g), len(d)))
    for side, ids in (("gt", "gt_ids"), ("tracker", "tracker_ids")):
        data[f"num_{side}_ids"] = len(seen[side == "tracker"])
        data[f"num_{side}_dets"] = sum(map(len, data[ids]))
    return data


def theirs(truths, predictions, categories):
    """TrackEval's results: of each category, of all together, and the mean of the categories."""
    quiet = {"PRINT_CONFIG": False}
    results = []
    for metric in (
        trackeval.metrics.HOTA(),
        trackeval.metrics.Identity(quiet),
        trackeval.metrics.CLEAR(quiet),
    ):
        classes = {}
        for category in categories:
            videos = {}
            for video in (5, 2, 9):
                cell = [[one for one in side if (one.video_id, one.category_id) == (video, category)]
                        for side in (truths, predictions)]  # fmt: skip
                videos[video] = metric.eval_sequence(sequence(*cell))
            classes[category] = metric.combine_sequences(videos)
        whole = metric.combine_classes_det_averaged(classes)
        mean = metric.combine_classes_class_averaged(classes, ignore_empty_classes=True)
        results.append([*classes.values(), whole, mean])
    return [hota | identity | clear for hota, identity, clear in zip(*results, strict=True)]


def assert_equal(ours, expected):
    names = {"hota": "HOTA", "deta": "DetA", "assa": "AssA", "loca": "LocA", "assre": "AssRe", "asspr": "AssPr"}
    names |= {"idf1": "IDF1", "idp": "IDP", "idr": "IDR", "identity_switches": "IDSW"}
    assert set(names) == set(ours._fields)
    for field, name in names.items():
        assert getattr(ours, field) == pytest.approx(np.mean(expected[name]), abs=1e-9), name


@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_trackeval(seed):
    truths, predictions = random_world(seed)
    categories = {1: "one", 2: "two", 3: "three"}
    metrics = tracking_metrics(truths, predictions, categories, min_score=0.3)
    expected = theirs(truths, [one for one in predictions if one.score >= 0.3], categories)
    for row, theirs_row in zip(metrics.per_category, expected[:3], strict=True):
        assert_equal(row.scores, theirs_row)
    assert_equal(metrics.combined, expected[3])
    assert_equal(metrics.class_averaged, expected[4])


def test_random_worlds_are_worth_comparing():
    metrics = [tracking_metrics(*random_world(seed), min_score=0.3).combined for seed in range(6)]
    assert 0.05 < min(one.hota for one in metrics) < max(one.hota for one in metrics) < 0.95
    assert sum(one.identity_switches for one in metrics) > 0


def box(x, width=6):
    mask = np.zeros(SIZE, dtype=bool)
    mask[4:10, x : x + width] = True
    return rle.encode(mask)


STILL, OTHER = (box(0),) * FRAMES, (box(12),) * FRAMES


def test_following_perfectly_is_one():
    truths = [GroundTruthTrack(1, 1, STILL), GroundTruthTrack(1, 1, OTHER)]
    scores = tracking_metrics(truths, [PredictedTrack(1, 1, 0.9, one.masks) for one in truths]).combined
    assert scores[:9] == pytest.approx([1.0] * 9)
    assert scores.identity_switches == 0


def test_swapping_identities_halves_association_and_leaves_detection():
    half = FRAMES // 2
    truths = [GroundTruthTrack(1, 1, STILL), GroundTruthTrack(1, 1, OTHER)]
    swapped = [(*STILL[:half], *OTHER[half:]), (*OTHER[:half], *STILL[half:])]
    scores = tracking_metrics(truths, [PredictedTrack(1, 1, 0.9, masks) for masks in swapped]).combined
    assert scores.deta == pytest.approx(1.0)
    assert scores.assa == pytest.approx(half / (2 * FRAMES - half))
    assert scores.idf1 == pytest.approx(0.5)
    assert scores.identity_switches == 2


def test_predictions_below_the_threshold_do_not_exist():
    truths = [GroundTruthTrack(1, 1, STILL)]
    predictions = [PredictedTrack(1, 1, 0.9, STILL), PredictedTrack(1, 1, 0.4, OTHER)]
    assert tracking_metrics(truths, predictions).combined.idp == 1.0
    assert tracking_metrics(truths, predictions, min_score=0.4).combined.idp == 0.5
    assert tracking_metrics(truths, predictions, min_score=0.95).combined.hota == 0.0


def test_what_lies_on_a_crowd_is_neither_right_nor_wrong():
    truth = GroundTruthTrack(1, 1, STILL)
    crowd = GroundTruthTrack(1, 1, (box(10, 12),) * FRAMES, iscrowd=True)
    predictions = [PredictedTrack(1, 1, 0.9, STILL), PredictedTrack(1, 1, 0.8, OTHER)]
    with_crowd = tracking_metrics([truth, crowd], predictions)
    assert with_crowd.combined == tracking_metrics([truth], predictions[:1]).combined
    assert with_crowd.per_category[0].objects == 1
    outside = replace(predictions[1], category_id=2)
    assert tracking_metrics([truth, crowd], [predictions[0], outside], {1: "a", 2: "b"}).combined.idp == 0.5


def test_nothing_at_all_is_zero():
    assert tracking_metrics([], [], {1: "one"}).class_averaged.hota == 0.0
    missed = tracking_metrics([GroundTruthTrack(1, 1, STILL)], []).combined
    assert (missed.hota, missed.idr, missed.loca) == (0.0, 0.0, 1.0)
    invented = tracking_metrics([], [PredictedTrack(1, 1, 0.9, STILL)], {1: "one"}).combined
    assert (invented.hota, invented.idp) == (0.0, 0.0)


def test_masks_that_do_not_fit_name_the_video():
    with pytest.raises(ValueError, match="video 7: expected tracks of 8 frames, got 1"):
        tracking_metrics([GroundTruthTrack(7, 1, STILL)], [PredictedTrack(7, 1, 0.5, STILL[:1])])
