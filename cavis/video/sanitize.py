"""Videos from strangers: looked at and re-encoded in a child process that may use only so much of everything.

What the child writes, a plain H.264 file of ours, is all that the rest of the program ever reads. Where the system
has no resource limits (Windows) the time limit remains.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cavis.video.containers import VISITOR_CONTAINERS, sniff
from cavis.video.info import VideoCancelledError, VideoError, VideoInfo
from cavis.video.sources import check_part

_POLL_SECONDS = 0.05
_KEPT_VARIABLES = ("PATH", "SYSTEMROOT", "TEMP", "TMP", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG")
_CHILD = "cavis.video.sanitize_child"


@dataclass(frozen=True)
class Limits:
    """How much one video may cost; every limit is checked on what is decoded, not on what the file says of itself."""

    bytes: int = 200_000_000
    """Size of the file."""
    frames: int = 1800
    """Frames in the chosen part, after the stride."""
    pixels: int = 4096 * 2304
    """Width x height of a stored frame."""
    seconds: float = 120.0
    """Time the work may take, not the length of the video."""
    cpu_seconds: int = 240
    """Computing time, summed over the processor's cores."""
    memory_bytes: int = 2 << 30
    """Address space of the child process."""
    output_bytes: int = 1_000_000_000
    """Size of any file the child writes."""
    containers: tuple[str, ...] = VISITOR_CONTAINERS
    """Accepted containers, by the names in :mod:`cavis.video.containers`."""


def probe(path: str | Path, limits: Limits = Limits(), cancel: threading.Event | None = None) -> VideoInfo:
    """Tell what a stranger's file contains, in a child process: its frames are counted and the first one is decoded.

    The number of frames is not limited here, so that a person can be shown how much to cut. VideoError where the file
    is refused, VideoCancelledError where ``cancel`` was set meanwhile.
    """
    path = _at_the_door(Path(path), limits)
    with tempfile.TemporaryDirectory(prefix="cavis-probe-", ignore_cleanup_errors=True) as folder:
        return _run({"task": "probe", "path": str(path)}, limits, Path(folder), cancel)


def sanitize(
    path: str | Path,
    out: str | Path,
    limits: Limits = Limits(),
    *,
    start: float = 0,
    end: float | None = None,
    stride: int = 1,
    max_short_side: int | None = None,
    cancel: threading.Event | None = None,
) -> VideoInfo:
    """Re-encode a stranger's file, or a part of it, as a clean H.264 MP4 at ``out``, in a child process.

    The result is upright, opaque (transparency on black), 8 bit, without sound, of even size (an odd edge is repeated),
    and each frame keeps its time, counted from the first kept one. ``start`` and ``end``: seconds, the end excluded;
    ``stride``: keep every so many frames; ``max_short_side``: shrink to at most so many pixels.

    Returns what ``out`` contains; ``lost_frames`` and ``notes`` tell what of the part could not be read. VideoError
    where the file is refused, VideoCancelledError where ``cancel`` was set; in both cases nothing is left behind.
    """
    check_part(start, end, stride)
    if max_short_side is not None and max_short_side < 2:
        raise VideoError(f"Expected a short side of at least 2 pixels, got {max_short_side}.")
    path, out = _at_the_door(Path(path), limits), Path(out).absolute()
    if not out.parent.is_dir():
        raise VideoError(f"There is no folder {out.parent} to write {out.name} to.")
    folder = Path(tempfile.mkdtemp(prefix=f".{out.stem}.", dir=out.parent))
    part = {"start": start, "end": end, "stride": stride, "max_short_side": max_short_side}
    try:
        clean = folder / "clean.mp4"
        task = {"task": "sanitize", "path": str(path), "out": str(clean), "part": part}
        info = _run(task, limits, folder, cancel)
        clean.replace(out)
        return info
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _at_the_door(path: Path, limits: Limits) -> Path:
    """What can be refused without decoding anything."""
    sniff(path, limits.containers)
    size = path.stat().st_size
    if size > limits.bytes:
        raise VideoError(f"{path.name} has {size / 1e6:.1f} MB; accepted are at most {limits.bytes / 1e6:.0f} MB.")
    return path.absolute()


def _run(task: dict[str, Any], limits: Limits, folder: Path, cancel: threading.Event | None) -> VideoInfo:
    """Let a child process do ``task`` within ``limits``; ``folder`` is where it works."""
    if cancel is not None and cancel.is_set():
        raise VideoCancelledError("The work on the video was stopped.")
    request = json.dumps({**task, "limits": asdict(limits)})
    log = folder / "log.txt"
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=_environment(),
            start_new_session=True,
        )
    try:
        answer = _wait(child, request.encode(), limits, cancel)
    finally:
        _end(child)
    return _understand(answer, child.returncode, limits, log)


def _environment() -> dict[str, str]:
    """The little a child needs to know; nobody's keys and tokens."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    root = str(Path(__file__).resolve().parents[2])
    # Threads of numerical libraries and pools of the allocator would reserve address space, which is limited.
    frugal = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return {**kept, **frugal, "PYTHONPATH": root, "PYTHONUTF8": "1"}


def _wait(child: subprocess.Popen[bytes], request: bytes, limits: Limits, cancel: threading.Event | None) -> bytes:
    deadline = time.monotonic() + limits.seconds
    sent: bytes | None = request
    while True:
        try:
            return child.communicate(sent, timeout=_POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            sent = None  # it is on its way
        if cancel is not None and cancel.is_set():
            raise VideoCancelledError("The work on the video was stopped.")
        if time.monotonic() > deadline:
            raise VideoError(
                f"Reading the video took longer than the {limits.seconds:g} s allowed; choose a shorter part of it, "
                "or send it in a smaller size."
            )


def _end(child: subprocess.Popen[bytes]) -> None:
    """Make sure that the child is gone, and take leave of it."""
    if child.poll() is None:
        child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    child.wait()


def _understand(answer: bytes, code: int, limits: Limits, log: Path) -> VideoInfo:
    """Turn what the child said, or how it died, into a description or a sentence."""
    try:
        report = json.loads(answer)
    except ValueError:
        report = {}
    if code == 0 and "info" in report:
        return VideoInfo(**report["info"])
    if "error" in report:
        raise VideoError(report["error"])
    if code in (-_signal("SIGXCPU"), -_signal("SIGALRM"), -_signal("SIGKILL")):
        sentence = (
            f"Reading the video took more than the {limits.cpu_seconds} s of computing time allowed; "
            "choose a shorter part of it, or send it in a smaller size."
        )
    elif code == -_signal("SIGXFSZ"):
        sentence = f"The re-encoded video is larger than {limits.output_bytes / 1e6:.0f} MB; choose a shorter part."
    else:
        sentence = "The video made its decoder fail and cannot be read; re-encode it as H.264 MP4 and send it again."
    error = VideoError(sentence)
    error.add_note(f"exit code {code}: {log.read_bytes()[-2000:].decode('utf-8', 'replace')}")
    raise error


def _signal(name: str) -> int:
    """The number of a signal; 0, which is no signal, where the system has none of that name."""
    return int(getattr(signal, name, 0)) or 1 << 16
