"""Intervals of means over clips."""

import numpy as np
import pytest

from cavis.evaluation.bootstrap import bootstrap


def test_the_interval_is_that_of_the_normal_theory_where_there_are_many_clips():
    values = np.random.default_rng(0).normal(0.3, 2.0, 400)
    found = bootstrap(values)
    error = values.std(ddof=1) / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_it_holds_what_it_should_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    intervals = [bootstrap(rng.normal(1.0, 1.0, 30), draws=400) for _ in range(200)]
    assert 0.88 <= np.mean([one.low <= 1.0 <= one.high for one in intervals]) <= 0.99


def test_common_clips_make_a_paired_difference_surer():
    rng = np.random.default_rng(2)
    clips = rng.normal(0.5, 0.2, 20)
    first, second = clips + 0.03 + rng.normal(0, 0.01, 20), clips + rng.normal(0, 0.01, 20)
    paired, unpaired = bootstrap(first - second), bootstrap(first - rng.permutation(second))
    assert paired.verdict == "more"
    assert bootstrap(second - first).verdict == "less"
    assert unpaired.verdict == "undecided"


def test_numbers_that_are_missing_are_left_out_and_none_at_all_is_an_error():
    assert bootstrap(np.array([1.0, np.nan, 3.0])).mean == 2.0
    assert bootstrap(np.array([1.0])).verdict == "undecided"
    with pytest.raises(ValueError, match="expected a number for at least one clip"):
        bootstrap(np.array([np.nan]))
