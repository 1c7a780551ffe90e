"""Reading trusted videos: decord where it is exact, PyAV for everything else, the same frames from both.

decord (its FFmpeg dates from 2021) is used where its frames were found to be those of PyAV, bit by bit: H.264, HEVC and
VP9 of 8 bits, stored upright, undamaged, in closed groups (no picture needs what is before its group's key frame). It
has no AV1, breaks quarter turns, drops transparency, converts 10-bit colours in a way of its own, and finds wrong
frames in open groups. Its first frame is compared in every file.

A stranger's file is never opened here: see :mod:`cavis.video.sanitize`.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from cavis.video.containers import Container, is_picture, sniff
from cavis.video.frames import Converter, Orientation
from cavis.video.info import VideoError, VideoInfo
from cavis.video.scan import Scan, strictly_increasing
from cavis.video.sources import ArraySource, PictureSource, VideoSource
from cavis.video.stream import VideoFile

_DECORD_CONTAINERS = {"mp4", "matroska"}
_DECORD_CODECS = {"h264", "hevc", "vp9"}
_DECORD_FORMATS = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
_ONE_FRAME_A_PACKET = {"h264", "hevc", "av1", "vp9", "prores", "mjpeg", "png", "qtrle", "ffv1"}
_NEAR = 48
"""Frames ahead that are decoded rather than jumped over."""


def open_video(source: str | Path | np.ndarray | Sequence[np.ndarray], fps: float = 10.0) -> VideoSource:
    """Open a trusted video: a file, a folder of pictures, one picture, an array T x H x W x 3 or a list of frames.

    ``fps`` gives pictures and arrays their times; files have their own. VideoError where it cannot be read.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            return PictureSource.from_folder(path, fps)
        if path.is_file() and is_picture(path):
            return PictureSource([path], fps)
        return _open_file(path)
    if not isinstance(source, np.ndarray | Sequence):
        raise VideoError(f"Expected a path, an array or a list of frames, got {type(source).__name__}.")
    if isinstance(source, np.ndarray) and source.ndim != 4:
        raise VideoError(f"Expected an array of shape (frames, height, width, 3), got {source.shape}.")
    return ArraySource(source, fps)


def _open_file(path: Path) -> VideoSource:
    container = sniff(path)
    with VideoFile(path, container) as file:
        scan = file.scan()
        frame = file.first_frame()
        info = file.info(scan)
    if _suits_decord(frame, info, scan) and (reader := _decord_reader(path, frame, len(scan.ticks))) is not None:
        return DecordSource(reader, path.name, info, scan)
    # A file cut out of a longer one may begin with pictures that need what was cut off.
    starts_well = frame.pts == scan.ticks[0] if scan.ticks else False
    return PyavSource(path, container, info, scan, starts_well)


def _suits_decord(frame: av.VideoFrame, info: VideoInfo, scan: Scan) -> bool:
    return (
        info.container in _DECORD_CONTAINERS
        and info.codec in _DECORD_CODECS
        and frame.format.name in _DECORD_FORMATS
        and Orientation.of(frame).is_identity
        and scan.exact
        and scan.closed
        and not scan.missing
    )


@cache
def _decord() -> ModuleType | None:
    """The decord module, or None where there is none for this computer."""
    try:
        import decord
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decord_reader(path: Path, first: av.VideoFrame, frames: int) -> Any | None:
    """Decord's reader where it counts ``frames`` frames in the file, too, and sees the same ``first`` one."""
    decord = _decord()
    if decord is None:
        return None
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=min(2, os.cpu_count() or 1))
        # Some widths below 80 pixels come out of decord with the padding of the lines among the pixels.
        same = len(reader) == frames and np.array_equal(reader[0].asnumpy(), Converter(Orientation())(first))
    except _decord_errors():
        return None
    return reader if same else None


def _decord_errors() -> tuple[type[Exception], ...]:
    decord = _decord()
    return (RuntimeError, IndexError) if decord is None else (RuntimeError, IndexError, decord.DECORDError)


