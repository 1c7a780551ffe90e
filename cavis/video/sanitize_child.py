"""The child process of :mod:`cavis.video.sanitize`: limits itself, then reads one file of a stranger.

The request comes as json on standard input, the answer, {"info": ...} or {"error": sentence}, goes to standard output.
"""

import json
import math
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NoReturn

import av
from av.error import BlockingIOError as AvBlockingIOError
from av.error import FFmpegError

from cavis.video.containers import sniff
from cavis.video.frames import Converter, Orientation
from cavis.video.info import UnreadableError, VideoError, VideoInfo
from cavis.video.stream import VideoFile
from cavis.video.writer import VideoWriter

_EPSILON = 1e-6
"""Seconds by which rounded times may differ."""
_LARGEST_PICTURE = 64 << 20
"""Bytes a decoder asks for at once, at most: 4096 x 2304 pixels of three 16-bit values."""


@dataclass(frozen=True)
class Part:
    """What of the video is wanted."""

    start: float
    end: float | None
    stride: int
    max_short_side: int | None

    def before(self, time: float) -> bool:
        """Whether the part begins after ``time``."""
        return time < self.start - _EPSILON

    def after(self, time: float) -> bool:
        """Whether the part is over at ``time``."""
        return self.end is not None and time >= self.end - _EPSILON

    def contains(self, time: float) -> bool:
        """Whether a frame shown at ``time`` belongs to the part."""
        return not self.before(time) and not self.after(time)


def restrict(limits: dict[str, float]) -> None:
    """Give up, for good, what this process must not use; a system without such limits is left as it is."""
    with suppress(AttributeError):
        # Should the parent die, nobody else would stop this process.
        signal.setitimer(signal.ITIMER_REAL, limits["seconds"] + 5)
    with suppress(AttributeError, OSError):
        # Codecs start a thread for every processor they see, each with a stack of its own in the address space.
        seen = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, random.sample(seen, min(2, len(seen))))
    try:
        import resource
    except ImportError:
        return
    cpu, size = int(limits["cpu_seconds"]), int(limits["output_bytes"])
    for name, soft, hard in (
        ("RLIMIT_AS", int(limits["memory_bytes"]), int(limits["memory_bytes"])),
        ("RLIMIT_CPU", cpu, cpu + 1),
        ("RLIMIT_FSIZE", size, size),
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_NOFILE", 64, 64),
    ):
        if (which := getattr(resource, name, None)) is not None:
            # A system may know a limit and refuse to set it (macOS and RLIMIT_AS), or grant less already.
            with suppress(ValueError, OSError):
                resource.setrlimit(which, (soft, hard))


