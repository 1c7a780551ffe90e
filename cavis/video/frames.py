"""From a decoded frame to the RGB picture a person sees: upright, opaque, 8 bit."""

import struct
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

_HDR_TRANSFERS = {16, 18}  # SMPTE 2084 (PQ) and ARIB STD-B67 (HLG) in ITU-T H.273


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether the frame has transparency."""
    return any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"


def is_hdr(frame: av.VideoFrame) -> bool:
    """Whether the frame is meant for a screen with a high dynamic range."""
    return getattr(frame, "color_trc", None) in _HDR_TRANSFERS


class Orientation:
    """How a stored picture is turned and mirrored to be shown, from the container's display matrix.

    The matrix maps a stored point (x, y) to (a x + c y, b x + d y). Cameras write quarter turns and mirrors; anything
    between is taken for the nearest of them.
    """

    def __init__(self, a: int = 1, b: int = 0, c: int = 0, d: int = 1) -> None:
        self.swaps_axes = abs(b) > abs(a)
        self._mirror_x = (c if self.swaps_axes else a) < 0
        self._mirror_y = (b if self.swaps_axes else d) < 0

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "Orientation":
        """The orientation a decoded frame carries."""
        side_data: Any = frame.side_data  # PyAV's types call its items names; they are the data
        for data in side_data:
            if data.type.name == "DISPLAYMATRIX":
                a, b, _, c, d = struct.unpack("=9i", bytes(data))[:5]
                return cls(a, b, c, d)
        return cls()

    @property
    def is_identity(self) -> bool:
        """Whether the picture is shown as it is stored."""
        return not (self.swaps_axes or self._mirror_x or self._mirror_y)

    @property
    def rotation(self) -> int:
        """Degrees clockwise: 0, 90, 180 or 270 (a mirrored picture reports the turn that follows the mirror)."""
        if self.swaps_axes:
            return 90 if self._mirror_x else 270
        return 180 if self._mirror_y else 0

    def apply(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Turn a stored picture upright; a contiguous copy unless nothing changes."""
        if self.swaps_axes:
            picture = picture.swapaxes(0, 1)
        if self._mirror_x:
            picture = picture[:, ::-1]
        if self._mirror_y:
            picture = picture[::-1]
        return np.ascontiguousarray(picture)


class Converter:
    """Converts the frames of one video to RGB; keeps the scaler FFmpeg sets up between frames.

    ``size``: (width, height) to scale the stored pictures to, before they are turned; None keeps their own.
    """

    def __init__(self, orientation: Orientation, size: tuple[int, int] | None = None) -> None:
        self._orientation = orientation
        self._size = size
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of ``frame``; transparent parts are laid on black, as players do."""
        width, height = self._size or (frame.width, frame.height)
        scaled = (width, height) != (frame.width, frame.height)
        transparent = has_alpha(frame)
        picture = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if transparent else "rgb24",
            interpolation=Interpolation.AREA if scaled else None,
        ).to_ndarray()
        return self._orientation.apply(on_black(picture) if transparent else picture)


def on_black(picture: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """Lay a transparent RGBA picture on black."""
    alpha = picture[..., 3:].astype(np.uint16)
    return ((picture[..., :3] * alpha + 127) // 255).astype(np.uint8)
