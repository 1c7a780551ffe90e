"""A server of one file on this machine, with the faults that servers have."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

QUOTA_PAGE = b"""<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>"""


@dataclass
class Behaviour:
    """What the server gives, and how."""

    body: bytes = b""
    status: int = 200
    ranges: bool = True
    cut: int | None = None
    """The connection breaks after so many bytes of an answer."""
    content_type: str = "application/octet-stream"
    attachment: bool = True
    pages: dict[str, bytes] = field(default_factory=dict)
    """Paths that show a page instead."""
    elsewhere: str | None = None
    """Where the file itself lies, as the hub's large files do; only its size and hash are told here."""
    tokens: list[str | None] = field(default_factory=list)
    """The Authorization header of every request so far."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header of every request so far."""
    sent: int = 0
    """Bytes of files that were sent so far."""


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        this = self.behaviour
        path = self.path.split("?")[0]
        asked_range = self.headers.get("Range")
        this.asked.append((self.path, asked_range))
        this.tokens.append(self.headers.get("Authorization"))
        if this.status != 200:
            self.send_error(this.status)
            return
        if path in this.pages:
            self._send(200, this.pages[path], {"Content-Type": "text/html; charset=utf-8"}, with_body)
            return
        headers = {
            "Content-Type": this.content_type,
            "ETag": f'"{hashlib.sha256(this.body).hexdigest()}"',
            "X-Repo-Commit": "0" * 40,
            "Accept-Ranges": "bytes" if this.ranges else "none",
        }
        if this.elsewhere is not None:
            linked = {"X-Linked-Size": str(len(this.body)), "X-Linked-ETag": headers["ETag"]}
            self._send(302, b"", headers | linked | {"Location": this.elsewhere}, with_body)
            return
        if this.attachment:
            headers["Content-Disposition"] = 'attachment; filename="weights.pth"'
        start = int(asked_range.removeprefix("bytes=").split("-")[0]) if asked_range and this.ranges else 0
        if start >= len(this.body) and start:
            self.send_error(416)
            return
        if asked_range and this.ranges:
            headers["Content-Range"] = f"bytes {start}-{len(this.body) - 1}/{len(this.body)}"
        self._send(206 if "Content-Range" in headers else 200, this.body[start:], headers, with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            body = body[: self.behaviour.cut]
            self.behaviour.sent += len(body)
            self.wfile.write(body)
            self.close_connection = True


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Serve until the block ends; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"behaviour": behaviour}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def nobody_listens() -> str:
    """An address where no server is."""
    with serving(Behaviour()) as address:
        return address
