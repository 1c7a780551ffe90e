"""What a file is, from its first bytes; its name proves nothing.

FFmpeg finds the format of a file by asking all of its readers, and some of them (playlists, lists of files, session
descriptions) open other files and addresses. So the format is decided here, and FFmpeg is told which reader to use.
"""

from dataclasses import dataclass
from pathlib import Path

from cavis.video.info import VideoError

HEAD_BYTES = 4096
VISITOR_CONTAINERS = ("mp4", "matroska", "avi")
"""What is accepted from strangers."""


@dataclass(frozen=True)
class Container:
    """A kind of video file."""

    name: str
    words: str
    """What people call it."""
    demuxer: str
    """FFmpeg's reader for it."""


CONTAINERS = {
    container.name: container
    for container in (
        Container("mp4", "MP4/MOV", "mov"),
        Container("matroska", "MKV/WebM", "matroska"),
        Container("avi", "AVI", "avi"),
        Container("gif", "GIF", "gif"),
        Container("mpegts", "MPEG transport stream", "mpegts"),
        Container("mpeg", "MPEG program stream", "mpeg"),
        Container("flv", "Flash video", "flv"),
        Container("asf", "Windows Media", "asf"),
        Container("ogg", "Ogg", "ogg"),
    )
}

_MP4_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_STILL_BRANDS = {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif"}
_VIDEO_MAGIC = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"GIF8", "gif"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"FLV\x01", "flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"OggS", "ogg"),
)
_OTHER_MAGIC = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"BM", "a BMP picture"),
    (b"ID3", "an MP3 audio file"),
    (b"\xff\xfb", "an MP3 audio file"),
    (b"fLaC", "a FLAC audio file"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a compressed archive"),
)
_PLAYLIST_STARTS = (
    "#extm3u",
    "#ext-x",
    "ffconcat",
    "v=0",
    "<mpd",
    "<smil",
    "<asx",
    "[playlist]",
    "[reference]",
    "file ",
)
_TEXT_BYTES = frozenset(range(32, 256)) | {9, 10, 12, 13}


def accepted_words(names: tuple[str, ...] = VISITOR_CONTAINERS) -> str:
    """The containers ``names`` as the end of a sentence: "MP4/MOV, MKV/WebM and AVI files"."""
    words = [CONTAINERS[name].words for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) + " files"


def sniff(path: Path, accepted: tuple[str, ...] = tuple(CONTAINERS)) -> Container:
    """Tell the container of a file from its first bytes.

    ``accepted`` are keys of ``CONTAINERS``. VideoError where the file cannot be opened, is empty, is not a video, is a
    list of other files, or is a video in another container.
    """
    head = _head(path)
    wanted = f"accepted are {accepted_words(accepted)}"
    if not head:
        raise VideoError(f"{path.name} is empty; {wanted}.")
    name = _video_name(head)
    if name is None:
        raise VideoError(f"{path.name} is {_what_else(head)}, not a video; {wanted}.")
    if name not in accepted:
        raise VideoError(f"{path.name} is a video in the {CONTAINERS[name].words} format; {wanted}.")
    return CONTAINERS[name]


def is_picture(path: Path) -> bool:
    """Whether a file starts like a JPEG, PNG or WebP picture."""
    head = _head(path)
    return head.startswith((b"\x89PNG", b"\xff\xd8\xff")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _head(path: Path) -> bytes:
    try:
        if not path.exists():
            raise VideoError(f"There is no file {path.name}.")
        if not path.is_file():  # a pipe or a device may never end
            raise VideoError(f"{path.name} is not a regular file; expected a video file.")
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise VideoError(f"{path.name} could not be opened: {error.strerror or error}.") from error


def _video_name(head: bytes) -> str | None:
    if head[4:8] in _MP4_BOXES:
        return None if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS else "mp4"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[0] == 0x47 and head[188:189] == b"\x47" and head[376:377] in (b"\x47", b""):
        return "mpegts"
    return next((name for magic, name in _VIDEO_MAGIC if head.startswith(magic)), None)


def _what_else(head: bytes) -> str:
    """A guess, in words, at what a file that is not a video is."""
    if head[4:8] == b"ftyp":
        return "a still picture (HEIC or AVIF)"
    if head[:4] == b"RIFF":
        return {b"WAVE": "a WAV audio file", b"WEBP": "a WebP picture"}.get(head[8:12], "an unknown kind of RIFF file")
    for magic, words in _OTHER_MAGIC:
        if head.startswith(magic):
            return words
    if not set(head.removeprefix(b"\xef\xbb\xbf")) <= _TEXT_BYTES:
        return "an unknown kind of file"
    text = head.removeprefix(b"\xef\xbb\xbf").decode("latin-1").lstrip().lower()
    is_playlist = text.startswith(_PLAYLIST_STARTS) or "<mpd" in text[:1000] or "\n#ext" in text[:1000]
    return "a playlist, a list of other files or addresses" if is_playlist else "a text file"
