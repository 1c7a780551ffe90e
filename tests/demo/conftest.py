"""A page with the smallest model, clips to send to it, and a browser to look at it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from foreign_weights import released_file
from nano import nano_config, nano_model
from weight_server import Behaviour, serving

from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.config import InferenceConfig
from cavis.demo.jobs import Job, JobStore
from cavis.demo.limits import DemoLimits
from cavis.demo.models import Models
from cavis.demo.tracking import Tracker, Watcher
from cavis.video import VideoWriter, probe

ROOT = Path(__file__).parents[2]
FRAMES, HEIGHT, WIDTH, FPS = 20, 64, 96, 10


def write_clip(path: Path, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH, fps: float = FPS) -> Path:
    """Two squares that drift over a ramp."""
    rows, columns = np.mgrid[:height, :width]
    with VideoWriter(path, height, width, fps=fps) as writer:
        for t in range(frames):
            frame = np.stack([rows * 90 // height, columns * 90 // width, 0 * rows + 60], axis=2).astype(np.uint8)
            for top, left, colour in ((8, 4 + t, (220, 30, 30)), (30, 60 - t, (30, 220, 30))):
                frame[top : top + 18, max(0, left) : max(0, left) + 18] = colour
            writer.write(frame)
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames, 96 x 64, 10 frames a second; do not write to it."""
    return write_clip(tmp_path_factory.mktemp("clips") / "squares.mp4")


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[[int, int, int], Path]:
    """A clip of so many frames, height and width."""
    return lambda frames, height, width: write_clip(tmp_path / "made.mp4", frames, height, width)


@pytest.fixture(scope="session")
def ready() -> ReadyModel:
    about = ModelFile("nano", "tiny", nano_config(), "tracker", "")
    inference = InferenceConfig(short_side=HEIGHT, max_side=WIDTH, top_k=6, window=2)
    return ReadyModel(nano_model(), about, inference, "I have seen nothing.")


@pytest.fixture
def limits() -> DemoLimits:
    return DemoLimits(frames=15, short_side=48, jobs=3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where published models are kept: nothing at first."""
    monkeypatch.setenv("CAVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tracker(ready: ReadyModel, limits: DemoLimits) -> Tracker:
    return Tracker(Models(ready), limits)


@pytest.fixture
def store(tmp_path: Path, limits: DemoLimits) -> JobStore:
    return JobStore(tmp_path / "jobs", limits)


@pytest.fixture
def uploaded(store: JobStore, clip: Path) -> Callable[[], Job]:
    """A job that holds the clip."""

    def make() -> Job:
        job = store.open(None)
        job.take(clip)
        job.info = probe(job.upload)
        return job

    return make


BAD_FILES = {
    "empty": b"",
    "text": b"Dear sir or madam, please find attached my holiday video.",
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "junk behind a header": b"\x00\x00\x00\x20ftypisom" + np.random.default_rng(0).bytes(5000),
}


@pytest.fixture(params=BAD_FILES)
def bad_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Something named like a video that is none."""
    path = tmp_path / "holiday.mp4"
    path.write_bytes(BAD_FILES[request.param])
    return path


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def served(folder: Path, *command: str) -> Iterator[str]:
    """Where a program serves the page; its files are in ``folder``."""
    port = _free_port()
    log = (folder / "log.txt").open("w")
    server = subprocess.Popen(
        [sys.executable, *command, "--port", str(port), "--device", "cpu"],
        cwd=ROOT,
        env={
            **os.environ,
            "GRADIO_TEMP_DIR": str(folder / "gradio"),
            "TMPDIR": str(folder),
            "CAVIS_CACHE": str(folder / "cache"),
        },
        stdout=log,
        stderr=log,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 120
        while not _answers(url):
            assert server.poll() is None, (folder / "log.txt").read_text()
            assert time.monotonic() < deadline, "the page was not served within two minutes"
            time.sleep(0.3)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
        finally:
            log.close()
    assert not list((folder / "gradio" / "cavis-jobs").iterdir()), "the visitors' files outlive the program"


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where ``python app.py`` serves the page with its default model."""
    with served(tmp_path_factory.mktemp("served"), str(ROOT / "app.py")) as url:
        yield url


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same page where two small models are published; of one the server cannot be reached."""
    behaviour = Behaviour(released_file(seed=4))
    program = str(ROOT / "tests" / "published.py")
    with serving(behaviour) as source, served(tmp_path_factory.mktemp("shop"), program, source) as url:
        yield url


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def report_once_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that waits until somebody stops it: the clips are short, it would often end before."""
    report = Watcher.report

    def wait_and_report(watcher: Watcher, *done) -> None:
        assert watcher.stop.wait(30)
        report(watcher, *done)

    monkeypatch.setattr(Watcher, "report", wait_and_report)
