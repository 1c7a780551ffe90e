"""What a visitor may send, in numbers and in sentences."""

import math
from dataclasses import dataclass

from cavis.video import Limits, VideoInfo
from cavis.video.containers import VISITOR_CONTAINERS, accepted_words

_EPSILON = 1e-6
"""Seconds by which rounded times may differ (as in :mod:`cavis.video.sanitize_child`)."""
_SMOOTH = 7.5
"""Frames per second below which motion becomes hard to follow."""
_AT_HOME = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class DemoLimits:
    """How much one visitor may ask of the machine."""

    megabytes: int = 200
    """Size of an upload."""
    frames: int = 300
    """Frames tracked in one run."""
    short_side: int = 480
    """Pixels to which the shorter side of a clip is shrunk for viewing."""
    seconds: float = 900.0
    """Wall-clock time of one run."""
    waiting: int = 8
    """Visitors that may wait in line."""
    jobs: int = 12
    """Clips kept at one time, more than can wait and run; of the others the one used longest ago goes first."""
    keep_seconds: float = 3600.0
    """How long a clip that is not used is kept."""
    downloads: bool = False
    """Whether visitors may fetch published models onto this machine."""

    @classmethod
    def for_host(cls, host: str) -> "DemoLimits":
        """At home (a page for this computer only) models may be fetched, and a run may take four hours."""
        return cls(downloads=True, seconds=4 * 3600.0) if host in _AT_HOME else cls()

    @property
    def longest_wait(self) -> float:
        """Seconds until it is the turn of the last in line, when all before take as long as they may."""
        return self.waiting * self.seconds

    @property
    def video(self) -> Limits:
        """The same for :func:`cavis.video.sanitize`: a tenth more frames, as uneven clips are hard to count ahead."""
        return Limits(bytes=self.megabytes * 1_000_000, frames=self.frames + self.frames // 10)

    def sentence(self) -> str:
        """What is accepted, for somebody who has not uploaded yet."""
        kinds = accepted_words(VISITOR_CONTAINERS)
        return (
            f"{kinds} up to {self.megabytes} MB, of any length. Up to {self.frames} frames are tracked at a time; "
            "if your clip has more, you choose which."
        )


@dataclass(frozen=True)
class Part:
    """The part of a clip to track: seconds, the end excluded, and every how many-th frame."""

    start: float
    end: float
    stride: int

    def frames(self, info: VideoInfo) -> int:
        """How many frames that is; exact where the frames come at a steady pace."""
        first = math.ceil((self.start - _EPSILON) * info.fps)
        after = math.ceil((self.end - _EPSILON) * info.fps)
        inside = max(0, min(after, info.frames) - max(0, first))
        return math.ceil(inside / self.stride)


def whole(info: VideoInfo) -> Part:
    """All of a clip."""
    return Part(0.0, round_up(info.duration), 1)


def suggested(info: VideoInfo, limits: DemoLimits) -> Part:
    """The part to begin with: all of the clip if that fits, else fewer frames a second, else only its beginning."""
    part = whole(info)
    fastest = max(1, math.floor(info.fps / _SMOOTH))
    stride = min(fastest, max(1, math.ceil(info.frames / limits.frames)))
    part = Part(0.0, part.end, stride)
    if part.frames(info) > limits.frames:
        part = Part(0.0, math.floor(100 * limits.frames * stride / info.fps) / 100, stride)
    return part


def round_up(seconds: float) -> float:
    """To hundredths, so that a slider that ends there reaches the last frame."""
    return math.ceil(seconds * 100 - _EPSILON) / 100


def refusal(part: Part, info: VideoInfo, limits: DemoLimits) -> str | None:
    """Why this part cannot be tracked, in a sentence; None if it can."""
    if not part.end > part.start:
        return f"The end ({part.end:g} s) has to come after the start ({part.start:g} s)."
    frames = part.frames(info)
    if frames == 0:
        return f"There is no frame between {part.start:g} s and {part.end:g} s; the clip is {info.duration:.1f} s long."
    if frames > limits.frames:
        needed = math.ceil(part.stride * frames / limits.frames)
        return (
            f"That is {frames} frames; up to {limits.frames} are tracked at a time. "
            f"Choose a shorter part, or every {ordinal(needed)} frame."
        )
    return None


def describe(info: VideoInfo) -> str:
    """``12.3 s, 1280 × 720 pixels, 30 frames a second, 369 frames``."""
    return (
        f"{info.duration:.1f} s, {info.width} × {info.height} pixels, {info.fps:.3g} frames a second, "
        f"{info.frames} {'frame' if info.frames == 1 else 'frames'}"
    )


def ordinal(number: int) -> str:
    """``2nd``, ``3rd``, ``11th``."""
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def duration_words(seconds: float) -> str:
    """``about 25 s``, ``about 3 min``, ``about 2 h``."""
    if seconds < 1.5:
        return "about a second"
    if seconds < 90:
        return f"about {5 * round(seconds / 5) if seconds > 20 else round(seconds)} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {round(seconds / 3600)} h"
