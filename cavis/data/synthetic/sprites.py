"""Pictures with transparency, and drawing them turned and scaled onto a frame."""

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

_MIPMAP_STEP = math.sqrt(0.5)
_SMALLEST = 20
_BORDER = 2
_SHADOW_STRENGTH = 0.17
_SHADOW_STEPS = ((0.02, 0.03), (0.035, 0.055))


@dataclass(frozen=True)
class Sprite:
    """One picture at several sizes, so that drawing it small does not alias."""

    levels: tuple[Image.Image, ...]
    """Premultiplied RGBA ("RGBa"), largest first, each with an empty border of two pixels."""
    width: float
    """Of the content, where the longest side is 1."""
    height: float
    """Of the content, where the longest side is 1."""

    def level(self, size: float) -> Image.Image:
        """The smallest picture whose longest side is at least ``size`` pixels (the largest, if none is)."""
        for image in reversed(self.levels):
            if max(image.size) - 2 * _BORDER >= size:
                return image
        return self.levels[0]


@dataclass(frozen=True)
class Pose:
    """Where and how a sprite stands in one frame."""

    x: float
    """Of the centre, in pixels from the left edge of the frame."""
    y: float
    """Of the centre, in pixels from the top edge of the frame."""
    size: float
    """Longest side in pixels."""
    tilt: float = 0.0
    """Radians, clockwise."""
    flip: bool = False
    """Mirrored left to right."""


@dataclass(frozen=True)
class Patch:
    """A sprite drawn into the part of the frame it covers."""

    pixels: UInt8[np.ndarray, "h w 4"]
    """Premultiplied RGBA."""
    top: int
    left: int


def sprite_from(image: Image.Image, mipmaps: bool = True) -> Sprite:
    """Make a sprite of an RGBA picture; ``mipmaps=False`` keeps only the full size."""
    padded = Image.new("RGBA", (image.width + 2 * _BORDER, image.height + 2 * _BORDER))
    padded.paste(image, (_BORDER, _BORDER))
    longest = max(image.size)
    levels = [padded.convert("RGBa")]
    size = longest * _MIPMAP_STEP
    while mipmaps and size >= _SMALLEST:
        shape = (max(1, round(image.width * size / longest)), max(1, round(image.height * size / longest)))
        small = Image.new("RGBA", (shape[0] + 2 * _BORDER, shape[1] + 2 * _BORDER))
        small.paste(image.resize(shape, Image.Resampling.LANCZOS), (_BORDER, _BORDER))
        levels.append(small.convert("RGBa"))
        size *= _MIPMAP_STEP
    return Sprite(tuple(levels), image.width / longest, image.height / longest)


@cache
def cutouts() -> dict[str, str]:
    """The shipped cut-outs: file name -> category."""
    index = json.loads(_folder().joinpath("index.json").read_text(encoding="utf-8"))
    return {name: entry["category"] for name, entry in index["cutouts"].items()}


@cache
def cutout(name: str) -> Sprite:
    """The cut-out of this file name; decoded once in a process."""
    with _folder().joinpath(name).open("rb") as file:
        return sprite_from(Image.open(file).convert("RGBA"))


def _folder():
    return resources.files("cavis") / "assets" / "cutouts"


def draw(sprite: Sprite, pose: Pose, frame: tuple[int, int]) -> Patch | None:
    """Turn and scale a sprite into a frame of (height, width); None if it lies outside."""
    image = sprite.level(pose.size)
    cos, sin = math.cos(pose.tilt), math.sin(pose.tilt)
    half_width, half_height = sprite.width * pose.size / 2, sprite.height * pose.size / 2
    reach_x = abs(cos) * half_width + abs(sin) * half_height + 1
    reach_y = abs(sin) * half_width + abs(cos) * half_height + 1
    left, right = max(0, math.floor(pose.x - reach_x)), min(frame[1], math.ceil(pose.x + reach_x))
    top, bottom = max(0, math.floor(pose.y - reach_y)), min(frame[0], math.ceil(pose.y + reach_y))
    if left >= right or top >= bottom:
        return None
    # Pillow wants the way back: from a pixel of the patch to a point of the picture.
    zoom = (max(image.size) - 2 * _BORDER) / pose.size
    mirror = -1.0 if pose.flip else 1.0
    a, b = mirror * zoom * cos, mirror * zoom * sin
    d, e = -zoom * sin, zoom * cos
    dx, dy = left - pose.x, top - pose.y
    matrix = (a, b, a * dx + b * dy + image.width / 2, d, e, d * dx + e * dy + image.height / 2)
    turned = image.transform((right - left, bottom - top), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return Patch(np.asarray(turned), top, left)


def paint(canvas: Float[np.ndarray, "H W 3"], patch: Patch, light: Float[np.ndarray, "3"]) -> None:
    """Lay a patch over the canvas (in place), its colours multiplied by ``light``."""
    height, width = patch.pixels.shape[:2]
    region = canvas[patch.top : patch.top + height, patch.left : patch.left + width]
    region *= 1 - patch.pixels[..., 3:] * np.float32(1 / 255)
    region += patch.pixels[..., :3] * light


def claim(owner: Int[np.ndarray, "H W"], patch: Patch, value: int) -> None:
    """Write ``value`` wherever the patch is more opaque than not (in place)."""
    height, width = patch.pixels.shape[:2]
    region = owner[patch.top : patch.top + height, patch.left : patch.left + width]
    region[patch.pixels[..., 3] > 127] = value


def cast_shadow(canvas: Float[np.ndarray, "H W 3"], patch: Patch, size: float) -> None:
    """Darken the canvas (in place) a little below and to the right of a patch."""
    height, width = patch.pixels.shape[:2]
    shade = 1 - patch.pixels[..., 3:] * np.float32(_SHADOW_STRENGTH / 255)
    for right, down in _SHADOW_STEPS:
        top, left = patch.top + math.ceil(down * size), patch.left + math.ceil(right * size)
        region = canvas[top : top + height, left : left + width]
        region *= shade[: region.shape[0], : region.shape[1]]
