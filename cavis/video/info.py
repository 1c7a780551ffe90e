"""What is known about a video, and the one error that refuses it."""

from dataclasses import dataclass


class VideoError(ValueError):
    """A video was refused; the message is a sentence for the person who sent it."""


class UnreadableError(VideoError):
    """FFmpeg could make nothing of a file."""


class VideoCancelledError(VideoError):
    """The work on a video was stopped because somebody asked for it."""


@dataclass(frozen=True)
class VideoInfo:
    """One video, as it is shown: after its rotation, without the frames that cannot be read."""

    width: int
    height: int
    frames: int
    """Frames that can be read."""
    fps: float
    """Average number of frames in a second."""
    duration: float
    """Seconds, to the end of the last frame."""
    codec: str
    """FFmpeg's name: h264, hevc, av1, ..."""
    container: str
    """One of the names in :mod:`cavis.video.containers`: mp4, matroska, avi, ..."""
    rotation: int = 0
    """Degrees clockwise (0, 90, 180, 270) by which the stored frames are turned to be shown."""
    lost_frames: int = 0
    """Frames that should be there and cannot be read."""
    damaged_frames: int = 0
    """Frames that were read although the decoder had to guess parts of them."""
    has_alpha: bool = False
    """Whether the frames have transparency; they are shown on black."""
    high_dynamic_range: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person who looks at the result should know, in sentences."""
        sentences = []
        if self.lost_frames:
            sentences.append(lost_sentence(self.lost_frames, self.lost_frames + self.frames))
        if self.damaged_frames:
            sentences.append(f"{self.damaged_frames} of {self.frames} frames are damaged and may show errors.")
        if self.high_dynamic_range:
            sentences.append("The video has a high dynamic range, which was not kept: its colours look paler.")
        return tuple(sentences)


def lost_sentence(lost: int, total: int) -> str:
    """How many of ``total`` frames could not be read."""
    return f"{lost} of {total} frames could not be read and were left out."
