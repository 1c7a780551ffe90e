"""Small videos of every kind, made once with PyAV."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest


def picture(index: int, height: int = 64, width: int = 80) -> np.ndarray:
    """A ramp with a red corner at the top left; ``index`` shows in the blue of the whole picture."""
    rows, columns = np.mgrid[:height, :width]
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    frame[..., 0] = columns * 120 // width
    frame[..., 1] = rows * 200 // height
    frame[..., 2] = 20 + index * 3 % 200
    frame[: height // 4, : width // 4] = (255, 0, 0)
    return frame


@dataclass(frozen=True)
class Recipe:
    """How to make one video."""

    suffix: str = "mp4"
    codec: str = "libx264"
    pixels: str = "yuv420p"
    frames: int = 12
    height: int = 64
    width: int = 80
    times: Sequence[int] | None = None
    """Milliseconds; None for ten frames a second."""
    rotation: int = 0
    """Degrees counter-clockwise."""
    mirrored: bool = False
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    transparent: bool = False
    """The right half."""


VARIABLE = (0, 40, 80, 500, 510, 520, 1000, 2000, 2010, 2500, 2600, 4000)
FRONT = {"movflags": "faststart"}
SHORT_GOP = {"g": "12"}

RECIPES = {
    "h264": Recipe(),
    "long": Recipe(frames=100, options={"g": "25", "bf": "3"}),
    "one": Recipe(frames=1),
    "odd": Recipe(pixels="yuv444p", height=47, width=63),
    "rotated 90": Recipe(rotation=90),
    "rotated 180": Recipe(rotation=180),
    "rotated 270": Recipe(rotation=270),
    "mirrored": Recipe(rotation=90, mirrored=True),
    "variable": Recipe(times=VARIABLE),
    "variable mkv": Recipe(suffix="mkv", times=VARIABLE),
    "hevc": Recipe(codec="libx265", options={"x265-params": "log-level=none"}),
    "hevc 10 bit": Recipe(codec="libx265", pixels="yuv420p10le", options={"x265-params": "log-level=none"}),
    "hevc open": Recipe(
        codec="libx265", frames=100, options={"x265-params": "log-level=none:keyint=20:min-keyint=20:open-gop=1"}
    ),
    "av1": Recipe(codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1"}),
    "vp9": Recipe(suffix="webm", codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}),
    "vp8": Recipe(suffix="webm", codec="libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "8"}),
    "avi": Recipe(suffix="avi", codec="mpeg4", frames=60, options={"g": "12", "b": "4000000"}),
    "avi h264": Recipe(suffix="avi", options={"bf": "2"}),
    "gif": Recipe(suffix="gif", codec="gif", pixels="rgb8"),
    "prores alpha": Recipe(suffix="mov", codec="prores_ks", pixels="yuva444p10le", transparent=True),
    "png alpha": Recipe(suffix="mov", codec="png", pixels="rgba", transparent=True),
    "qtrle alpha": Recipe(suffix="mov", codec="qtrle", pixels="argb", transparent=True),
    "vp9 alpha": Recipe(suffix="webm", codec="libvpx-vp9", pixels="yuva420p", transparent=True),
    "front": Recipe(frames=60, options={"g": "12", "crf": "10"}, container_options=FRONT),
    "back": Recipe(frames=60, options={"g": "12", "crf": "10"}),
    "mkv": Recipe(suffix="mkv", frames=60, options={"g": "12", "crf": "10"}),
    "fragments": Recipe(
        frames=60, options=SHORT_GOP, container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    "narrow": Recipe(width=48),
    "full hd": Recipe(frames=3, height=1080, width=1920, options={"preset": "ultrafast"}),
}


def encode(path: Path, recipe: Recipe) -> None:
    with av.open(str(path), "w", options=recipe.container_options) as container:
        stream = container.add_stream(recipe.codec, rate=10, options=recipe.options)
        stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, recipe.pixels
        if recipe.rotation or recipe.mirrored:
            stream.set_display_rotation(recipe.rotation, hflip=recipe.mirrored)
        if recipe.times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(recipe.frames):
            content = picture(index, recipe.height, recipe.width)
            if recipe.transparent:
                alpha = np.full((recipe.height, recipe.width, 1), 255, np.uint8)
                alpha[:, recipe.width // 2 :] = 0
                frame = av.VideoFrame.from_ndarray(np.concatenate([content, alpha], axis=2), format="rgba")
            else:
                frame = av.VideoFrame.from_ndarray(content, format="rgb24")
            if recipe.times is not None:
                frame.pts, frame.time_base = recipe.times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def leave_real_time() -> None:
    """As root, the AV1 encoder makes its caller a real-time process, which starves whatever shares the processor."""
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def encode_sound(path: Path, cover: bool) -> None:
    """A file with sound only, or with a picture on its cover."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        art = container.add_stream("mjpeg", rate=1) if cover else None
        if art is not None:
            art.width, art.height, art.pix_fmt = 64, 64, "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if art is not None:
            container.mux(art.encode(av.VideoFrame.from_ndarray(picture(0, 64, 64), format="rgb24")))
            container.mux(art.encode(None))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The video of a name in ``RECIPES``; do not write to it."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str) -> Path:
        path = folder / f"{name.replace(' ', '_')}.{RECIPES[name].suffix}"
        if not path.exists():
            encode(path, RECIPES[name])
            leave_real_time()
        return path

    return make


