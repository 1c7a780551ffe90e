"""The benchmark itself, on a model so small that it takes seconds; nobody asks how many."""

import sys
from dataclasses import replace

import pytest
from measured import run_program
from nano import nano_config

from benchmarks import __main__ as program
from benchmarks import reference, tracking
from benchmarks.contestants import TIMED
from benchmarks.memory import peak_memory
from benchmarks.setting import Setting, full, pictures, quick
from benchmarks.timing import interleaved
from cavis.config import RELEASED, ResNet

reads_proc = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc, which Linux alone has")
NANO = Setting(
    model=replace(nano_config(), reading=RELEASED, sampling_points=4),
    height=64,
    width=96,
    frames=2,
    repeats=1,
    short=2,
    long=4,
    top_k=4,
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The program's run; the memory, which takes processes of its own, is made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "quick", lambda: NANO)
        patch.setattr(tracking, "peak_memory", lambda who, frames, setting: (100 + frames) * 2**20)
        return run_program(tracking, tmp_path_factory.mktemp("benchmark"))


def test_the_promised_numbers_are_written(measured):
    numbers, printed, _ = measured
    promised = [name for name in program.LIMITS if name.startswith("tracking.")]
    for name in promised:
        assert numbers[name] > 0
        assert name in printed
    for who in TIMED:
        assert numbers[f"tracking.gflops_per_frame.{who}"] > 0
        assert numbers[f"tracking.seconds_per_frame.{who}"] > 0
    assert numbers["threads"] >= 1
    assert set(numbers["versions"]) == {"python", *program.PACKAGES}


def test_ratios_are_ours_over_theirs(measured):
    numbers = {name.removeprefix("tracking."): value for name, value in measured.numbers.items()}
    flops = numbers["gflops_per_frame.ours"] / numbers["gflops_per_frame.reference"]
    assert numbers["flops_ratio"] == pytest.approx(flops)
    assert numbers["flops_ratio"] < 1
    assert numbers["memory_ratio_long_over_short"] == pytest.approx((100 + NANO.long) / (100 + NANO.short))


def test_the_progress_bar_ends_where_it_should(measured):
    assert len(measured.told) == tracking.steps(NANO)


@reads_proc
def test_a_child_says_what_it_needed():
    """At least the full-size masks of a window; not the model, its libraries and the kitchen sink."""
    masks = reference.WINDOW * NANO.top_k * NANO.height * NANO.width
    assert masks < peak_memory("ours", 3, NANO) < 2**29


@reads_proc
def test_four_times_the_frames_take_at_most_1_3_times_the_memory_offline():
    """On small frames, where what is kept of each one weighs most; as many and as wide queries as the real model."""
    small = quick().model
    few = dict.fromkeys(("pixel_decoder_layers", "decoder_layers", "tracker_layers"), 1)
    model = replace(small, backbone=ResNet(depths=(1, 1, 1, 1)), refiner_layers=2, **few)
    short, long = (peak_memory("offline", frames, replace(quick(), model=model)) for frames in (12, 48))
    print(f"12 frames: {short / 2**20:.0f} MiB, 48 frames: {long / 2**20:.0f} MiB")
    assert long <= 1.3 * short


@reads_proc
def test_a_failing_child_is_quoted():
    with pytest.raises(RuntimeError, match="channel_sum"):
        peak_memory("reference", 1, replace(NANO, model=nano_config()))


def test_contestants_take_turns_and_warm_up_is_not_counted():
    now, said = [0.0], []
    lasts = {"a": iter([100, 1, 7, 3]), "b": iter([100, 5, 4, 90])}

    def work(who):
        now[0] += next(lasts[who])

    medians = interleaved({"a": lambda: work("a"), "b": lambda: work("b")}, 3, said.append, lambda: now[0])
    assert said == ["a", "b"] * 4
    assert medians == {"a": 3, "b": 5}


def test_a_setting_travels_as_text():
    for setting in (NANO, quick(), full()):
        assert Setting.from_json(setting.to_json()) == setting


def test_pictures_drift_and_are_the_same_every_time():
    first, second = pictures(NANO, 2)
    assert first.shape == (NANO.height, NANO.width, 3)
    assert (first != second).any()
    assert (next(pictures(NANO, 1)) == first).all()
