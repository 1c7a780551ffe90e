"""Backgrounds and foreground obstacles, drawn by procedure: no picture is shipped for them."""

import colorsys
import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFilter

from cavis.data.synthetic.sprites import Sprite, sprite_from

Random = np.random.Generator


def colour(random: Random, saturation: tuple[float, float], value: tuple[float, float]) -> Float[np.ndarray, "3"]:
    """A colour of any hue, RGB 0 ... 255."""
    rgb = colorsys.hsv_to_rgb(random.uniform(), random.uniform(*saturation), random.uniform(*value))
    return np.array(rgb, dtype=np.float32) * 255


def turbulence(random: Random, height: int, width: int, cell: float, octaves: int = 3) -> Float[np.ndarray, "h w"]:
    """Smooth noise of several scales, 0 ... 1; ``cell`` is the size of its largest blobs in pixels."""
    # Drawn at half the size and enlarged at the end: a quarter of the work, and nothing here is that sharp.
    half = (max(1, width // 2), max(1, height // 2))
    total = np.zeros((half[1], half[0]), dtype=np.float32)
    weights = [0.6**octave for octave in range(octaves)]
    for octave, weight in enumerate(weights):
        size = max(2.0, cell / 2**octave)
        grid = random.integers(0, 256, (math.ceil(height / size) + 2, math.ceil(width / size) + 2), dtype=np.uint8)
        smooth = Image.fromarray(grid).resize(half, Image.Resampling.BICUBIC)
        total += np.asarray(smooth) * np.float32(weight / sum(weights))
    whole = Image.fromarray(total.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(whole) * np.float32(1 / 255)


def background(random: Random, height: int, width: int, contrast: float) -> Image.Image:
    """A textured picture of the given size; ``contrast`` 0 (one colour) ... 1."""
    style = _STYLES[random.integers(len(_STYLES))]
    pixels = style(random, height, width)
    mean = pixels[::8, ::8].mean((0, 1))
    light = random.uniform(-0.12, 0.12, 2)
    # Whole rows at a time: numpy is slow where the last axis has only three entries.
    rows = pixels.reshape(height, -1)
    rows *= np.repeat(1 + light[0] * np.linspace(-1, 1, width, dtype=np.float32), 3)
    rows *= np.float32(contrast) * (1 + light[1] * np.linspace(-1, 1, height, dtype=np.float32)[:, None])
    rows += np.float32(1 - contrast) * np.tile(mean, width)
    return Image.fromarray(_to_bytes(rows).reshape(height, width, 3))


def _to_bytes(pixels: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    return np.minimum(np.maximum(pixels, 0), 255).astype(np.uint8)


def _two_colours(random: Random) -> tuple[np.ndarray, np.ndarray]:
    return colour(random, (0.05, 0.45), (0.3, 0.6)), colour(random, (0.05, 0.45), (0.55, 0.9))


def _mix(first: np.ndarray, second: np.ndarray, share: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    """From one colour (share 0) to another (share 1), in 256 steps."""
    steps = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    return np.take(first + (second - first) * steps, (255 * share).astype(np.uint8), axis=0)


def _axes(height: int, width: int) -> tuple[Float[np.ndarray, "h 1"], Float[np.ndarray, "1 w"]]:
    return np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]


def _clouds(random: Random, height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    share = turbulence(random, height, width, cell=random.uniform(0.2, 0.5) * height, octaves=4)
    return _mix(*_two_colours(random), np.clip(2.2 * (share - 0.5) + 0.5, 0, 1))


def _landscape(random: Random, height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    sky_low, sky_high = colour(random, (0.05, 0.3), (0.75, 0.95)), colour(random, (0.2, 0.5), (0.5, 0.8))
    sky = _mix(sky_high, sky_low, np.broadcast_to(np.clip(1.8 * down, 0, 1), (height, width)))
    grain = turbulence(random, height, width, cell=0.12 * height, octaves=3)
    ground = _mix(*_two_colours(random), np.clip(1.6 * (grain - 0.5) + 0.5 + 0.4 * (down - 0.7), 0, 1))
    bumps = turbulence(random, 1, width, cell=0.4 * width, octaves=3)[0]
    line = random.uniform(0.3, 0.65) + 0.2 * (bumps - 0.5)
    return np.where(np.repeat(down > line[None, :], 3, axis=1).reshape(height, width, 3), ground, sky)


def _stripes(random: Random, height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    angle, period = random.uniform(0, math.pi), random.uniform(0.12, 0.3) * height
    y, x = _axes(height, width)
    warp = turbulence(random, height, width, cell=0.5 * height, octaves=2)
    phase = (x * math.cos(angle) + y * math.sin(angle)) / period + random.uniform(0, 2.5) * warp
    wave = 0.5 + 0.5 * np.clip(1.6 * np.sin(2 * math.pi * phase), np.float32(-1), np.float32(1))
    return _mix(*_two_colours(random), wave * 0.75 + 0.25 * warp)


def _tiles(random: Random, height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    side, aspect = random.uniform(0.1, 0.22) * height, random.uniform(1, 2.2)
    y, x = _axes(height, width)
    row = np.floor(y / side)
    along = x / (side * aspect) + 0.5 * (row % 2)
    shades = random.uniform(0, 1, (64, 64)).astype(np.float32)
    share = shades[row.astype(int) % 64, np.floor(along).astype(int) % 64]
    joint = (y % side < 0.06 * side + 1) | ((along % 1) * side * aspect < 0.06 * side + 1)
    share = 0.15 + 0.6 * share + 0.25 * turbulence(random, height, width, cell=0.3 * height)
    return _mix(*_two_colours(random), np.where(joint, np.float32(0), share))


def _lights(random: Random, height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    image = Image.fromarray(_to_bytes(_clouds(random, height, width)))
    pen = ImageDraw.Draw(image)
    for _ in range(random.integers(8, 20)):
        radius = random.uniform(0.03, 0.14) * height
        x, y = random.uniform(0, width), random.uniform(0, height)
        tint = tuple(int(value) for value in colour(random, (0.1, 0.5), (0.4, 0.9)))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tint)
    return np.asarray(image.filter(ImageFilter.BoxBlur(0.015 * height)), dtype=np.float32)


_STYLES = (_clouds, _landscape, _stripes, _tiles, _lights)


def post(random: Random, width: float, height: float) -> Sprite:
    """A round post of the given size in pixels."""
    shape = (max(4, round(height)), max(4, round(width)))
    across = np.linspace(-0.95, 0.95, shape[1], dtype=np.float32)
    roundness = 0.45 + 0.65 * np.sqrt(1 - (across + 0.25).clip(-1, 1) ** 2)
    grain = turbulence(random, *shape, cell=max(4.0, width / 2), octaves=2)
    pixels = colour(random, (0.1, 0.5), (0.35, 0.75)) * (roundness * (0.8 + 0.4 * grain))[..., None]
    return _solid(pixels, np.full(shape, 255, dtype=np.uint8))


def wall(random: Random, width: float, height: float) -> Sprite:
    """A piece of brick wall of the given size in pixels."""
    shape = (max(4, round(height)), max(4, round(width)))
    side = max(5.0, 0.16 * height)
    y, x = _axes(*shape)
    row = np.floor(y / side)
    along = x / (2 * side) + 0.5 * (row % 2)
    shades = random.uniform(0.75, 1.1, (32, 32)).astype(np.float32)
    light = shades[row.astype(int) % 32, np.floor(along).astype(int) % 32]
    light = np.where((y % side < 1.5) | ((along % 1) * 2 * side < 1.5), np.float32(0.55), light)
    pixels = colour(random, (0.2, 0.6), (0.4, 0.75)) * light[..., None]
    return _solid(pixels, np.full(shape, 255, dtype=np.uint8))


def bush(random: Random, width: float, height: float) -> Sprite:
    """A leafy bush of the given size in pixels."""
    shape = (max(8, round(height)), max(8, round(width)))
    outline = Image.new("L", (shape[1], shape[0]))
    pen = ImageDraw.Draw(outline)
    for angle in np.linspace(0, 2 * math.pi, 11)[:-1] + random.uniform(0, 1):
        radius = random.uniform(0.17, 0.24)
        x, y = 0.5 + (0.49 - radius) * math.cos(angle), 0.5 + (0.49 - radius) * math.sin(angle)
        pen.ellipse(
            ((x - radius) * shape[1], (y - radius) * shape[0], (x + radius) * shape[1], (y + radius) * shape[0]),
            fill=255,
        )
    pen.ellipse((0.2 * shape[1], 0.2 * shape[0], 0.8 * shape[1], 0.8 * shape[0]), fill=255)
    leaves = turbulence(random, *shape, cell=max(5.0, 0.16 * width), octaves=3)
    down = np.linspace(1.15, 0.7, shape[0], dtype=np.float32)[:, None]
    rgb = colorsys.hsv_to_rgb(random.uniform(0.2, 0.42), random.uniform(0.35, 0.65), random.uniform(0.4, 0.65))
    light = np.clip(2.4 * (leaves - 0.5) + 1, 0.45, 1.5) * down
    return _solid(np.array(rgb, dtype=np.float32) * 255 * light[..., None], np.asarray(outline))


def _solid(pixels: Float[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"]) -> Sprite:
    return sprite_from(Image.fromarray(np.dstack((_to_bytes(pixels), alpha))), mipmaps=False)
