"""The benchmark of the shipped models on a clip of a moment; nobody asks how many seconds."""

import sys

import pytest
from measured import run_program

from benchmarks import shipped
from benchmarks.memory import peak_of
from benchmarks.shipped import MODELS, ShippedSetting, steps
from cavis.checkpoints.hub import bundled_models

MOMENT = ShippedSetting(frames=2, short=2, long=4, height=64, width=96, repeats=1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The program's run; the memory, which takes processes of its own, is made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "QUICK", MOMENT)
        patch.setattr(shipped, "peak_of", lambda module, name, count, *size: (100 + int(count)) * 2**20)
        return run_program(shipped, tmp_path_factory.mktemp("benchmark"))


def test_the_default_models_are_measured_and_they_are_bundled(measured):
    numbers, printed, _ = measured
    assert set(MODELS) <= set(bundled_models())
    for name in MODELS:
        assert numbers[f"shipped.frames_per_second.{name}"] > 0
        assert f"shipped.frames_per_second.{name}" in printed


def test_ratios_are_of_the_numbers_beside_them(measured):
    numbers, _, _ = measured
    first, second = (1 / numbers[f"shipped.frames_per_second.{name}"] for name in MODELS)
    ratio = numbers[f"shipped.time_ratio_{MODELS[0]}_over_{MODELS[1]}"]
    assert ratio == pytest.approx(first / second)
    assert numbers["shipped.memory_ratio_long_over_short.lite"] == pytest.approx(104 / 102)
    assert not any(name.startswith("tracking.") for name in numbers)


def test_the_progress_bar_ends_where_it_should(measured):
    assert len(measured[2]) == steps(MOMENT)


def test_every_clip_is_rendered_in_the_size_asked_for_and_is_the_same_every_time():
    first, again = list(shipped.frames(MOMENT, 2)), list(shipped.frames(MOMENT, 2))
    assert [frame.shape for frame in first] == [(MOMENT.height, MOMENT.width, 3)] * 2
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc, which Linux alone has")
def test_a_child_needs_at_least_the_frames_of_a_window_at_the_size_they_are_tracked_in():
    peak = peak_of("benchmarks.shipped", "lite", "4", "64", "96")
    assert 4 * 3 * 256 * 384 * 4 < peak < 2**30
