"""Folders of clips: one folder, many videos."""

from collections import Counter
from pathlib import Path

from cavis.video.containers import sniff
from cavis.video.info import VideoError
from cavis.video.sources import PICTURE_SUFFIXES


def clips_at(path: Path) -> dict[str, Path]:
    """The clips a path stands for, by names that differ, in the order of their files' names.

    A file or a folder of frames is one clip; a folder without pictures of its own stands for the video files and
    folders of frames in it. Other files are passed over, as are hidden ones. VideoError if nothing is left.
    """
    if not path.is_dir() or _holds_pictures(path):
        return {path.stem: path}
    clips = [one for one in sorted(path.iterdir()) if not one.name.startswith(".") and _is_clip(one)]
    if not clips:
        raise VideoError(f"The folder {path.name} contains neither pictures, nor videos, nor folders of pictures.")
    stems = Counter(clip.stem for clip in clips)
    return {clip.stem if stems[clip.stem] == 1 else clip.name: clip for clip in clips}


def _is_clip(path: Path) -> bool:
    if path.is_dir():
        return _holds_pictures(path)
    try:
        sniff(path)
    except VideoError:
        return False
    return True


def _holds_pictures(folder: Path) -> bool:
    return any(file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".") for file in folder.iterdir())