class Recoder:
    """Re-encodes a part of one open file."""

    def __init__(self, file: VideoFile, part: Part, max_frames: int) -> None:
        self._file = file
        self._part = part
        self._max_frames = max_frames
        self._scan = file.scan()
        self._info = file.info(self._scan)
        self._times = self._scan.times
        self._decoded = 0
        self._damaged = 0

    def run(self, out: Path) -> VideoInfo:
        """Write the part to ``out`` and describe it."""
        times = []
        frames = self._kept()
        if (first := next(frames, None)) is None:
            self._refuse_empty_part()
        _, frame = first
        width, height = self._stored_size(frame)
        orientation = Orientation.of(frame)
        convert = Converter(orientation, (width, height))
        shown = (height, width) if orientation.swaps_axes else (width, height)
        with VideoWriter(out, shown[1], shown[0]) as writer:
            for time, frame in chain([first], frames):
                times.append(time)
                writer.write(convert(frame), time)
        return self._describe(times, shown)

    def _kept(self) -> Iterator[tuple[float, av.VideoFrame]]:
        kept = 0
        for number, (time, frame) in enumerate(self._in_part()):
            self._decoded += 1
            if number % self._part.stride:
                continue
            if kept == self._max_frames:
                seconds = self._max_frames * self._part.stride / self._info.fps
                raise VideoError(
                    f"The chosen part of {self._file.path.name} has more than {self._max_frames} frames; accepted are "
                    f"at most {self._max_frames} ({seconds:.0f} s of this video): choose a shorter part, or a larger "
                    "step between frames."
                )
            kept += 1
            self._damaged += frame.is_corrupt
            yield time, frame

    def _in_part(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """The part's frames with increasing times."""
        previous = -math.inf
        for index, frame in enumerate(self._frames()):
            time = self._time(frame, index)
            if self._part.after(time):
                return
            if time <= previous:
                continue  # the decoder makes up for a lost frame by showing another one twice
            previous = time
            if not self._part.before(time):
                yield time, frame

    def _frames(self) -> Iterator[av.VideoFrame]:
        """All frames, or those from a key frame before the part."""
        scan, start = self._scan, self._part.start
        if start > 1 and scan.exact:
            self._file.seek(scan.ticks[0] + int(start / scan.time_base))
            frames = self._file.frames()
            first = next(frames, None)
            if first is not None and first.pts is not None and not self._time(first, 0) > start:
                yield first
                yield from frames
                return
            self._file.rewind()
        yield from self._file.frames()

    def _time(self, frame: av.VideoFrame, index: int) -> float:
        """Seconds from the first frame of the file; frames without a time of their own come at a steady pace."""
        scan = self._scan
        if scan.exact and frame.pts is not None:
            return (frame.pts - scan.ticks[0]) * scan.time_base
        last = len(scan.ticks) - 1
        return float(self._times[min(index, last)] if last >= 0 else 0.0) + max(0, index - last) * scan.interval

    def _stored_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Width and height to scale to, before the picture is turned; even where it shrinks."""
        width, height = frame.width, frame.height
        short = self._part.max_short_side
        if short is None or min(width, height) <= short:
            return width, height
        scale = short / min(width, height)
        return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)

    def _lost(self) -> int:
        """How many frames of the part could not be read."""
        expected = sum(self._part.contains(time) for time in self._times)
        # Some codecs have packets that show nothing: fewer frames than packets mean damage only after an error.
        lost = max(0, expected - self._decoded) if self._file.errors else 0
        return lost + sum(self._part.contains(time) for time in self._scan.missing_times())

    def _describe(self, times: list[float], size: tuple[int, int]) -> VideoInfo:
        duration = times[-1] - times[0]
        interval = duration / (len(times) - 1) if len(times) > 1 else self._scan.interval * self._part.stride
        return replace(
            self._info,
            width=size[0] + size[0] % 2,
            height=size[1] + size[1] % 2,
            frames=len(times),
            fps=round(1 / interval, 6),
            duration=round(duration + interval, 6),
            codec="h264",
            container="mp4",
            rotation=0,
            lost_frames=self._lost(),
            damaged_frames=self._damaged,
            has_alpha=False,
        )

    def _refuse_empty_part(self) -> NoReturn:
        end = "its end" if self._part.end is None else f"{self._part.end:g} s"
        raise VideoError(
            f"{self._file.path.name} has no readable frame between {self._part.start:g} s and {end}; "
            f"it is {self._info.duration:.1f} s long."
        )


def work(request: dict) -> VideoInfo:
    """Do what the request asks for."""
    limits = request["limits"]
    path = Path(request["path"])
    container = sniff(path, tuple(limits["containers"]))
    with VideoFile(path, container, limits["pixels"]) as file:
        if request["task"] == "probe":
            return file.info(file.scan())
        return Recoder(file, Part(**request["part"]), limits["frames"]).run(Path(request["out"]))


def answer(request: dict) -> dict:
    """What to report on one request."""
    name, memory = Path(request["path"]).name, request["limits"]["memory_bytes"]
    starved = {"error": f"Reading {name} needs more than the {memory / 1e6:.0f} MB of memory allowed."}
    try:
        info = work(request)
    except (MemoryError, AvBlockingIOError):  # the second: no room for another thread's stack
        return starved
    except VideoError as error:
        return starved if isinstance(error, UnreadableError) and is_short_of(memory) else {"error": str(error)}
    except FFmpegError as error:
        return starved if is_short_of(memory) else {"error": f"{name} could not be re-encoded ({error.strerror})."}
    return starved if info.lost_frames and is_short_of(memory) else {"info": asdict(info)}


def is_short_of(memory: int) -> bool:
    """Whether this process came near its limit of address space (bytes); always false where Linux does not tell.

    Decoders that get no memory often report a damaged frame instead.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    peak = next((line for line in status.splitlines() if line.startswith("VmPeak:")), "VmPeak: 0 kB")
    return int(peak.split()[1]) * 1024 > memory - _LARGEST_PICTURE


def main() -> int:
    """Answer one request; 0 where the video was accepted."""
    request = json.loads(sys.stdin.buffer.read())
    restrict(request["limits"])
    report = answer(request)
    sys.stdout.write(json.dumps(report))
    return 0 if "info" in report else 1


if __name__ == "__main__":
    sys.exit(main())
