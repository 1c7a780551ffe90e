import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavis import rle
from cavis.evaluation.average_precision import GroundTruthTrack, PredictedTrack
from cavis.evaluation.coverage import coverage

FRAMES, SIDE = 3, 6
NAMES = {1: "dog", 2: "cat", 3: "unseen"}


def encoded(masks):
    return tuple(rle.encode(mask) if mask.any() else None for mask in masks)


def overlap(one, other):
    either = (one | other).sum()
    return (one & other).sum() / either if either else 0.0


@given(st.integers(0, 10**6))
def test_coverage_is_the_best_overlap_of_decoded_masks(seed):
    rng = np.random.default_rng(seed)
    truth, found = [], []
    masks = {}
    for video in (1, 2):
        for side, number in ((truth, rng.integers(0, 4)), (found, rng.integers(0, 5))):
            for _ in range(number):
                drawn = rng.random((FRAMES, SIDE, SIDE)) < rng.choice([0, 0.2, 0.7])
                side.append((video, int(rng.integers(1, 3)), drawn))
    result = coverage(
        [GroundTruthTrack(video, category, encoded(m)) for video, category, m in truth],
        [PredictedTrack(video, category, float(rng.random()), encoded(m)) for video, category, m in found],
        NAMES,
    )
    for row in result.per_category:
        masks = [(video, m) for video, category, m in truth if category == row.id and m.any()]
        best = [max((overlap(m, p) for other, _, p in found if other == video), default=0.0) for video, m in masks]
        assert (row.name, row.objects) == (NAMES[row.id], len(best))
        assert row.abo == pytest.approx(np.mean(best) if best else -1)
        assert row.recall50 == pytest.approx(np.mean(np.array(best) >= 0.5) if best else -1)
    counted = [row.abo for row in result.per_category if row.objects]
    assert result.abo == pytest.approx(np.mean(counted) if counted else -1)


def block(x, frames=FRAMES, side=12):
    mask = np.zeros((side, side), dtype=bool)
    mask[2:6, x : x + 4] = True
    return (rle.encode(mask),) * frames


def test_category_score_and_crowds_do_not_matter():
    truth = [GroundTruthTrack(1, 1, block(2)), GroundTruthTrack(1, 1, block(7), iscrowd=True)]
    first = coverage(truth, [PredictedTrack(1, 2, 0.01, block(2))], NAMES)
    assert (first.abo, first.recall50, first.per_category[0].objects) == (1.0, 1.0, 1)
    elsewhere = coverage(truth, [PredictedTrack(2, 1, 1.0, block(2))])
    assert (elsewhere.abo, elsewhere.recall50) == (0.0, 0.0)


def test_an_object_that_changes_tracks_is_covered_by_one_of_them():
    found = [PredictedTrack(1, 1, 0.9, (*block(2, 2), None)), PredictedTrack(1, 1, 0.9, (None, None, *block(2, 1)))]
    assert coverage([GroundTruthTrack(1, 1, block(2))], found).abo == pytest.approx(2 / 3)


def corner(pixels, seen=FRAMES, side=40):
    """The first pixels of a frame of 1600, and the object is gone after some frames."""
    mask = (np.arange(side * side) < pixels).reshape(side, side)
    return (rle.encode(mask),) * seen + (None,) * (FRAMES - seen)


def test_sizes_are_shares_of_the_frame_where_the_object_is_seen():
    """Below 2 % of 1600 pixels are 31, below 10 % are 159; an object that leaves does not get smaller by that."""
    pixels = {31: "small", 32: "medium", 159: "medium", 160: "large", 1600: "large"}
    truth = [GroundTruthTrack(video, 1, corner(n, seen=2)) for video, n in enumerate(pixels)]
    for video, (n, band) in enumerate(pixels.items()):
        found = [PredictedTrack(video, 1, 0.5, corner(n // 2, seen=2))]
        row = coverage(truth, found).per_category[0]
        for name in ("small", "medium", "large"):
            among = list(pixels.values()).count(name)
            assert getattr(row, f"abo_{name}") == pytest.approx(n // 2 / n / among if name == band else 0.0)
    nothing = coverage(truth[:1], []).per_category[0]
    assert (nothing.abo_small, nothing.abo_medium, nothing.abo_large) == (0.0, -1.0, -1.0)


def test_masks_of_another_size_or_length_are_refused_with_the_video():
    truth = [GroundTruthTrack(7, 1, block(2))]
    for masks, words in ((block(2, side=13), "13 x 13"), (block(2, frames=2), "got 2")):
        with pytest.raises(ValueError, match=f"video 7: .*{words}"):
            coverage(truth, [PredictedTrack(7, 1, 0.5, masks)])
