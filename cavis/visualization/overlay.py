"""Draw tracks on frames: a translucent mask, its contour, a label, and if wanted a box and the way the instance came.

numpy and Pillow only. Pillow blends in C: each track is one paste of its colour through an opacity mask.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from cavis import rle
from cavis.records import Rle, Track, VideoResult
from cavis.visualization.palette import Colour, colour, text_colour

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    *("NotoSansCJK-Regular.ttc", "FreeSans.ttf"),
    *("Arial Unicode.ttf", "msyh.ttc", "malgun.ttf", "Nirmala.ttf"),  # of macOS and Windows
)
"""Where letters are looked for, in this order, that Pillow's own font lacks: those of them that the system has."""
_NO_LETTER = "\uffff"
"""What will never be a letter: fonts draw it as they draw whatever they lack."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""


@dataclass(frozen=True)
class OverlayStyle:
    """What is drawn for each track; sizes in pixels of the frame, None: in proportion to the frame's height."""

    mask_alpha: float = 0.45
    """Opacity of the mask, 0 (no mask) ... 1."""
    contour: float | None = None
    """Width of the mask's outline, drawn inside the mask; 0: none."""
    box: bool = False
    label: bool = True
    score: bool = True
    """Whether the label tells the score."""
    trail: int = 0
    """How many past frames the trail of box centres reaches back; 0: none."""
    font_size: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.mask_alpha <= 1:
            raise ValueError(f"expected an opacity between 0 and 1, got {self.mask_alpha}")
        if self.contour is not None and self.contour < 0:
            raise ValueError(f"expected a contour of 0 pixels or more, got {self.contour}")
        if self.font_size is not None and self.font_size < 1:
            raise ValueError(f"expected letters of 1 pixel or more, got {self.font_size}")
        if self.trail < 0:
            raise ValueError(f"expected a trail of 0 frames or more, got {self.trail}")


FAINT = 0.35
"""How opaque tracks that are not selected stay, compared with the others."""


@dataclass(frozen=True)
class DrawnTrack:
    """One track as it is drawn on one frame."""

    mask: Bool[np.ndarray, "h w"]
    """The part of the mask inside ``area``."""
    area: Box
    colour: Colour
    label: str = ""
    """Letters that no font here has are written as their numbers in Unicode, unless there is a ``plain_label``."""
    trail: tuple[tuple[float, float] | None, ...] = ()
    """Past centres (x, y), oldest first; None where the instance was not visible."""
    faint: bool = False
    plain_label: str = ""
    """What is written instead of a label that no font here has all letters of."""


