"""Files from Google Drive, the Hugging Face hub and plain addresses; torch is not needed for it.

A file is in place only when all of it came, and what came of a download that broke off is kept, to go on from there.
One process at a time may download to a path: callers hold a lock.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

Progress = Callable[[int, int | None], None]
"""Is told bytes done and bytes in all (None: the server does not say)."""

RETRIES = 2
SILENCE = 30.0
"""Seconds without an answer after which a server counts as not there."""
PORTION = 2**19
"""Bytes of the hub's files that are written at a time."""


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
    """Whether a file begins as HTML or XML does, or as Google's errors in JSON, whatever its name says."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    pages = (b"<!doctype", b"<html", b"<head", b"<body", b"<!--", b"<?xml")
    return start.startswith(pages) or re.match(rb'\{\s*"error"', start) is not None


_PAGE = (
    "a web page or a message came instead of the file (its limit of downloads a day is reached, or it asks to "
    "confirm or to sign in); open that address in a browser"
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
        _remove_empty(path)


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
    """One file of the hub or its mirror, on from what is there, compared with the size and the hash that it names."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    mirror = os.environ.get("HF_ENDPOINT")
    try:
        address = hf_hub_url(source.repository, source.filename, endpoint=mirror)
        known = get_hf_file_metadata(address, timeout=SILENCE)
        if known.etag is None:
            raise DownloadError("it does not answer as the hub does (without an ETag); is HF_ENDPOINT right?")
        part = path.with_name(f"{path.name}{sha256(known.etag.encode()).hexdigest()[:8]}.part")
        for other in _partial(path):
            if other != part:
                other.unlink()  # of another version of the file
        part.touch()
        for left in reversed(range(RETRIES + 1)):
            try:
                _stream(known, address, part, progress)
                break
            except Exception as error:
                if not left or not _broke_off(error):
                    raise
        _verify(part, known)
        part.replace(path)
    except Exception as error:  # from several libraries; the hub's own errors have no common base
        kept = sum(part.stat().st_size for part in _partial(path))
        raise _failure(source, _reason(error, kept)) from error
    finally:
        _remove_empty(path)


def _stream(known: "HfFileMetadata", address: str, part: Path, progress: Progress) -> None:
    """Append to ``part`` what it lacks. A ConnectionError if the answer ends too early."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    start = part.stat().st_size if known.size is not None else 0
    if known.size is not None and start >= known.size:
        return
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # places count bytes of the file itself
    if urlsplit(known.location).hostname not in (urlsplit(address).hostname, "huggingface.co"):
        headers.pop("authorization", None)  # where the bytes lie is signed in the address; the token is the hub's
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", known.location, headers=headers, timeout=SILENCE, follow_redirects=True) as answer:
        hf_raise_for_status(answer)
        begun = answer.status_code == 206
        done = start if begun else 0
        with part.open("ab" if begun else "wb") as file:
            for piece in answer.iter_bytes(PORTION):
                done += file.write(piece)
                progress(done, known.size)
    if known.size is not None and done < known.size:
        raise ConnectionError(f"expected {known.size:,} bytes, got {done:,}")


def _verify(part: Path, known: "HfFileMetadata") -> None:
    """A DownloadError if what came has another size or hash; it is removed then, for going on would not help."""
    found = fingerprint(part)
    hashed = re.fullmatch("[0-9a-f]{64}", known.etag or "") is not None  # small files have a hash of git's instead
    if (known.size is not None and found.size != known.size) or (hashed and found.sha256 != known.etag):
        part.unlink()
        raise DownloadError(
            f"what came ({found.size:,} bytes, sha256 {found.sha256[:12]}...) is not the file that the hub names "
            f"({known.size or 0:,} bytes, ETag {(known.etag or '')[:12]}...), and was removed: try again"
        )


def _partial(path: Path) -> list[Path]:
    """What is kept of a download that broke off: the name, eight letters, ``.part`` (gdown's way)."""
    return list(path.parent.glob(f"{path.name}????????.part"))


def _forget(path: Path) -> None:
    for part in _partial(path):
        part.unlink()


def _remove_empty(path: Path) -> None:
    for part in _partial(path):
        if part.stat().st_size == 0:
            part.unlink()


def _failure(source: Source, reason: str) -> DownloadError:
    return DownloadError(f"could not fetch {source.address}: {reason}")


def _reason(error: BaseException, kept: int = 0) -> str:
    """Why a download failed, in a few words; ``kept`` bytes of it are there."""
    for link in _chain(error):
        status = getattr(getattr(link, "response", None), "status_code", None)
        if status is not None:
            return f"the server answered {status}"
    if isinstance(error, DownloadError):
        return str(error)
    if _broke_off(error) or (kept and getattr(error, "errno", None) is None):  # errno: the disk's fault
        if kept:
            return f"the connection broke off; the first {kept:,} bytes are kept, the same command goes on from there"
        return "the server cannot be reached"
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


def _broke_off(error: BaseException) -> bool:
    """Whether it is the connection that failed; the libraries beneath have no common base for that."""
    names = "Connect|Timeout|Offline|Chunked|Protocol|ReadError"
    return any(re.search(names, type(link).__name__) for link in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
