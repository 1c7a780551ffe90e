"""The smallest TrueType font: each of its letters is a bar, the later ones wider."""

import struct

UNITS = 1000
"""Of the font's grid in the height of a line."""


def made_up_font(letters: str) -> bytes:
    """A font file with ``letters``; what it lacks is drawn as a bar of no other's width."""
    letters = "".join(sorted(letters))
    widths = [UNITS, *(100 + 20 * number for number in range(len(letters)))]  # the first one is for what is lacking
    bars = [_bar(width) for width in widths]
    places = [sum(map(len, bars[:number])) for number in range(len(bars) + 1)]
    tables = {
        "cmap": _character_map(letters),
        "glyf": b"".join(bars),
        "head": struct.pack(
            ">IIIIHHqqhhhhHHhhh", 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, UNITS, 0, 0, 0, 0, UNITS, UNITS, 0, 8, 2, 1, 0
        ),
        "hhea": struct.pack(">IhhhHhhhhhhhhhhhH", 0x10000, 800, -200, 0, UNITS, *(0,) * 11, len(bars)),
        "hmtx": b"".join(struct.pack(">Hh", width + 50, 0) for width in widths),
        "loca": struct.pack(f">{len(places)}I", *places),
        "maxp": struct.pack(">IH13H", 0x10000, len(bars), 4, 1, 0, 0, 1, *(0,) * 8),
    }
    return _file(tables)


def _bar(width: int) -> bytes:
    """One contour of four corners; coordinates are steps from the one before."""
    outline = struct.pack(">hhhhh", 1, 0, 0, width, 700) + struct.pack(">HH", 3, 0) + bytes([1] * 4)
    steps = struct.pack(">4h", 0, 0, width, 0) + struct.pack(">4h", 0, 700, 0, -700)
    return outline + steps


def _character_map(letters: str) -> bytes:
    """Form 12: a group for each letter."""
    groups = b"".join(struct.pack(">III", ord(one), ord(one), number) for number, one in enumerate(letters, 1))
    table = struct.pack(">HHIII", 12, 0, 16 + len(groups), 0, len(letters)) + groups
    return struct.pack(">HHHHI", 0, 1, 3, 10, 12) + table


def _file(tables: dict[str, bytes]) -> bytes:
    place = 12 + 16 * len(tables)
    directory, content = struct.pack(">IHHHH", 0x10000, len(tables), 64, 2, 48), b""
    for name, table in tables.items():
        directory += struct.pack(">4sIII", name.encode(), 0, place + len(content), len(table))
        content += table + bytes(-len(table) % 4)
    return directory + content
