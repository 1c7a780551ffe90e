"""Files from Google Drive, the Hugging Face hub and plain addresses; torch is not needed for it.

A file is in place only when all of it came, and what came of a download that broke off is kept, to go on from there.
One process at a time may download to a path: callers hold a lock.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path

Progress = Callable[[int, int | None], None]
"""Is told bytes done and bytes in all (None: the server does not say)."""

RETRIES = 2
SILENCE = 30.0
"""Seconds without an answer after which a server counts as not there."""


class DownloadError(OSError):
    """A file that could not be fetched, or is not the one that was expected."""


@dataclass(frozen=True)
class Drive:
    """A torch file on Google Drive that everybody with its address may read."""

    id: str

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"https://drive.google.com/uc?export=download&id={self.id}"

    @property
    def suffix(self) -> str:
        """What its name ends with (Drive's addresses hold no name)."""
        return ".pth"


@dataclass(frozen=True)
class Hub:
    """A file of a model on the Hugging Face hub, or on the mirror that ``HF_ENDPOINT`` names."""

    repository: str
    filename: str

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.filename}"

    @property
    def suffix(self) -> str:
        """What its name ends with."""
        return Path(self.filename).suffix


@dataclass(frozen=True)
class Url:
    """A file at an address of its own."""

    address: str

    @property
    def suffix(self) -> str:
        """What its name ends with."""
        return Path(self.address).suffix


Source = Drive | Hub | Url


@dataclass(frozen=True)
class Fingerprint:
    """What tells one file from another."""

    size: int
    """Bytes."""
    sha256: str
    day: str
    """When it was downloaded (UTC, ISO)."""


def fetch(source: Source, path: Path, progress: Progress | None = None) -> None:
    """Download ``source`` to ``path``, on from what an earlier try has left; nothing happens if ``path`` is there.

    A DownloadError says in one sentence what could not be fetched, from where, and why.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda done, total: None)
    if isinstance(source, Hub):
        _fetch_from_hub(source, path, report)
    else:
        _fetch_by_http(source, path, report)
    with path.open("rb") as file:
        page = is_web_page(file.read(4096))
    if page:
        path.unlink()
        raise _failure(source, _PAGE)


def fingerprint(path: Path) -> Fingerprint:
    """Size and hash of a file that was downloaded today."""
    with path.open("rb") as file:
        return Fingerprint(
            path.stat().st_size, file_digest(file, "sha256").hexdigest(), datetime.now(UTC).date().isoformat()
        )


def compare(found: Fingerprint, record: Path) -> None:
    """A DownloadError if ``record`` knows another file than ``found``; nothing happens where there is no record."""
    first = read_record(record)
    if first is not None and (found.size, found.sha256) != (first.size, first.sha256):
        raise DownloadError(
            f"expected the file of {first.day} ({first.size:,} bytes, sha256 {first.sha256[:12]}...), got another one "
            f"({found.size:,} bytes, sha256 {found.sha256[:12]}...): try again, or remove {record} if its authors "
            "replaced it"
        )


def remember(found: Fingerprint, record: Path) -> None:
    """Write ``found`` to ``record``, for :func:`compare`; the first one stays."""
    if read_record(record) is None:
        temporary = record.with_name(f".{record.name}.part")
        temporary.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
        temporary.replace(record)


def read_record(record: Path) -> Fingerprint | None:
    """What is known of a file since its first download; None if that is nothing."""
    try:
        return Fingerprint(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_web_page(head: bytes) -> bool:
    """Whether a file begins as HTML does, whatever its name says."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head"))


_PAGE = (
    "a web page came instead of the file (its limit of downloads a day is reached, or it asks to confirm or to sign "
    "in); open that address in a browser"
)


def _fetch_by_http(source: Drive | Url, path: Path, progress: Progress) -> None:
    """One file through gdown, which answers Drive's questions and asks for the rest of a partial file."""
    from gdown.exceptions import DownloadError as Broken
    from gdown.exceptions import FileURLRetrievalError

    try:
        try:
            _gdown(source, path, progress)
        except Broken as error:
            if "byte range" not in str(error):
                raise
            _forget(path)  # the server cannot begin in the middle, or has another file now
            _gdown(source, path, progress)
    except FileURLRetrievalError as error:
        raise _failure(source, _PAGE) from error
    except (Broken, OSError, KeyError) as error:  # KeyError: an answer without the headers that gdown reads
        raise _failure(source, _reason(error, sum(part.stat().st_size for part in _partial(path)))) from error
    finally:
        for part in _partial(path):
            if part.stat().st_size == 0:
                part.unlink()


def _gdown(source: Drive | Url, path: Path, progress: Progress) -> None:
    import gdown

    gdown.download(
        source.address,
        str(path),
        quiet=True,
        use_cookies=False,
        resume=True,
        progress=progress,
        timeout=SILENCE,
        retries=RETRIES,
    )


def _fetch_from_hub(source: Hub, path: Path, progress: Progress) -> None:
    """One file through the hub's own library, which compares size and hash with the hub's."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import tqdm

    class Telling(tqdm):
        """A bar that draws nothing and tells what it counts."""

        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            """Count, and tell."""
            self.n += n or 0
            progress(int(self.n), None if self.total is None else int(self.total))

    folder, mirror = path.with_name(f"{path.name}.hub"), os.environ.get("HF_ENDPOINT")
    try:
        # Asked once: the download itself would try for half a minute, and say so each time.
        get_hf_file_metadata(hf_hub_url(source.repository, source.filename, endpoint=mirror), timeout=SILENCE)
        found = hf_hub_download(
            source.repository, source.filename, local_dir=folder, endpoint=mirror, tqdm_class=Telling
        )
        Path(found).replace(path)
    except Exception as error:  # from several libraries; the hub's own errors have no common base
        raise _failure(source, _reason(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _partial(path: Path) -> list[Path]:
    """What gdown has kept of a download that broke off: the name, eight letters, ``.part``."""
    return list(path.parent.glob(f"{path.name}????????.part"))


def _forget(path: Path) -> None:
    for part in _partial(path):
        part.unlink()


def _failure(source: Source, reason: str) -> DownloadError:
    return DownloadError(f"could not fetch {source.address}: {reason}")


def _reason(error: BaseException, kept: int = 0) -> str:
    """Why a download failed, in a few words; ``kept`` bytes of it are there."""
    chain = list(_chain(error))
    for link in chain:
        status = getattr(getattr(link, "response", None), "status_code", None)
        if status is not None:
            return f"the server answered {status}"
    if any(re.search("Connect|Timeout|Offline|Chunked|Protocol", type(link).__name__) for link in chain) or kept:
        if kept:
            return f"the connection broke off; the first {kept:,} bytes are kept, the same command goes on from there"
        return "the server cannot be reached"
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
