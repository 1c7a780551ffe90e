"""How much arithmetic, time and memory tracking takes, ours over the plain path with the same weights."""

from collections.abc import Callable

from benchmarks.contestants import TIMED, Who, contestant
from benchmarks.flops import count_flops
from benchmarks.memory import peak_memory
from benchmarks.setting import Setting, pictures, random_model
from benchmarks.timing import interleaved

Numbers = dict[str, float]
Tell = Callable[[str], None]
"""Hears what has just been done."""

WATCHED: tuple[Who, ...] = ("ours", "reference", "offline")
"""Whose memory is measured."""


def steps(setting: Setting) -> int:
    """How often :func:`measure` tells that something is done."""
    return (setting.repeats + 2) * len(TIMED) + 2 * len(WATCHED)


def measure(setting: Setting, tell: Tell) -> Numbers:
    """All numbers by name: the ratios, and for everyone GFLOPs and seconds a frame and peak memory in MiB."""
    model, clip = random_model(setting.model), list(pictures(setting, setting.frames))
    runs = {who: contestant(who, setting, model) for who in TIMED}
    work = {who: lambda run=run: run(clip) for who, run in runs.items()}
    numbers: Numbers = {}
    for who, run in work.items():
        numbers[f"gflops_per_frame.{who}"] = sum(count_flops(run).values()) / setting.frames / 1e9
        tell(f"counted: {who}")
    for who, seconds in interleaved(work, setting.repeats, lambda who: tell(f"timed: {who}")).items():
        numbers[f"seconds_per_frame.{who}"] = seconds / setting.frames
    for who in WATCHED:
        for length, frames in (("short", setting.short), ("long", setting.long)):
            numbers[f"peak_mib_{length}.{who}"] = peak_memory(who, frames, setting) / 2**20
            tell(f"memory: {who}, {frames} frames")
    return ratios(numbers) | numbers


def ratios(numbers: Numbers) -> Numbers:
    """What can be compared between machines."""
    return {
        "flops_ratio": numbers["gflops_per_frame.ours"] / numbers["gflops_per_frame.reference"],
        "time_ratio": numbers["seconds_per_frame.ours"] / numbers["seconds_per_frame.reference"],
        "time_ratio_to_transformers": numbers["seconds_per_frame.our_segmenter"]
        / numbers["seconds_per_frame.transformers_segmenter"],
        "memory_ratio_long_over_short": numbers["peak_mib_long.ours"] / numbers["peak_mib_short.ours"],
        "memory_ratio_offline": numbers["peak_mib_long.offline"] / numbers["peak_mib_short.offline"],
    }