class FileSource(VideoSource):
    """What both readers of files share."""

    def __init__(self, name: str, info: VideoInfo, scan: Scan) -> None:
        self.info = info
        self.height, self.width = info.height, info.width
        self.timestamps = scan.times
        self.lost_frames, self.notes = info.lost_frames, info.notes
        self._name = name
        self._lock = threading.Lock()
        """Held while the decoder works, and to let go of it: a decoder that loses its file ends the whole program."""
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise VideoError(f"{self._name} was closed.")

    def close(self) -> None:
        """Let go of the file once a read that is under way has ended; afterwards every read is a VideoError."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        """Release what is held open."""

    def _damaged(self, index: int) -> VideoError:
        return VideoError(
            f"Frame {index} of {self._name} cannot be read: the file is damaged there. "
            f"Re-encoding it (cavis.video.sanitize) leaves such frames out."
        )


class DecordSource(FileSource):
    """Frames through decord."""

    def __init__(self, reader: Any, name: str, info: VideoInfo, scan: Scan) -> None:
        super().__init__(name, info, scan)
        self._reader: Any = reader

    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        with self._lock:
            self._check_open()
            try:
                return self._reader[index].asnumpy()
            except _decord_errors() as error:
                raise self._damaged(index) from error

    def _let_go(self) -> None:
        self._reader = None


class PyavSource(FileSource):
    """Frames through PyAV; in a damaged file the readable ones, found by decoding it once."""

    def __init__(self, path: Path, container: Container, info: VideoInfo, scan: Scan, starts_well: bool) -> None:
        super().__init__(path.name, info, scan)
        self._path, self._container = path, container
        self._scan = scan
        self._seekable = scan.exact and not scan.missing and info.codec in _ONE_FRAME_A_PACKET and starts_well
        if not self._seekable:
            self._count_by_decoding(scan)
        self._index_of = {tick: index for index, tick in enumerate(scan.ticks)} if self._seekable else {}
        self._cursor: VideoFile | None = None
        self._upcoming: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._next = 0
        self._convert: Converter | None = None

    def _count_by_decoding(self, scan: Scan) -> None:
        """Find out which frames can be read, in a file that does not tell."""
        with VideoFile(self._path, self._container) as file:
            ticks = [frame.pts for frame in self._counted(file)]
            damaged = scan.missing > 0 or file.errors > 0
        readable, expected = len(ticks), len(scan.ticks)
        if not readable:
            raise VideoError(f"No frame of {self._name} can be read: it is damaged or not complete.")
        if scan.exact and all(tick is not None for tick in ticks):
            times = np.array(ticks, dtype=np.float64) * scan.time_base
        elif readable == expected:
            times = np.array(scan.ticks, dtype=np.float64) * scan.time_base
        else:
            times = np.arange(readable) * scan.interval
        self.timestamps = strictly_increasing(times, scan.time_base)
        lost = max(0, expected + scan.missing - readable) if damaged else 0
        self.info = replace(self.info, frames=readable, lost_frames=lost)
        self.lost_frames, self.notes = lost, self.info.notes

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Decode the file once, on its own, whatever else is read meanwhile."""
        self._check_open()
        with VideoFile(self._path, self._container) as file:
            convert: Converter | None = None
            expected = 0
            for index, frame in self._numbered(file):
                if index != expected:
                    break
                convert = convert or self._converter(frame)
                self._check_open()
                yield convert(frame)
                expected += 1
        if expected < len(self):
            raise self._damaged(expected)

    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        with self._lock:
            self._check_open()
            reach = _NEAR if self._seekable else len(self)
            if not self._next <= index < self._next + reach or self._cursor is None:
                self._go_to(index)
            for number, frame in self._upcoming:
                if number == index:
                    self._next = index + 1
                    self._convert = self._convert or self._converter(frame)
                    return self._convert(frame)
                if number > index:
                    break
            self._next = len(self)  # wherever the decoder is now, it is not in front of a known frame
            raise self._damaged(index)

    def _converter(self, frame: av.VideoFrame) -> Converter:
        orientation = Orientation.of(frame)
        size = (self.height, self.width) if orientation.swaps_axes else (self.width, self.height)
        return Converter(orientation, size)

    def _go_to(self, index: int) -> None:
        """Place the decoder at a key frame at or before ``index``."""
        self._cursor = self._cursor or VideoFile(self._path, self._container)
        # A container may jump to a key frame that is shown a little after the wanted one: step back, then start over.
        for target in (index, index - _NEAR) if self._seekable else ():
            if target <= 0:
                break
            self._cursor.seek(self._scan.ticks[target])
            numbered = self._numbered(self._cursor)
            if (first := next(numbered, None)) is not None and first[0] <= index:
                self._upcoming = _with_first(first, numbered)
                return
        self._cursor.rewind()
        self._upcoming = self._numbered(self._cursor)

    def _numbered(self, file: VideoFile) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decoded frames with their numbers: by their time where it is exact, otherwise counted from the start."""
        if not self._seekable:
            yield from enumerate(self._counted(file))
            return
        for frame in file.frames():
            index = None if frame.pts is None else self._index_of.get(frame.pts)
            if index is not None:
                yield index, frame

    def _counted(self, file: VideoFile) -> Iterator[av.VideoFrame]:
        """All frames of a file whose times do not number them.

        Where times are exact, a decoder that puts out another frame at the same time is making up for a lost one.
        """
        previous = None
        for frame in file.frames():
            if not (self._scan.exact and previous is not None and frame.pts is not None and frame.pts <= previous):
                previous = frame.pts
                yield frame

    def _let_go(self) -> None:
        self._upcoming = iter(())
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None


def _with_first(
    first: tuple[int, av.VideoFrame], others: Iterator[tuple[int, av.VideoFrame]]
) -> Iterator[tuple[int, av.VideoFrame]]:
    yield first
    yield from others
