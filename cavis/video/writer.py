"""Writing MP4 files that every browser plays: H.264, yuv420p, even size, index at the front, the given times kept."""

import secrets
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from jaxtyping import Float, UInt8

from cavis.video.info import VideoError

TICKS = 90_000
"""Ticks of a second in the files: frames of 24, 25, 30, 60 and 29.97 per second fall on whole ones."""
_BT709 = 1  # ITU-T H.273: the same number for matrix, primaries and transfer
_LAST_RESORT_INTERVAL = 0.1


class VideoWriter:
    """Writes one H.264 MP4; a context manager.

    The file appears under ``path`` when the block ends without an error, whole or not at all: frames go to a temporary
    file beside it. Times come from ``timestamps`` (seconds, one a frame, increasing), from ``fps``, or from each call
    of :meth:`write`; the file starts with the first frame, and frames nearer than one of its ticks are moved apart. A
    frame of odd width or height is extended by one column or row, a copy of its edge. ``crf``: 0 (exact) ... 51
    (worst).
    """

    def __init__(
        self,
        path: str | Path,
        height: int,
        width: int,
        *,
        timestamps: Sequence[float] | Float[np.ndarray, "T"] | None = None,
        fps: float | None = None,
        crf: int = 18,
    ) -> None:
        if height < 1 or width < 1:
            raise VideoError(f"Expected frames of at least 1 x 1 pixel, got {width} x {height} (width x height).")
        if fps is not None and not 0 < fps <= 1000:
            raise VideoError(f"Expected more than 0 and at most 1000 frames per second, got {fps}.")
        self.path = Path(path)
        self.frames = 0
        self._size = (height, width)
        self._fps = fps
        self._times = None if timestamps is None else _checked(timestamps)
        self._crf = crf
        self._origin = self._time = 0.0  # of the first and the last frame
        self._reformatter = VideoReformatter()  # keeps what FFmpeg sets up for the conversion
        self._ticks: list[int] = []
        self._temporary: Path | None = None

    def __enter__(self) -> "VideoWriter":
        if not self.path.parent.is_dir():
            raise VideoError(f"There is no folder {self.path.parent} to write {self.path.name} to.")
        self._temporary = self.path.with_name(f".{self.path.stem}.{secrets.token_hex(8)}.part")
        try:
            self._open()
        except BaseException:
            self._discard()
            raise
        return self

    def _open(self) -> None:
        self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
        stream = self._container.add_stream("libx264", rate=Fraction(self._fps or 25).limit_denominator(TICKS))
        height, width = self._size
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        # Without B-frames the packets are in the order of the frames: no edit list, and the first time is 0 for all.
        # A key frame every 30 frames keeps scrubbing quick.
        stream.options = {"crf": str(self._crf), "preset": "veryfast", "bf": "0", "g": "30"}
        coder = stream.codec_context
        coder.time_base = stream.time_base = Fraction(1, TICKS)
        coder.colorspace = coder.color_primaries = coder.color_trc = _BT709
        coder.color_range = ColorRange.MPEG
        coder.thread_count = 2
        self._stream = stream

    def write(self, frame: UInt8[np.ndarray, "H W 3"], time: float | None = None) -> None:
        """Append one RGB frame; ``time`` in seconds where neither ``timestamps`` nor ``fps`` was given."""
        height, width = self._size
        if frame.dtype != np.uint8 or frame.shape != (height, width, 3):
            raise VideoError(
                f"Expected frames of shape ({height}, {width}, 3) and type uint8, got {frame.shape} and {frame.dtype}."
            )
        self._ticks.append(self._next_tick(time))
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        picture.pts, picture.time_base = self._ticks[-1], Fraction(1, TICKS)
        self._mux(picture)
        self.frames += 1

    def _next_tick(self, time: float | None) -> int:
        if self._times is not None:
            if self.frames >= len(self._times):
                raise VideoError(f"Expected one frame for each of the {len(self._times)} timestamps, got one more.")
            time = float(self._times[self.frames])
        elif self._fps is not None:
            time = self.frames / self._fps
        elif time is None:
            raise VideoError("Expected the time of the frame: the video has neither timestamps nor fps.")
        if not self._ticks:
            self._origin = self._time = time
            return 0
        if time <= self._time:
            raise VideoError(f"Expected times that increase, got {time} s for a frame after the one at {self._time} s.")
        self._time = time
        return max(round((time - self._origin) * TICKS), self._ticks[-1] + 1)

    def _mux(self, picture: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            # The container works out all durations but the last from the times.
            packet.duration = self._last_interval()
            self._container.mux(packet)

    def _last_interval(self) -> int:
        if len(self._ticks) > 1:
            return self._ticks[-1] - self._ticks[-2]
        return round(TICKS / self._fps) if self._fps else round(TICKS * _LAST_RESORT_INTERVAL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if not self.frames:
            raise VideoError(f"No frame was written to {self.path.name}; expected at least one.")
        self._mux(None)
        self._container.close()
        assert self._temporary is not None
        self._temporary.replace(self.path)

    def _discard(self) -> None:
        """Close the temporary file and remove it where it still stands."""
        try:
            if container := getattr(self, "_container", None):
                container.close()
        finally:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)


def _checked(timestamps: Sequence[float] | Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    times = np.asarray(timestamps, dtype=np.float64)
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise VideoError("Expected timestamps as one list of increasing numbers of seconds.")
    return times
