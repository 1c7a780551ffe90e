"""How fast the shipped models track a clip of the twins' world in a phone's size, and in how much memory."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from benchmarks.memory import peak_of, say_peak
from benchmarks.timing import interleaved
from benchmarks.tracking import Numbers, Tell
from cavis.checkpoints.hub import load_model
from cavis.data.synthetic import TwinsClip, TwinsConfig
from cavis.inference.online import OnlinePredictor
from cavis.presets import DEFAULT_MODEL, LABORATORY_MODEL

MODELS = (DEFAULT_MODEL, LABORATORY_MODEL)


@dataclass(frozen=True, kw_only=True)
class ShippedSetting:
    """How long the clips are; each model brings them to the size it works at."""

    frames: int
    """Of the clip that is timed."""
    short: int
    long: int
    """Frames of the clips whose peak memory is compared."""
    height: int = 540
    width: int = 960
    repeats: int = 5


FULL = ShippedSetting(frames=48, short=48, long=192)
QUICK = ShippedSetting(frames=8, short=8, long=24, repeats=3)


def steps(setting: ShippedSetting) -> int:
    """How often :func:`measure` tells that something is done."""
    return (setting.repeats + 1) * len(MODELS) + 2 * len(MODELS)


def measure(setting: ShippedSetting, tell: Tell) -> Numbers:
    """Frames a second and peak memory in MiB of each model, and their ratios.

    From frames in memory to run-length masks; memory is what a process needs beyond the loaded model.
    """
    clip = list(frames(setting, setting.frames))
    predictors = {name: OnlinePredictor(load_model(name, device="cpu")) for name in MODELS}
    work = {name: lambda predictor=predictor: predictor.run(clip) for name, predictor in predictors.items()}
    seconds = interleaved(work, setting.repeats, lambda name: tell(f"timed: {name}"))
    numbers = {f"frames_per_second.{name}": setting.frames / seconds[name] for name in MODELS}
    for name in MODELS:
        for length, count in (("short", setting.short), ("long", setting.long)):
            size = (str(setting.height), str(setting.width))
            numbers[f"peak_mib_{length}.{name}"] = peak_of("benchmarks.shipped", name, str(count), *size) / 2**20
            tell(f"memory: {name}, {count} frames")
    return ratios(numbers) | numbers


def ratios(numbers: Numbers) -> Numbers:
    """What can be compared between machines."""
    first, second = (numbers[f"frames_per_second.{name}"] for name in MODELS)
    growth = {
        f"memory_ratio_long_over_short.{name}": numbers[f"peak_mib_long.{name}"] / numbers[f"peak_mib_short.{name}"]
        for name in MODELS
    }
    return {f"time_ratio_{MODELS[0]}_over_{MODELS[1]}": second / first} | growth


def frames(setting: ShippedSetting, count: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of one clip, rendered one by one."""
    world = TwinsClip(0, TwinsConfig(height=setting.height, width=setting.width, frames=count))
    for t in range(count):
        yield world.render(t)[0]


def main(name: str, count: str, height: str, width: str) -> None:
    """What the child does: track one clip and print its peak memory."""
    predictor = OnlinePredictor(load_model(name, device="cpu"))
    setting = ShippedSetting(frames=0, short=0, long=0, height=int(height), width=int(width))
    say_peak(lambda: predictor.run(frames(setting, int(count))))


if __name__ == "__main__":
    main(*sys.argv[1:])
