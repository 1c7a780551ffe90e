"""The one interface through which frames are read, and the sources that need no decoder."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from cavis.video.frames import on_black
from cavis.video.info import VideoError

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_EXIF_ORIENTATION = 0x0112
_EXIF_SWAPS_AXES = {5, 6, 7, 8}


class VideoSource(ABC):
    """Frames in order, each of one size, upright, RGB; a context manager.

    ``source[i]`` reads one frame, iterating reads them one after another; neither keeps a frame. Both ways give the
    same frames, unless the decoder had to guess at damaged ones. Asking for a frame outside 0 ... len - 1 is an
    IndexError; a frame that turns out to be unreadable is a VideoError.
    """

    height: int
    width: int
    timestamps: Float[np.ndarray, "T"]
    """Seconds from the start of the video, increasing; a part of a video keeps those of the whole."""
    lost_frames: int = 0
    """Frames that should be there and cannot be read."""
    notes: tuple[str, ...] = ()
    """What a person who looks at the result should know, in sentences."""

    def __len__(self) -> int:
        return len(self.timestamps)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        if not 0 <= index < len(self):
            raise IndexError(f"expected a frame between 0 and {len(self) - 1}, got {index}")
        return self._read(index)

    @abstractmethod
    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]: ...

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for index in range(len(self)):
            yield self._read(index)

    def close(self) -> None:  # noqa: B027 (most sources hold nothing open)
        """Release what is held open, whoever reads meanwhile; what needs it is a VideoError afterwards."""

    def __enter__(self) -> "VideoSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ArraySource(VideoSource):
    """Frames that are in memory already: T x H x W x 3, uint8, or a list of H x W x 3."""

    def __init__(self, frames: UInt8[np.ndarray, "T H W 3"] | Sequence[UInt8[np.ndarray, "H W 3"]], fps: float) -> None:
        if len(frames) == 0:
            raise VideoError("Expected at least one frame, got none.")
        for index, frame in enumerate(frames):
            _check_frame(frame)
            if frame.shape != frames[0].shape:
                raise VideoError(
                    f"Expected frames of one size, got {frames[0].shape} first and {frame.shape} at {index}."
                )
        self._frames = frames
        self.height, self.width = frames[0].shape[:2]
        self.timestamps = _regular(len(frames), fps)

    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._frames[index]


class PictureSource(VideoSource):
    """Pictures on disk as the frames of a video, in the given order, turned as their EXIF data says."""

    def __init__(self, files: Sequence[Path], fps: float) -> None:
        if not files:
            raise VideoError("Expected at least one picture, got none.")
        self._files = tuple(files)
        self.width, self.height = first = _picture_size(self._files[0])
        for file in self._files[1:]:
            if (size := _picture_size(file)) != first:
                raise VideoError(
                    f"Expected pictures of one size (width x height): {self._files[0].name} has "
                    f"{first[0]} x {first[1]}, {file.name} has {size[0]} x {size[1]}."
                )
        self.timestamps = _regular(len(self._files), fps)

    @classmethod
    def from_folder(cls, folder: Path, fps: float) -> "PictureSource":
        """The pictures in a folder, in natural order (2 before 10); other files are passed over."""
        files = [
            file
            for file in folder.iterdir()
            if file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".") and file.is_file()
        ]
        if not files:
            raise VideoError(f"The folder {folder.name} contains no pictures; expected JPEG, PNG, WebP, BMP or TIFF.")
        return cls(sorted(files, key=lambda file: _natural(file.name)), fps)

    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        file = self._files[index]
        try:
            with Image.open(file) as picture:
                frame = _to_rgb(ImageOps.exif_transpose(picture))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoError(f"The picture {file.name} cannot be read: {error}.") from error
        if frame.shape != (self.height, self.width, 3):
            raise VideoError(f"The picture {file.name} is not of the size its header told.")
        return frame


class TrimmedSource(VideoSource):
    """Some frames of another source, at the times they have there. Closing it closes the other."""

    def __init__(self, source: VideoSource, indices: Sequence[int]) -> None:
        self._source = source
        self._indices = indices
        self.height, self.width = source.height, source.width
        self.lost_frames, self.notes = source.lost_frames, source.notes
        self.timestamps = source.timestamps[np.asarray(indices)]

    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source[self._indices[index]]

    def close(self) -> None:
        """Close the source behind."""
        self._source.close()


def check_part(start: float, end: float | None, stride: int) -> None:
    """VideoError unless ``start``, ``end`` (seconds, None for the end) and ``stride`` describe a part of a video."""
    if not 0 <= start < float("inf"):
        raise VideoError(f"Expected a start of 0 or more seconds, got {start}.")
    if end is not None and not end > start:
        raise VideoError(f"Expected an end after the start at {start} s, got {end}.")
    if stride < 1 or stride != int(stride):
        raise VideoError(f"Expected a whole stride of 1 or more frames, got {stride}.")


def trim(source: VideoSource, start: float = 0, end: float | None = None, stride: int = 1) -> VideoSource:
    """A view of every ``stride``-th frame of ``source`` from ``start`` up to, not including, ``end``.

    Both in seconds as ``source.timestamps`` count, and as those of the view go on to count.
    """
    check_part(start, end, stride)
    times = source.timestamps
    # Times are sums of rounded steps: a frame at 2.9999999 s belongs to a part that starts at 3 s.
    inside = (times >= start - 1e-6) & (times < (np.inf if end is None else end - 1e-6))
    indices = np.flatnonzero(inside)[::stride].tolist()
    if not indices:
        until = "its end" if end is None else f"{end} s"
        raise VideoError(f"There is no frame between {start} s and {until}: the last one is at {times[-1]:.3f} s.")
    return TrimmedSource(source, indices)


def _check_frame(frame: object) -> None:
    if not isinstance(frame, np.ndarray):
        raise VideoError(f"Expected frames as uint8 arrays of shape (height, width, 3), got {type(frame).__name__}.")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise VideoError(
            f"Expected frames as uint8 arrays of shape (height, width, 3), got {frame.dtype} of shape {frame.shape}."
        )


def _regular(frames: int, fps: float) -> Float[np.ndarray, "T"]:
    if not 0 < fps < float("inf"):
        raise VideoError(f"Expected a number of frames per second above 0, got {fps}.")
    return np.arange(frames) / fps


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that compares digits as numbers."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part) for part in parts if part]


def _picture_size(file: Path) -> tuple[int, int]:
    """Width and height as shown, from the header alone."""
    try:
        with Image.open(file) as picture:
            width, height = picture.size
            # Asking a PNG for what its header does not have decodes all of it.
            exif = picture.getexif() if picture.format != "PNG" or "exif" in picture.info else {}
            swapped = exif.get(_EXIF_ORIENTATION) in _EXIF_SWAPS_AXES
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"The picture {file.name} cannot be read: {error}.") from error
    return (height, width) if swapped else (width, height)


def _to_rgb(picture: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.has_transparency_data:
        return on_black(np.asarray(picture.convert("RGBA")))
    return np.array(picture.convert("RGB"))
