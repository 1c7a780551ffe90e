"""Videos in and out.

:func:`open_video` reads what is trusted, :class:`VideoWriter` writes what browsers play, :func:`probe` and
:func:`sanitize` take what strangers send. Whatever is refused is refused with a :class:`VideoError`.
"""

from cavis.video.folders import clips_at
from cavis.video.info import VideoCancelledError, VideoError, VideoInfo
from cavis.video.reader import open_video
from cavis.video.sanitize import Limits, probe, sanitize
from cavis.video.sources import VideoSource, trim
from cavis.video.writer import VideoWriter

__all__ = [
    "Limits",
    "VideoCancelledError",
    "VideoError",
    "VideoInfo",
    "VideoSource",
    "VideoWriter",
    "clips_at",
    "open_video",
    "probe",
    "sanitize",
    "trim",
]
