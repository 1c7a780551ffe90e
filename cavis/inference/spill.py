"""What the first pass leaves for the second, kept on disk, so that memory does not grow with the video."""

import shutil
import tempfile
from types import TracebackType

import numpy as np
from jaxtyping import Float

DISK_BUDGET = 20 * 2**30
"""Bytes; a longer video is refused before the disk is full."""


class SpillError(RuntimeError):
    """No room for the video's masks."""


class Spill:
    """Frames of mask logits (fp16) and slot features (fp32) in an unnamed temporary file, gone when closed."""

    def __init__(self, budget: int = DISK_BUDGET) -> None:
        self._file = tempfile.TemporaryFile(prefix="cavis-")  # noqa: SIM115 - closed by __exit__
        self._budget = budget
        self._mask_shape: tuple[int, ...] = ()
        self._feature_shape: tuple[int, ...] = ()
        self.frames = 0

    def write(self, masks: Float[np.ndarray, "Q h w"], features: Float[np.ndarray, "Q D"]) -> None:
        """Append one frame. A SpillError says so if the budget or the disk is exhausted."""
        self._mask_shape, self._feature_shape = masks.shape, features.shape
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if (self.frames + 1) * self._stride > self._budget or free < 2 * self._stride:
            raise SpillError(
                f"the masks of {self.frames} frames fill {self.frames * self._stride / 2**30:.1f} GiB of temporary "
                f"disk space and there is no room for more; expected a shorter clip or a smaller frame size"
            )
        self._file.write(masks.astype(np.float16).tobytes())
        self._file.write(features.astype(np.float32).tobytes())
        self.frames += 1

    def masks(self, t: int, slots: list[int]) -> Float[np.ndarray, "N h w"]:
        """The mask logits of some slots in frame ``t``."""
        return self._read(t * self._stride, np.float16, self._mask_shape)[slots].astype(np.float32)

    def features(self, t: int, slots: list[int]) -> Float[np.ndarray, "N D"]:
        """The features of some slots in frame ``t``."""
        return self._read(t * self._stride + self._mask_bytes, np.float32, self._feature_shape)[slots]

    @property
    def _mask_bytes(self) -> int:
        return 2 * int(np.prod(self._mask_shape))

    @property
    def _stride(self) -> int:
        return self._mask_bytes + 4 * int(np.prod(self._feature_shape))

    def _read(self, offset: int, dtype: type[np.floating], shape: tuple[int, ...]) -> np.ndarray:
        self._file.seek(offset)
        data = self._file.read(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.frombuffer(data, dtype=dtype).reshape(shape)

    def __enter__(self) -> "Spill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
