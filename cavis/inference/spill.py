"""What the first pass leaves for the second, kept on disk, so that memory does not grow with the video."""

import shutil
import tempfile
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Float, Shaped

DISK_BUDGET = 20 * 2**30
"""Bytes; a longer video is refused before the disk is full."""


class SpillError(RuntimeError):
    """No room for what has to be kept of the video."""


class FrameFile:
    """The same few arrays of every frame, in an unnamed temporary file that is gone when closed.

    ``what`` names them in the plural, for whoever has no room for them.
    """

    def __init__(self, what: str, budget: int | None = None) -> None:
        self._file = tempfile.TemporaryFile(prefix="cavis-")  # noqa: SIM115 - closed by __exit__
        self._what = what
        self._budget = DISK_BUDGET if budget is None else budget
        self._parts: list[tuple[np.dtype, tuple[int, ...]]] = []
        self._offsets: list[int] = [0]
        self._frames = 0

    @property
    def frames(self) -> int:
        """How many frames are kept."""
        return self._frames

    def append(self, *arrays: Shaped[np.ndarray, "..."]) -> None:
        """Keep one frame; kinds and shapes are those of the first one.

        A SpillError says so if the budget or the disk is exhausted; the frames before stay readable.
        """
        if not self._parts:
            self._parts = [(array.dtype, array.shape) for array in arrays]
            self._offsets = [0, *np.cumsum([array.nbytes for array in arrays]).tolist()]
        self._check_room()
        self._file.seek(self._frames * self._stride)
        for array in arrays:
            self._file.write(np.ascontiguousarray(array).data)
        self._frames += 1

    def read(self, t: int, part: int) -> Shaped[np.ndarray, "..."]:
        """One array of frame ``t``, as it was given."""
        dtype, shape = self._parts[part]
        array = np.empty(shape, dtype)
        self._file.seek(t * self._stride + self._offsets[part])
        self._file.readinto(array.data)
        return array

    @property
    def _stride(self) -> int:
        return self._offsets[-1]

    def _check_room(self) -> None:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if (self._frames + 1) * self._stride > self._budget or free < 2 * self._stride:
            raise SpillError(
                f"the {self._what} of {self._frames} frames fill {self._frames * self._stride / 2**30:.1f} GiB of "
                f"temporary disk space and there is no room for more; expected a shorter clip or a smaller frame size"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Spill(FrameFile):
    """Frames of mask logits (fp16) and slot features (fp32)."""

    def __init__(self, budget: int | None = None) -> None:
        super().__init__("masks", budget)

    def write(self, masks: Float[np.ndarray, "Q h w"], features: Float[np.ndarray, "Q D"]) -> None:
        """Append one frame."""
        self.append(masks.astype(np.float16), features.astype(np.float32))

    def masks(self, t: int, slots: list[int]) -> Float[np.ndarray, "N h w"]:
        """The mask logits of some slots in frame ``t``."""
        return self.read(t, 0)[slots].astype(np.float32)

    def features(self, t: int, slots: list[int]) -> Float[np.ndarray, "N D"]:
        """The features of some slots in frame ``t``."""
        return self.read(t, 1)[slots]


class FeatureSpill(FrameFile):
    """Frames of mask features (fp32), which any slot's masks can be made of, and slot features (fp32)."""

    def __init__(self, budget: int | None = None) -> None:
        super().__init__("mask features", budget)

    def write(self, mask_features: Float[np.ndarray, "C h w"], features: Float[np.ndarray, "Q D"]) -> None:
        """Append one frame."""
        self.append(mask_features.astype(np.float32), features.astype(np.float32))

    def mask_features(self, t: int) -> Float[np.ndarray, "C h w"]:
        """The mask features of frame ``t``."""
        return self.read(t, 0)

    def features(self, t: int, slots: list[int]) -> Float[np.ndarray, "N D"]:
        """The features of some slots in frame ``t``."""
        return self.read(t, 1)[slots]
