"""Folders of clips: one folder, many videos."""

from collections import Counter
from pathlib import Path

from cavis.video.containers import sniff
from cavis.video.info import VideoError
from cavis.video.sources import PICTURE_SUFFIXES


def clips_at(path: Path) -> dict[str, Path]:
    """The clips a path stands for, by names that differ, in the order of their files' names.

    A file or a folder of frames is one clip; a folder without pictures of its own stands for the video files and
    folders of frames in it. Other files are passed over, as are hidden ones. VideoError if nothing is left, and for
    pictures and videos side by side in one folder.
    """
    if not path.is_dir() or _holds_frames(path):
        return {path.stem: path}
    clips = [one for one in sorted(path.iterdir()) if not one.name.startswith(".") and _is_clip(one)]
    if not clips:
        raise VideoError(f"The folder {path.name} contains neither pictures, nor videos, nor folders of pictures.")
    wishes = Counter(wish for clip in clips for wish in {clip.stem, clip.name})
    return {clip.stem if wishes[clip.stem] == 1 else clip.name: clip for clip in clips}


def _is_clip(path: Path) -> bool:
    return _holds_frames(path) if path.is_dir() else _is_video(path)


def _is_video(path: Path) -> bool:
    try:
        sniff(path)
    except VideoError:
        return False
    return True


def _holds_frames(folder: Path) -> bool:
    """Whether a folder has pictures of its own; VideoError if it has videos, too, which they would hide."""
    pictures, others = [], []
    for file in sorted(folder.iterdir()):
        if not file.name.startswith("."):
            (pictures if file.suffix.lower() in PICTURE_SUFFIXES else others).append(file)
    video = next((file for file in others if _is_video(file)), None) if pictures else None
    if video is not None:
        raise VideoError(
            f"The folder {folder.name} holds pictures ({pictures[0].name}) and videos ({video.name}); "
            "expected the frames of one clip, or clips."
        )
    return bool(pictures)
