"""One evaluation in parts: what is found in a video is kept as soon as it is found, by any number of processes.

``OUT/evaluation.json`` says what is evaluated, ``OUT/videos/<id>.json`` what was found in a video. Work that was
interrupted is taken up where it stopped, and several processes share the videos without talking to each other.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from filelock import FileLock

from cavis.checkpoints.files import write_atomically

T = TypeVar("T")

ABOUT = "evaluation.json"
VIDEOS = "videos"
_MERGED = ".merged"
_LOCK = ".lock"


class Share(NamedTuple):
    """Which part of the videos a process takes."""

    rank: int = 0
    """0 ... processes - 1."""
    processes: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Share":
        """What torchrun and accelerate say in RANK and WORLD_SIZE; everything where they say nothing."""
        said = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        try:
            rank, processes = map(int, said)
        except ValueError:
            rank, processes = -1, 0
        if not 0 <= rank < processes:
            raise ValueError(f"expected RANK as a number of 0 ... WORLD_SIZE - 1, got {said[0]!r} of {said[1]!r}")
        return cls(rank, processes)

    def of(self, count: int) -> range:
        """The videos of this process: rank, rank + processes, ..."""
        return range(self.rank, count, self.processes)


class Identity(NamedTuple):
    """What an evaluation is of: results that differ in any of these do not belong together."""

    model: str
    """Its name, and what its weights come down to."""
    data: str
    settings: str


class ResultFolder:
    """What was found in the videos of a data set, a file each; a ValueError where the folder holds something else."""

    def __init__(self, folder: Path, identity: Identity, ids: Sequence[int | str]) -> None:
        self.folder = folder
        self.identity = identity
        self._files = [folder / VIDEOS / f"{quote(str(id_), safe='')}.json" for id_ in ids]
        self._check()

    def missing(self, share: Share | None = None) -> list[int]:
        """The videos (of a share) in which nothing was looked for yet."""
        mine = range(len(self._files)) if share is None else share.of(len(self._files))
        return [index for index in mine if not self._files[index].exists()]

    def begin(self) -> None:
        """Say what is evaluated, before anything else is written: what lies without that belongs to no evaluation."""
        about = self.folder / ABOUT
        if not about.exists():
            _write(about, self.identity._asdict())

    def put(self, index: int, found: Any) -> None:
        """Keep what was found in a video, as json; from then on it is not looked for again."""
        self.begin()
        (self.folder / VIDEOS / _MERGED).unlink(missing_ok=True)
        _write(self._files[index], found)

    def get(self, index: int) -> Any:
        """What was found in a video; a ValueError that names the file if it is damaged."""
        return _read(self._files[index])

    def merge_once(self, share: Share, merge: Callable[[], T]) -> T | None:
        """Put the parts together when all are there; None where they are not, or another process has done so.

        Whoever finishes last merges, and only once however many finish at the same time. A process on its own always
        merges, though there may have been nothing left to do.
        """
        (self.folder / VIDEOS).mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / VIDEOS / _LOCK):
            merged = self.folder / VIDEOS / _MERGED
            if self.missing() or (share.processes > 1 and merged.exists()):
                return None
            result = merge()
            merged.touch()
            return result

    def _check(self) -> None:
        about = self.folder / ABOUT
        if not about.exists():
            return
        there = _read(about)
        for name, value in self.identity._asdict().items():
            if not isinstance(there, dict) or there.get(name) != value:
                got = there.get(name) if isinstance(there, dict) else there
                raise FileExistsError(
                    f"{self.folder} holds an evaluation with another {name}: {got}; expected {value}, "
                    f"or --overwrite to begin anew"
                )


def clear(folder: Path) -> None:
    """Forget what was found, so that everything is looked for again."""
    (folder / ABOUT).unlink(missing_ok=True)
    shutil.rmtree(folder / VIDEOS, ignore_errors=True)


def digest(*parts: Any) -> str:
    """A short name for some plain values: the same for the same ones."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A short name for the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_text(path: Path, text: str) -> None:
    """Write a file in one move."""
    write_atomically(path, lambda temporary: _put_text(temporary, text))


def _write(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value))


def _put_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected the results of a video, got something else ({error}); remove it") from error
