"""What every annotated data set offers, and the parts that they share: videos, their frames on disk, targets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from cavis.data.faults import Fault
from cavis.records import Clip, Targets
from cavis.video import VideoError, VideoSource


class AnnotatedVideos(Protocol):
    """Annotated videos, or images that are taken for videos of one frame.

    ``frames`` of :meth:`clip` may repeat and come in any order: ``[0, 0, 0]`` makes a pseudo-clip of an image.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Category names by label; things come before stuff."""
        ...

    @property
    def left_out(self) -> tuple[Fault, ...]:
        """What was left out when it was opened with ``skip_faulty``."""
        ...

    def __len__(self) -> int:
        """How many videos or images there are."""
        ...

    def length(self, index: int) -> int:
        """How many frames a video has; 1 for an image."""
        ...

    def objects(self, index: int) -> int:
        """How many objects are annotated in a video, crowds not counted."""
        ...

    def clip(self, index: int, frames: Sequence[int]) -> Clip:
        """Some frames with the objects seen in any of them, crowds left out; only these are read and decoded."""
        ...

    def source(self, index: int) -> VideoSource:
        """All frames, one at a time, for a predictor."""
        ...


@dataclass(frozen=True)
class Frames:
    """The frames of one video."""

    id: int | str
    name: str
    """The folder of its frames."""
    file_names: tuple[str, ...] = field(repr=False)
    """One a frame, relative to the folder of images."""
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.file_names)


class FrameFiles(VideoSource):
    """The frames of one annotated video, read from their image files one at a time; a source for a predictor."""

    def __init__(self, folder: Path, video: Frames, fps: float = 10.0) -> None:
        self.video = video
        self.height = video.height
        self.width = video.width
        self.timestamps: Float[np.ndarray, "T"] = np.arange(len(video)) / fps
        self._folder = folder

    def _read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        path = self._folder / self.video.file_names[index]
        return np.asarray(read_picture(path, "RGB", self.video, index))


def read_picture(path: Path, mode: str, video: Frames, frame: int) -> Image.Image:
    """Read a picture that belongs to a frame; a VideoError if it is missing, broken or of another size.

    ``mode`` is one of Pillow's, or empty for the picture as it is.
    """
    where = f"frame {frame} of video {video.id} ({path})"
    try:
        with Image.open(path) as image:
            picture = image.convert(mode) if mode else image.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "not a readable image"
        raise VideoError(f"{where}: {reason}") from error
    if picture.size != (video.width, video.height):
        expected, got = f"{video.height} x {video.width}", f"{picture.height} x {picture.width}"
        raise VideoError(f"{where}: expected {expected} pixels, got {got}")
    return picture


def stack_frames(source: VideoSource, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
    """Some frames of a source, in the order given; a frame that is asked for again is not read again."""
    read = {index: source[index] for index in dict.fromkeys(indices)}
    return np.stack([read[index] for index in indices])


def make_clip(
    frames: UInt8[np.ndarray, "T H W 3"],
    labels: Sequence[int],
    ids: Sequence[int],
    masks: Bool[np.ndarray, "N T H W"],
    present: Bool[np.ndarray, "N T"],
) -> Clip:
    """Put frames and objects together."""
    targets = Targets(
        labels=torch.tensor(labels, dtype=torch.int64),
        ids=torch.tensor(ids, dtype=torch.int64),
        masks=torch.from_numpy(masks),
        present=torch.from_numpy(present),
    )
    return Clip(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(), targets)


def picture_faults(folder: Path, names: Sequence[str], height: int, width: int) -> Iterator[str]:
    """What is wrong with the pictures of a video, from their headers: missing, unreadable, of another size.

    One sentence for each kind, with the first picture concerned and how many there are.
    """
    wrong: dict[str, list[str]] = {}
    for name in names:
        kind, got = _picture_fault(folder / name, height, width)
        if kind:
            wrong.setdefault(kind, []).append(f"{name}{got}")
    for kind, found in wrong.items():
        many = "" if len(found) == 1 else f" ({len(found)} of {len(names)} are wrong in this way)"
        yield f"expected {kind}, got {found[0]}{many}"


def _picture_fault(path: Path, height: int, width: int) -> tuple[str, str]:
    try:
        with Image.open(path) as image:
            got = image.size
    except FileNotFoundError:
        return "every frame on disk", ", which does not exist"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "frames that can be read", ", which is not a readable image"
    if got != (width, height):
        return f"frames of {height} x {width} pixels, as declared", f" of {got[1]} x {got[0]}"
    return "", ""


def find_folder(candidates: Sequence[Path], names: Sequence[Sequence[str]]) -> Path | None:
    """The first folder that has frames of a video: its first or last one, of one of the first 64 videos."""
    for files in names[:64]:
        for name in (files[0], files[-1]):
            for folder in candidates:
                if _exists(folder / name):
                    return folder
    return None


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
