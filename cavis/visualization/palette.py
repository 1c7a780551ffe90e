"""One colour per track id: always the same, and far from those of the neighbouring ids for every kind of colour vision.

The first seven are Okabe and Ito's (jfly.uni-koeln.de/color). The others are chosen one by one, each as far as possible
from the colours of the ids just before it, judged by the worst of four viewers: normal vision, and Machado et al.'s
(2009) models of missing red, green and blue cones.
"""

from functools import cache

import numpy as np
from jaxtyping import Real

Colour = tuple[int, int, int]
"""Red, green, blue, 0 ... 255."""

LENGTH = 64
"""Ids this far apart share a colour."""
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_NEIGHBOURS = 8
"""How many preceding ids a colour must be far from."""
_VISIONS = np.array(
    [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)
"""How linear RGB looks to viewers with normal vision, protanopia, deuteranopia and tritanopia."""


def colour(track_id: int) -> Colour:
    """The colour of a track; any integer will do."""
    return colours()[track_id % LENGTH]


def hex_colour(track_id: int) -> str:
    """The same as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour(track_id))


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever reads better on the background (WCAG's contrast ratio)."""
    red, green, blue = _linear(np.array(background))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def contrast(first: Colour, second: Colour) -> float:
    """How different two colours look to the viewer who sees the least difference (distance in OKLab, 0 ... about 1)."""
    seen = _seen(np.array([first, second]))
    return float(np.linalg.norm(seen[:, 0] - seen[:, 1], axis=-1).min())


@cache
def colours() -> tuple[Colour, ...]:
    """The whole palette, in the order of the ids."""
    candidates = _candidates()
    chosen = np.array(_OKABE_ITO)
    seen, pool = _seen(chosen), _seen(candidates)
    while len(chosen) < LENGTH:
        # The last colours are followed by the first ones again, so they keep away from those as well.
        after = max(0, len(chosen) + _NEIGHBOURS - LENGTH + 1)
        near = np.concatenate([seen[:, -_NEIGHBOURS:], seen[:, :after]], axis=1)
        distance = np.linalg.norm(pool[:, :, None] - near[:, None], axis=-1).min((0, 2))
        # Among colours that keep away from the neighbours equally well, prefer those used least.
        novelty = np.linalg.norm(pool[0][:, None] - seen[0], axis=-1).min(1)
        best = int((distance + 0.5 * novelty).argmax())
        chosen = np.concatenate([chosen, candidates[best : best + 1]])
        seen = np.concatenate([seen, pool[:, best : best + 1]], axis=1)
    return tuple((int(red), int(green), int(blue)) for red, green, blue in chosen)


def _candidates() -> Real[np.ndarray, "N 3"]:
    """Colours that stand out from most pictures: neither dark nor pale, neither grey nor earthy."""
    levels = np.array([0, 36, 73, 109, 146, 182, 219, 255])
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _seen(grid)[0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    return grid[(lab[:, 0] > 0.42) & (lab[:, 0] < 0.93) & (chroma > 0.09)]


def _linear(rgb: Real[np.ndarray, "... 3"]) -> Real[np.ndarray, "... 3"]:
    """Undo sRGB's gamma: 0 ... 255 -> 0 ... 1."""
    share = rgb / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _seen(rgb: Real[np.ndarray, "N 3"]) -> Real[np.ndarray, "4 N 3"]:
    """OKLab coordinates of colours as each kind of viewer sees them."""
    light = np.clip(_linear(rgb) @ _VISIONS.transpose(0, 2, 1), 0, 1)
    cones = light @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
