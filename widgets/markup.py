"""Pictures and bars as HTML that needs neither a kernel nor a script: what widgets show, and leave behind.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; nothing is told by colour alone.
"""

import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence
from html import escape

import numpy as np

BLUE, ORANGE, GREEN, RED, SKY, PINK, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
    "#000000",
)
COLOURS = (BLUE, ORANGE, GREEN, RED, SKY, PINK, BLACK)


def png(picture: np.ndarray) -> bytes:
    """Encode a picture.

    ``picture``: uint8 [H W 3]. A ValueError says what came instead.

    >>> png(np.zeros((2, 3, 3), np.uint8))[1:4]
    b'PNG'
    """
    check_picture(picture)
    height, width, _ = picture.shape
    flat = picture.reshape(height, -1)
    differences = np.diff(flat, axis=0, prepend=np.zeros_like(flat[:1]))  # filter 2: each row minus the one above
    rows = np.concatenate([np.full((height, 1), 2, np.uint8), differences], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def image(picture: np.ndarray, description: str) -> str:
    """A picture as an ``<img>`` that carries its own data; ``picture``: uint8 [H W 3]."""
    source = f"data:image/png;base64,{b64encode(png(picture)).decode('ascii')}"
    return f'<img src="{source}" alt="{escape(description, quote=True)}">'


def check_picture(picture: np.ndarray) -> None:
    """A ValueError unless this is a picture, uint8 [H W 3] with at least one pixel."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"expected a picture, uint8 [H, W, 3], got {describe(picture)}")
    if picture.size == 0:
        raise ValueError(f"expected a picture with at least one pixel, got {describe(picture)}")


def describe(value: object) -> str:
    """What came, for a sentence: ``float64 [3, 4]``, or the name of a type."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def diverging(values: np.ndarray, limit: float) -> np.ndarray:
    """Numbers as colours: orange below zero, white at zero, blue above; [h w] -> uint8 [h w 3]."""
    share = np.clip(np.nan_to_num(values.astype(float)) / limit, -1, 1)[..., None]
    ends = np.where(share > 0, [0.0, 114.0, 178.0], [230.0, 130.0, 0.0])
    return np.round(255 + np.abs(share) * (ends - 255)).astype(np.uint8)


def bars(rows: Sequence[tuple[str, np.ndarray]], description: str, height: int = 120) -> str:
    """Vectors as bars around zero, one row below the other, all on one scale.

    ``rows``: (title, float [C]); what is not finite is left out.
    """
    finite = [np.nan_to_num(vector.astype(float), posinf=0, neginf=0) for _, vector in rows]
    limit = max((float(np.abs(vector).max(initial=0)) for vector in finite), default=0) or 1.0
    count = max((len(vector) for vector in finite), default=1)
    parts = []
    for index, vector in enumerate(finite):
        middle = index * height + height / 2 + 8
        path = "".join(
            f"M{x + 0.5:.1f} {middle:.1f}V{middle - value / limit * (height / 2 - 12):.1f}"
            for x, value in enumerate(vector)
        )
        colour = COLOURS[index % len(COLOURS)]
        parts.append(
            f'<path d="M0 {middle:.1f}H{count}" stroke="#888" stroke-width=".5" vector-effect="non-scaling-stroke"/>'
        )
        parts.append(f'<path d="{path}" stroke="{colour}" stroke-width=".8" fill="none"/>')
    titles = "".join(
        f'<div style="position:absolute;top:{100 * i / len(rows):.1f}%;left:2px;color:{COLOURS[i % len(COLOURS)]};'
        f'font-weight:600;font-size:11px">{escape(title)}</div>'
        for i, (title, _) in enumerate(rows)
    )
    picture = (
        f'<svg viewBox="0 0 {count} {height * max(1, len(rows)) + 8}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(description, quote=True)}" style="width:100%;height:100%">{"".join(parts)}</svg>'
    )
    return f'<div style="position:relative;height:100%">{picture}{titles}</div>'


def problem(sentence: str) -> str:
    """A sentence that says what went wrong, where the view would be."""
    return (
        f'<div role="alert" style="border-left:4px solid {RED};padding:6px 10px;margin:4px 0">'
        f"<b>That did not work.</b> {escape(sentence)}</div>"
    )


def in_one_sentence(error: BaseException) -> str:
    """An exception as one line: its text, or its name where it has none."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if not text:
        return kind
    return text if isinstance(error, ValueError | FloatingPointError | OSError) else f"{kind}: {text}"
