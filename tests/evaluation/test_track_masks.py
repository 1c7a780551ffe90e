import numpy as np
import pytest

from cavis import rle
from cavis.evaluation import masks
from cavis.evaluation.masks import TrackMasks, video_iou


def random_tracks(seed, tracks, frames=7, size=(18, 23)):
    """Boolean masks (N T H W), some empty, and the same as run-length masks with None for most of the empty ones."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((tracks, frames, *size), dtype=bool)
    for n in range(tracks):
        for t in range(frames):
            if rng.random() < 0.75:
                y, x = rng.integers(0, size[0] - 2), rng.integers(0, size[1] - 2)
                masks[n, t, y : y + rng.integers(1, 12), x : x + rng.integers(1, 12)] = True
    keeps_empty = rng.random((tracks, frames)) < 0.3
    packed = [
        [rle.encode(masks[n, t]) if masks[n, t].any() or keeps_empty[n, t] else None for t in range(frames)]
        for n in range(tracks)
    ]
    return masks, packed


def iou(first, second):
    return video_iou(TrackMasks.measure(first), TrackMasks.measure(second))


@pytest.mark.parametrize("seed", range(5))
def test_iou_equals_counting_decoded_pixels(seed):
    predicted, packed_predicted = random_tracks(seed, 6)
    truth, packed_truth = random_tracks(seed + 100, 4)
    both = (predicted[:, None] & truth[None]).sum((2, 3, 4))
    either = (predicted[:, None] | truth[None]).sum((2, 3, 4))
    np.testing.assert_array_equal(iou(packed_predicted, packed_truth), both / np.maximum(either, 1))


def test_iou_does_not_depend_on_how_many_masks_are_compared_at_once(monkeypatch):
    _, predicted = random_tracks(0, 6)
    _, truth = random_tracks(1, 4)
    whole = iou(predicted, truth)
    monkeypatch.setattr("cavis.evaluation.masks._MOST_PAIRS", 1)
    np.testing.assert_array_equal(iou(predicted, truth), whole)
    assert whole.max() > 0.05


def test_masks_of_different_frames_never_meet():
    mask = rle.encode(np.ones((4, 5), dtype=bool))
    np.testing.assert_array_equal(iou([[mask, None]], [[None, mask], [mask, None]]), [[0.0, 1.0]])


def test_a_frame_with_one_side_only_counts_in_the_union():
    mask = rle.encode(np.ones((4, 5), dtype=bool))
    assert iou([[mask, mask, None]], [[mask, None, None]]) == 0.5


def test_tracks_without_a_pixel_overlap_by_zero():
    empty = rle.encode(np.zeros((4, 5), dtype=bool))
    assert iou([[empty, None]], [[None, empty]]) == 0.0


def test_areas_are_right_beyond_256_masks():
    masks, packed = random_tracks(3, 60)
    measured = TrackMasks.measure(packed)
    np.testing.assert_array_equal(measured.areas, masks.sum((2, 3)))
    assert sum(mask is not None for track in packed for mask in track) > 256


def test_mean_area_leaves_out_frames_without_a_pixel():
    small, empty = rle.encode(np.eye(3, dtype=bool)), rle.encode(np.zeros((3, 3), dtype=bool))
    large = rle.encode(np.ones((3, 3), dtype=bool))
    np.testing.assert_array_equal(TrackMasks.measure([[small, empty, None, large], [None] * 4]).mean_areas, [6.0, 0.0])


def test_different_sizes_and_lengths_are_refused_in_words():
    small, large = rle.encode(np.ones((3, 3), dtype=bool)), rle.encode(np.ones((3, 4), dtype=bool))
    with pytest.raises(ValueError, match="expected masks of 3 x 3, got 3 x 4"):
        iou([[large]], [[small]])
    with pytest.raises(ValueError, match="3 x 3 and 3 x 4"):
        TrackMasks.measure([[small], [large]])
    with pytest.raises(ValueError, match="expected tracks of 2 frames, got 1"):
        iou([[small]], [[small, small]])
    with pytest.raises(ValueError, match="one length"):
        TrackMasks.measure([[small], [small, small]])


@pytest.mark.parametrize("seed", range(5))
def test_only_what_is_below_the_least_iou_asked_for_is_left_out(seed):
    sides = [TrackMasks.measure(random_tracks(seed + offset, 12)[1]) for offset in (0, 0, 50)]
    for truth in sides[1:]:
        whole = video_iou(sides[0], truth)
        for least in (0.05, 0.1, 0.5, 1.0):
            few = video_iou(sides[0], truth, least)
            np.testing.assert_array_equal(few[whole >= least], whole[whole >= least])
            assert ((few == whole) | (few == 0)).all()
    assert (whole > 0.05).any()


def test_hopeless_pairs_are_not_compared(monkeypatch):
    compared = []
    small, large = np.zeros((9, 9), dtype=bool), np.ones((9, 9), dtype=bool)
    small[:3] = True
    tracks = [[rle.encode(mask)] * 4 for mask in (small, large)]
    sides = [TrackMasks.measure(tracks[:1]), TrackMasks.measure(tracks[1:])]
    monkeypatch.setattr("cavis.evaluation.masks.coco_mask.iou", lambda *given: compared.append(given))
    assert video_iou(*sides, 0.5) == 0
    assert not compared


def test_tracks_of_different_kinds_do_not_meet():
    sides = [random_tracks(seed, 6)[1] for seed in (0, 1)]
    kinds = [np.array([0, 2, 1, 1, 0, 2]), np.array([1, 1, 0, 2, 2, 2])]
    measured = [TrackMasks.measure(side, kind) for side, kind in zip(sides, kinds, strict=True)]
    expected = np.where(kinds[0][:, None] == kinds[1], iou(*sides), 0.0)
    np.testing.assert_array_equal(video_iou(*measured), expected)
    assert (expected < iou(*sides)).any()


@pytest.mark.parametrize("parts", [1, 2, 5, 9])
def test_iou_does_not_depend_on_the_parts_the_frames_go_in(parts, monkeypatch):
    sides = [TrackMasks.measure(random_tracks(seed, 8)[1]) for seed in (0, 1)]
    whole = video_iou(*sides)
    monkeypatch.setattr("cavis.evaluation.masks._PARTS", parts)
    np.testing.assert_array_equal(video_iou(*sides), whole)
    few = video_iou(*sides, 0.1)
    np.testing.assert_array_equal(few[whole >= 0.1], whole[whole >= 0.1])


def test_what_no_frame_can_mend_is_given_up_early(monkeypatch):
    """Two tracks of one size that share nothing in a third of the frames cannot reach half."""
    left, right = np.zeros((9, 9), dtype=bool), np.zeros((9, 9), dtype=bool)
    left[:, :3], right[:, 5:] = True, True
    sides = [TrackMasks.measure([[rle.encode(mask)] * 30]) for mask in (left, right)]
    looked = []
    shared = masks.intersections
    monkeypatch.setattr(masks, "intersections", lambda a, b, frames: looked.extend(frames) or shared(a, b, frames))
    assert video_iou(*sides, 0.6) == 0
    assert 0 < len(looked) < 30
