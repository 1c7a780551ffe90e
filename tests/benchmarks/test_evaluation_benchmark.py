"""The benchmark of average precision on a world so small that it takes a moment; nobody asks how many seconds."""

from dataclasses import replace

import numpy as np
import pytest
from measured import run_program

from benchmarks import evaluation
from benchmarks.evaluation import EvaluationSetting, TrackEval, World, random_world, steps
from cavis import rle
from cavis.evaluation.average_precision import GroundTruthTrack, PredictedTrack, average_precision

TINY = EvaluationSetting(videos=4, predictions=8, frames=5, objects=2, categories=2, repeats=1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The program's run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "QUICK", TINY)
        return run_program(evaluation, tmp_path_factory.mktemp("benchmark"))


def test_the_speedup_is_their_time_over_ours(measured):
    numbers, printed, _ = measured
    ratio = numbers["evaluation.seconds.trackeval"] / numbers["evaluation.seconds.ours"]
    assert numbers["evaluation.speedup_over_trackeval"] == pytest.approx(ratio)
    assert "evaluation.speedup_over_trackeval" in printed
    assert not any(name.startswith("tracking.") for name in numbers)


def test_both_find_the_same_average_precision(measured):
    numbers, _, _ = measured
    assert 0 < numbers["evaluation.ap.ours"] < 1
    assert numbers["evaluation.ap.ours"] == pytest.approx(numbers["evaluation.ap.trackeval"], abs=1e-9)


def test_the_progress_bar_ends_where_it_should(measured):
    assert len(measured[2]) == steps(TINY)


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_trackevals_where_there_are_no_crowds(seed):
    world = random_world(replace(TINY, videos=6, categories=3), seed)
    theirs, ours = TrackEval(world).average_precision(), average_precision(*world)
    expected = [theirs["all"], theirs["small"], theirs["medium"], theirs["large"]]
    assert [ours.ap, ours.ap_small, ours.ap_medium, ours.ap_large] == pytest.approx(expected, abs=1e-9)


# Where the rules differ: one small world each.


def track(x, width=4):
    mask = np.zeros((10, 30), dtype=bool)
    mask[:, x : x + width] = True
    return (rle.encode(mask),)


def both(truths, predictions, first_id=1):
    world = World(truths, predictions, {1: "one"})
    return average_precision(*world).ap, TrackEval(world, first_id).average_precision()["all"]


def test_in_the_released_evaluation_a_crowd_takes_any_number_of_predictions_in_trackeval_one():
    truths = [GroundTruthTrack(1, 1, track(0, 20), iscrowd=True), GroundTruthTrack(1, 1, track(25))]
    hits = [PredictedTrack(1, 1, 0.9, track(0, 20)), PredictedTrack(1, 1, 0.8, track(0, 20))]
    ours, theirs = both(truths, [*hits, PredictedTrack(1, 1, 0.1, track(25))])
    assert ours == pytest.approx(1.0)
    assert theirs == pytest.approx(0.5)


def test_in_trackeval_the_very_first_prediction_does_not_use_up_what_it_matches():
    truths = [GroundTruthTrack(1, 1, track(0)), GroundTruthTrack(1, 1, track(10))]
    twice = [PredictedTrack(1, 1, 0.9, track(0)), PredictedTrack(1, 1, 0.8, track(0))]
    ours, theirs = both(truths, twice, first_id=0)
    assert ours == pytest.approx(51 / 101)
    assert theirs == pytest.approx(1.0)
    assert both(truths, twice, first_id=1)[1] == pytest.approx(ours)