def draw(
    frame: UInt8[np.ndarray, "H W 3"], tracks: Sequence[DrawnTrack], style: OverlayStyle | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw tracks on a copy of the frame, the first one on top; faint ones lie below all others."""
    style = style or OverlayStyle()
    image = Image.fromarray(frame)
    width = _contour_width(style, image.height)
    shown = [track for track in tracks if not track.faint]
    faint = [track for track in tracks if track.faint]
    for track in (*reversed(faint), *reversed(shown)):
        strength = FAINT if track.faint else 1.0
        opacity = _opacity(track.mask, style.mask_alpha * strength, width, strength)
        image.paste(track.colour, track.area, Image.fromarray(opacity))
    pen = ImageDraw.Draw(image, "RGBA")
    for track in reversed(shown):
        if style.trail:
            _draw_trail(pen, track, max(2, width))
        if style.box:
            left, top, right, bottom = track.area
            pen.rectangle((left, top, right - 1, bottom - 1), outline=track.colour, width=max(1, width))
    if style.label:
        _draw_labels(image, shown, _font_size(style, image.height))
    return np.asarray(image)


def render_frame(
    frame: UInt8[np.ndarray, "H W 3"],
    result: VideoResult,
    t: int,
    style: OverlayStyle | None = None,
    selected: Collection[int] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the tracks of a result that are visible in frame ``t``.

    ``selected`` holds the ids to bring out: the other tracks are faint and have no label, box or trail. None: all
    alike. A ValueError if the frame's size is not that of the result, or if the result has no frame ``t``.
    """
    style = style or OverlayStyle()
    if frame.shape != (result.height, result.width, 3):
        got = " x ".join(map(str, frame.shape[:2]))
        raise ValueError(f"expected a frame of {result.height} x {result.width} pixels, got {got}")
    if not 0 <= t < len(result):
        raise ValueError(f"expected a frame between 0 and {len(result) - 1}, got {t}")
    drawn = [
        _drawn(result, track, t, style, selected is not None and track.id not in selected) for track in result.tracks
    ]
    return draw(frame, [track for track in drawn if track is not None], style)


def render_video(
    source: Iterable[UInt8[np.ndarray, "H W 3"]],
    result: VideoResult,
    style: OverlayStyle | None = None,
    selected: Collection[int] | None = None,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Draw a result on the frames it was computed from, one at a time; a ValueError if their numbers differ."""
    count = 0
    for t, frame in enumerate(source):
        if t == len(result):
            raise ValueError(f"expected a video of {len(result)} frames, got more")
        yield render_frame(frame, result, t, style, selected)
        count += 1
    if count != len(result):
        raise ValueError(f"expected a video of {len(result)} frames, got {count}")


def caption(result: VideoResult, track: Track, score: bool = True) -> str:
    """What a track is called: ``dog 3 · 0.87``."""
    return _scored(f"{result.category(track).replace('_', ' ')} {track.id}", track, score)


def plain_caption(result: VideoResult, track: Track, score: bool = True) -> str:
    """The same with the class's number (from 1, as in results.json) for its name: ``class 7, track 3 · 0.87``."""
    return _scored(f"class {track.label + 1}, track {track.id}", track, score)


def _scored(name: str, track: Track, score: bool) -> str:
    return f"{name} · {track.score:.2f}" if score else name


def _drawn(result: VideoResult, track: Track, t: int, style: OverlayStyle, faint: bool) -> DrawnTrack | None:
    rle_mask = track.masks[t]
    if rle_mask is None:
        return None
    mask = rle.decode(rle_mask)
    area = _area(rle_mask)
    if area is None:
        return None
    left, top, right, bottom = area
    return DrawnTrack(
        mask=mask[top:bottom, left:right],
        area=area,
        colour=colour(track.id),
        label=caption(result, track, style.score),
        trail=_centres(track, t, style.trail),
        faint=faint,
        plain_label=plain_caption(result, track, style.score),
    )


def _area(mask: Rle) -> Box | None:
    """The pixels a mask spans; None for an empty one."""
    left, top, width, height = (int(side) for side in rle.box(mask))
    return (left, top, left + width, top + height) if width and height else None


def _centres(track: Track, t: int, trail: int) -> tuple[tuple[float, float] | None, ...]:
    if not trail:
        return ()
    span = range(max(0, t - trail), t + 1)
    boxes = track.boxes[span.start : span.stop]
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    return tuple(
        (float(x), float(y)) if track.masks[i] is not None else None for i, (x, y) in zip(span, middle, strict=True)
    )


def _contour_width(style: OverlayStyle, height: int) -> int:
    return round(style.contour if style.contour is not None else max(1.0, height / 270))


def _font_size(style: OverlayStyle, height: int) -> float:
    return style.font_size or max(10, round(height / 34))


@lru_cache(maxsize=64)
def _font(name: str, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont | None:
    """The system's font of a name, Pillow's own for an empty one; None where there is no such font."""
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None


def _lacks(name: str, letter: str) -> bool:
    """Whether there is no font of that name, or none with this letter."""
    font = _font(name, 20)
    if font is None:
        return True
    drawn = [Image.new("L", (40, 40)) for _ in range(2)]
    for image, one in zip(drawn, (letter, _NO_LETTER), strict=True):
        ImageDraw.Draw(image).text((0, 0), one, 255, font)
    return drawn[0] == drawn[1] and not letter.isspace()


@lru_cache(maxsize=512)
def _text(label: str, plain: str, font_size: float) -> Image.Image:
    """A label's letters with room around them, as opacity; kept, since it is the same in every frame of a video."""
    names = (name for name in ("", *SYSTEM_FONTS) if not any(_lacks(name, letter) for letter in label))
    if (name := next(names, None)) is None:
        label = plain or "".join(f"U+{ord(letter):04X}" if _lacks("", letter) else letter for letter in label)
    font = _font(name or "", font_size)
    assert font is not None
    left, _, right, _ = font.getbbox(label)
    _, top, _, bottom = font.getbbox("Ág")  # all labels of one height, whatever their letters
    pad = max(2, round(font_size / 4))
    image = Image.new("L", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad))
    ImageDraw.Draw(image).text((pad - left, pad - top), label, 255, font)
    return image


def _opacity(mask: Bool[np.ndarray, "h w"], alpha: float, width: int, outline: float) -> UInt8[np.ndarray, "h w"]:
    """How much of the colour each pixel takes, 0 ... 255: the inside of the mask, and its outline."""
    opacity = mask * np.uint8(round(255 * alpha))
    if width:
        opacity[mask & ~_erode(mask, width)] = round(255 * outline)
    return opacity


def _erode(mask: Bool[np.ndarray, "h w"], steps: int) -> Bool[np.ndarray, "h w"]:
    """Pixels more than ``steps`` away (in 4-connected steps) from the background; the border counts as background."""
    inner = np.pad(mask, 1)
    for _ in range(steps):
        smaller = inner.copy()
        smaller[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        inner = smaller
    return inner[1:-1, 1:-1]


def _draw_trail(pen: ImageDraw.ImageDraw, track: DrawnTrack, width: int) -> None:
    """Fading towards the past, and edged in black or white: the mask underneath has the same colour."""
    steps = len(track.trail) - 1
    for colour_, thickness in ((text_colour(track.colour), width + 2), (track.colour, width)):
        for step, (start, end) in enumerate(zip(track.trail, track.trail[1:], strict=False), 1):
            if start is not None and end is not None:
                pen.line((*start, *end), fill=(*colour_, round(255 * step / steps)), width=thickness)


def _draw_labels(image: Image.Image, tracks: Sequence[DrawnTrack], font_size: float) -> None:
    pen = ImageDraw.Draw(image, "RGBA")
    taken: list[Box] = []
    for track in tracks:
        text = _text(track.label, track.plain_label, font_size)
        place = _place(track.area, text.size, image.size, taken)
        taken.append(place)
        left, top, right, bottom = place
        pen.rounded_rectangle((left, top, right - 1, bottom - 1), round(font_size / 4), fill=(*track.colour, 235))
        image.paste(text_colour(track.colour), (left, top), text)


def _place(area: Box, label: tuple[int, int], size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a label goes: above the instance, else inside, else below; always in the picture, rather not on another."""
    width, height = label
    left = max(0, min(area[0], size[0] - width))
    tops = (max(0, min(y, size[1] - height)) for y in (area[1] - height, area[1], area[3], area[1] - 2 * height))
    places = [(left, top, left + width, top + height) for top in tops]
    return next((place for place in places if not any(_overlap(place, other) for other in taken)), places[0])


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