@pytest.fixture(scope="session")
def recipes() -> dict[str, Recipe]:
    return RECIPES


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    return picture


@pytest.fixture
def cut(clip: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """The first 60 % of the bytes of a video."""

    def make(name: str) -> Path:
        whole = clip(name)
        path = tmp_path / f"cut{whole.suffix}"
        content = whole.read_bytes()
        path.write_bytes(content[: len(content) * 6 // 10])
        return path

    return make


@pytest.fixture
def cut_out(clip: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A video without its first group of frames, copied as they are: the next frames may need what is gone."""

    def make(suffix: str) -> Path:
        path = tmp_path / f"cut_out.{suffix}"
        with av.open(str(clip("hevc open"))) as source, av.open(str(path), "w") as target:
            stream = source.streams.video[0]
            copied = target.add_stream_from_template(stream)
            groups = 0
            for packet in source.demux(stream):
                groups += packet.is_keyframe
                if packet.size and groups > 1:
                    packet.stream = copied
                    target.mux(packet)
        return path

    return make


@pytest.fixture
def holed(clip: Callable[[str], Path], tmp_path: Path) -> Path:
    """A video with all its frames listed and some of them overwritten with zeros."""
    content = bytearray(clip("front").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path = tmp_path / "holed.mp4"
    path.write_bytes(content)
    return path


@pytest.fixture
def not_videos(clip: Callable[[str], Path], tmp_path: Path) -> dict[str, Path]:
    """Files that must be refused, each named like a video."""
    front = clip("front").read_bytes()
    back = clip("back").read_bytes()
    other = str(clip("front")).encode()
    contents = {
        "empty": b"",
        "text": b"Dear sir or madam, please find attached my holiday video.",
        "junk": np.random.default_rng(0).bytes(5000),
        "junk behind a header": front[:32] + np.random.default_rng(1).bytes(5000),
        "index lost": back[: len(back) * 8 // 10],
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n" + other + b"\n#EXT-X-ENDLIST\n",
        "concat": b"ffconcat version 1.0\nfile '" + other + b"'\n",
        "concat without a header": b"file '" + other + b"'\n",
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "dash": b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>\n',
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = tmp_path / f"{name.replace(' ', '-')}.mp4"
        paths[name].write_bytes(content)
    paths["sound"] = tmp_path / "sound.mp4"
    encode_sound(paths["sound"], cover=False)
    paths["sound with a cover"] = tmp_path / "cover.mp4"
    encode_sound(paths["sound with a cover"], cover=True)
    return paths
