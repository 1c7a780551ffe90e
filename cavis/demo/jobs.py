"""What is kept of each visitor: one clip and its result, in a private folder, for a limited time."""

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cavis.demo.limits import DemoLimits
from cavis.records import VideoResult
from cavis.video import VideoInfo, VideoSource, open_video

log = logging.getLogger(__name__)

UPLOAD = "your file"
"""So that a sentence about it reads well: "your file is a text file, not a video"."""
_GONE = "This clip is not kept any more; please choose it again."
_KEPT = 3
"""Folders of a kind: the one whose address the page shows, and two more on their way to it."""


class GoneError(LookupError):
    """The job is not kept any more; the message is a sentence for the visitor."""


class Job:
    """One clip of one visitor; ``folder`` holds its files and nothing else does."""

    def __init__(self, key: str, session: str | None, folder: Path) -> None:
        self.key, self.session, self.folder = key, session, folder
        self.upload = folder / UPLOAD
        """What the visitor sent; read by :mod:`cavis.video.sanitize` only."""
        self.clip = folder / "clip.mp4"
        """The clean part of it that is tracked."""
        self.info: VideoInfo | None = None
        """About the upload."""
        self.example = ""
        """The title of the shipped clip it is; empty for an upload."""
        self.model = ""
        """The name of the model to track with; empty for the first one."""
        self.video: Path | None = None
        """The clip with the tracks drawn on it."""
        self.result: VideoResult | None = None
        self.stop = threading.Event()
        """Set to end all work on this job for good: it is not kept any more."""
        self.used = time.monotonic()
        self.waiting = False
        """Whether the visitor waits in line with it."""
        self.thumbnails: dict[int, str] = {}
        """Pictures of the tracks, by id, as data addresses."""
        self._source: VideoSource | None = None
        self._stops: set[threading.Event] = set()
        self._finished: dict[str, list[Path]] = {}
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether somebody watches work that is done on it."""
        return bool(self._stops)

    def take(self, file: Path) -> None:
        """Keep a file under a name of ours, without copying where the file system can."""
        try:
            os.link(file, self.upload)
        except OSError:
            shutil.copyfile(file, self.upload)

    def source(self) -> VideoSource:
        """The clean clip, opened once and kept open; a GoneError once the job is closed."""
        with self._lock:
            self._check_kept()
            if self._source is None:
                self._source = open_video(self.clip)
            return self._source

    def fresh(self, kind: str) -> Path:
        """A new folder for files of a kind: under an address of its own a browser does not take them for the old."""
        with self.writing(kind) as folder:
            return folder

    @contextmanager
    def writing(self, kind: str) -> Iterator[Path]:
        """The same, to be written into here: gone if that fails; once it is finished, the oldest of its kind goes.

        Several may be written at a time; each is there when it is finished.
        """
        self._check_kept()
        folder = self.folder / f"{kind}-{secrets.token_hex(4)}"
        folder.mkdir()
        with self.working():
            try:
                yield folder
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            with self._lock:
                finished = [*self._finished.get(kind, []), folder]
                self._finished[kind] = finished[-_KEPT:]
            for old in finished[:-_KEPT]:
                shutil.rmtree(old, ignore_errors=True)

    def forget_clip(self) -> None:
        """Before another part of the upload takes its place."""
        with self._lock:
            if self._source is not None:
                self._source.close()
            self._source, self.result = None, None
            self.thumbnails = {}

    @contextmanager
    def busy(self) -> Iterator[threading.Event]:
        """While work is done on this job, it is not the one to make room; yields what stops this work and no other."""
        stop = threading.Event()
        with self._lock:
            self._check_kept()
            self._stops.add(stop)
        try:
            yield stop
        finally:
            with self._lock:
                self._stops.discard(stop)
            self.used = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around work that writes files: what a closed job gets from work that ends late is deleted, too."""
        try:
            yield
        finally:
            if self.stop.is_set():
                shutil.rmtree(self.folder, ignore_errors=True)

    def cancel(self) -> None:
        """End the work that is done on this job now; nobody waits for it any more."""
        self.waiting = False
        with self._lock:
            for stop in self._stops:
                stop.set()

    def close(self) -> None:
        """Stop the work and delete every file."""
        self.stop.set()
        self.cancel()
        self.forget_clip()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_kept(self) -> None:
        if self.stop.is_set():
            raise GoneError(_GONE)


class JobStore:
    """A limited number of jobs by random keys; those not used for a while are deleted with their files."""

    def __init__(self, root: Path, limits: DemoLimits) -> None:
        self.root, self.limits = root, limits
        self._jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        root.mkdir(parents=True, exist_ok=True)
        self._sweep_leftovers()

    def __len__(self) -> int:
        return len(self._jobs)

    def open(self, session: str | None) -> Job:
        """A new job; it replaces the one the same session had."""
        with self._lock:
            if session is not None:
                self.drop_session(session)
            self.sweep()
            key = secrets.token_urlsafe(16)
            folder = self.root / key
            folder.mkdir(mode=0o700)
            job = self._jobs[key] = Job(key, session, folder)
            self._make_room(job)
        return job

    def get(self, key: str | None) -> Job:
        """The job of a key; a GoneError tells the visitor what to do."""
        with self._lock:
            self.sweep()
            if key is None:
                raise GoneError("Choose a clip first: upload one, or pick an example.")
            if key not in self._jobs:
                raise GoneError(_GONE)
            job = self._jobs[key]
            job.used = time.monotonic()
            return job

    def expect(self, session: str | None) -> None:
        """A visitor waits in line: what they have makes room only after all that nobody waits for."""
        with self._lock:
            for job in self._jobs.values():
                if session is not None and job.session == session:
                    job.waiting, job.used = True, time.monotonic()

    def drop(self, key: str | None) -> None:
        """Forget a job and delete its files; nothing happens if there is none of that key."""
        with self._lock:
            job = self._jobs.pop(key, None) if key else None
        if job is not None:
            job.close()
            log.info("job %s closed", job.key[:6])

    def drop_session(self, session: str) -> None:
        """Forget what a visitor had."""
        for key in [key for key, job in list(self._jobs.items()) if job.session == session]:
            self.drop(key)

    def sweep(self) -> None:
        """Forget what was not used for too long; who waits in line is given the time until it is their turn."""
        now, keep = time.monotonic(), self.limits.keep_seconds
        with self._lock:
            for key, job in list(self._jobs.items()):
                patience = keep + self.limits.longest_wait if job.waiting else keep
                if now - job.used > patience and not job.running:
                    self.drop(key)

    def close(self) -> None:
        """Forget everything."""
        for key in list(self._jobs):
            self.drop(key)

    def _make_room(self, newest: Job) -> None:
        """Let the jobs go that were used longest ago, those that wait in line or are worked on last."""
        others = [job for job in self._jobs.values() if job is not newest]
        others.sort(key=lambda job: (job.running, job.waiting, job.used))
        for job in others[: max(0, len(self._jobs) - self.limits.jobs)]:
            self.drop(job.key)

    def _sweep_leftovers(self) -> None:
        """Delete what a program that was killed has left here."""
        oldest = time.time() - 2 * self.limits.keep_seconds
        for folder in self.root.iterdir():
            if folder.is_dir() and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
