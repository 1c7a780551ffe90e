"""Reading a file through without decoding it: the time of every picture, and what is missing."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream as AvStream
from jaxtyping import Float

from cavis.video.info import VideoError

MAX_FRAMES = 2_000_000
_UNKNOWN_INTERVAL = 0.1
"""Seconds a frame is taken to last where the file does not tell."""


@dataclass(frozen=True)
class Scan:
    """What a file tells about its frames, in the order in which they are shown."""

    ticks: tuple[int, ...]
    """Time of each frame that is there as a whole, in units of ``time_base``."""
    time_base: float
    exact: bool
    """Whether each frame has a time of its own, which the decoded frame carries too."""
    closed: bool
    """Whether all that is stored after a key frame is shown after it, so that decoding can begin at any of them."""
    missing: int
    """Frames the file announces that are not in it, or not as a whole."""
    fallback_interval: float

    @property
    def times(self) -> Float[np.ndarray, "T"]:
        """Seconds from the first frame, strictly increasing."""
        return strictly_increasing(np.array(self.ticks, dtype=np.float64) * self.time_base, self.time_base)

    @property
    def interval(self) -> float:
        """Mean time between two frames, seconds."""
        if len(self.ticks) < 2 or self.ticks[-1] <= self.ticks[0]:
            return self.fallback_interval
        return (self.ticks[-1] - self.ticks[0]) * self.time_base / (len(self.ticks) - 1)

    def missing_times(self) -> list[float]:
        """When the missing frames were probably shown, seconds: in the holes of a constant rate, then at the end."""
        times, usual = self.times, constant_step(self.times)
        if not self.missing or not len(times):
            return []
        holes = []
        if usual is not None:
            for before, step in zip(times, np.diff(times), strict=False):
                holes.extend(float(before + usual * number) for number in range(1, round(step / usual)))
        tail = range(1, self.missing - len(holes) + 1)
        return holes[: self.missing] + [float(times[-1]) + number * (usual or self.interval) for number in tail]


def strictly_increasing(times: Float[np.ndarray, "T"], step: float) -> Float[np.ndarray, "T"]:
    """Shift ``times`` to start at 0 and push every time that does not advance ``step`` behind the one before."""
    if len(times) == 0:
        return times
    times = times - times[0]
    if (np.diff(times) >= step * 0.999).all():
        return times
    ranks = np.arange(len(times)) * step
    return np.maximum.accumulate(times - ranks) + ranks


def constant_step(times: Float[np.ndarray, "T"]) -> float | None:
    """The usual step between frames where at least four of five steps are like it, otherwise None."""
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    return usual if usual > 0 and (np.abs(steps - usual) <= usual / 4).mean() >= 0.8 else None


def scan_container(container: InputContainer, stream: AvStream) -> Scan:
    """Read ``container`` from where it is to its end; ``stream`` is the one whose frames are counted."""
    census = _Census(container, stream)
    for packet in packets(container):
        census.count(packet)
    rate = stream.average_rate
    return Scan(
        ticks=tuple(sorted(census.ticks)),
        time_base=float(stream.time_base or 1),
        exact=census.exact and len(set(census.ticks)) == len(census.ticks),
        closed=census.closed,
        missing=census.missing(),
        fallback_interval=1 / float(rate) if rate else _UNKNOWN_INTERVAL,
    )


def packets(container: InputContainer, *streams: AvStream) -> Iterator[av.Packet]:
    """The packets of ``streams`` (all by default) up to the end of the file or the first unreadable place."""
    try:
        yield from container.demux(*streams)
    except FFmpegError as error:
        raise_if_out_of_memory(error)


def raise_if_out_of_memory(error: FFmpegError) -> None:
    """Running out of memory is not a fault of the frame that happened to be read."""
    if isinstance(error, MemoryError):
        raise error


class _Census:
    """Counts the packets of one file."""

    def __init__(self, container: InputContainer, stream: AvStream) -> None:
        self._container, self._stream = container, stream
        self.ticks = array("q")
        # AVI knows the order in which pictures are stored, not the time at which they are shown.
        self.exact = container.format.name != "avi"
        self.closed = True
        self._corrupt = 0
        self._key_tick: int | None = None
        self._read_to = 0.0

    def count(self, packet: av.Packet) -> None:
        tick = packet.pts if packet.pts is not None else packet.dts
        if packet.size == 0 or tick is None:
            return
        if packet.time_base is not None:
            self._read_to = max(self._read_to, float((tick + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != self._stream.index or packet.is_discard:
            return
        if packet.is_corrupt:
            self._corrupt += 1
            return
        self.exact = self.exact and packet.pts is not None
        self._key_tick = tick if packet.is_keyframe else self._key_tick
        self.closed = self.closed and self._key_tick is not None and tick >= self._key_tick
        self.ticks.append(tick)
        if len(self.ticks) > MAX_FRAMES:
            raise VideoError(f"The video has more than {MAX_FRAMES:,} frames.")

    def missing(self) -> int:
        """How many frames the file announces beyond those that were read as a whole.

        MP4 lists every frame; AVI counts its frames and numbers them; the others tell how long they last.
        """
        if self._container.format.name.startswith("mov"):
            listed = sum(not entry.is_discard for entry in self._stream.index_entries)
            return max(0, listed - len(self.ticks))
        if self._container.format.name == "avi":
            span = max(self.ticks) - min(self.ticks) + 1 if self.ticks else 0
            return max(self._corrupt, self._stream.frames - span)
        return max(self._corrupt, self._missing_by_duration())

    def _missing_by_duration(self) -> int:
        if self._container.duration is None or len(self.ticks) < 2:
            return 0
        times = np.sort(np.array(self.ticks)) * float(self._stream.time_base or 1)
        mean = float(np.diff(times).mean())
        # Files that do not begin at 0 tell the end here or the length: taking it for the end never invents a loss.
        end = self._container.duration / av.time_base
        gap = end - self._read_to
        if mean <= 0 or gap <= max(1.5 * mean, 0.1):
            return 0
        if (usual := constant_step(times)) is not None:
            # A constant rate: count the holes between frames, too, whose pictures were stored behind the cut.
            return max(0, round((end - times[0]) / usual) - len(self.ticks))
        return round(gap / mean)
