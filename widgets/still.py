"""Still pictures: what a view shows where there is no kernel, and what is saved of it."""

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from widgets.colours import Mark

FONT = 'font-family="system-ui, -apple-system, Segoe UI, sans-serif"'
INK, QUIET, LINE, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"


class Still:
    """A picture in SVG, with a line that says how it was made (in the picture, and in its description)."""

    def __init__(self, width: int, height: int, parts: Sequence[str], *, title: str = "", note: str = "") -> None:
        top, lines = (34 if title else 8), _wrapped(note, max(20, width // 6))
        total = top + height + (12 + 15 * len(lines) if lines else 0) + 8
        heading = f'<text x="12" y="22" {FONT} font-size="14" font-weight="600" fill="{INK}">{escape(title)}</text>'
        caption = (
            f'<text x="12" y="{top + height + 18 + 15 * i}" {FONT} font-size="11" fill="{QUIET}">{escape(line)}</text>'
            for i, line in enumerate(lines)
        )
        self.svg = "".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" '
                f'viewBox="0 0 {width} {total}" role="img" style="max-width:100%;height:auto">',
                f"<title>{escape(title or 'picture')}</title><desc>{escape(note)}</desc>",
                f'<rect width="{width}" height="{total}" rx="6" fill="{PAPER}"/>',
                heading if title else "",
                f'<g transform="translate(0 {top})">',
                *parts,
                "</g>",
                *caption,
                "</svg>",
            )
        )

    def _repr_html_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Write the picture; the name has to end with ``.svg``."""
        path = Path(path)
        if path.suffix != ".svg":
            raise ValueError(f"expected a file name that ends with .svg, got {path.name!r}")
        path.write_text(self.svg, encoding="utf-8")
        return path


def shape_at(mark: Mark, x: float, y: float, radius: float = 4.0, opacity: float = 0.9) -> str:
    """A mark as SVG."""
    style = f'fill="{mark.colour}" fill-opacity="{opacity}" stroke="{INK}" stroke-opacity="0.35" stroke-width="0.8"'
    if mark.shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {style}/>'
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
        "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    }[mark.shape]
    points = " ".join(f"{x + dx * radius:.1f},{y + dy * radius:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" {style}/>'


def label(x: float, y: float, text: str, size: int = 12, anchor: str = "start", colour: str = INK) -> str:
    """A line of text as SVG."""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place} {FONT}>{escape(text)}</text>"


def image(pixels: np.ndarray, x: float, y: float, width: float, height: float) -> str:
    """An RGB array [H, W, 3] as SVG."""
    uri = "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")
    return f'<image href="{uri}" x="{x}" y="{y}" width="{width}" height="{height}"/>'


def png(pixels: np.ndarray) -> bytes:
    """An RGB array [H, W, 3], uint8, as a PNG file.

    Example: ``png(np.zeros((4, 4, 3), np.uint8))[1:4] == b"PNG"``.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
