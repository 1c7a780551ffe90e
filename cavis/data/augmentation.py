"""Random changes of training clips: where things are, what else is there. How frames look is ``looks.py``'s.

All numbers are drawn first, as a tuple of steps; applying steps to a clip is a pure function. Frames are resampled
bilinearly, masks by the nearest pixel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from PIL.Image import Resampling, Transpose
from torch import Tensor

from cavis.config import Augmentation
from cavis.data.looks import Blur, Look, Noise, Tone, draw_corruption
from cavis.records import Clip, Targets


@dataclass(frozen=True)
class Resize:
    """Bring a picture to a size."""

    height: int
    width: int

    def __call__(self, picture: Image.Image, t: int, how: Resampling) -> Image.Image:
        """Resample the picture; shrinking averages, unless ``how`` is the nearest pixel."""
        return picture.resize((self.width, self.height), how)


@dataclass(frozen=True)
class Crop:
    """Keep a window."""

    top: int
    left: int
    height: int
    width: int

    def __call__(self, picture: Image.Image, t: int, how: Resampling) -> Image.Image:
        """Cut the window out."""
        return picture.crop((self.left, self.top, self.left + self.width, self.top + self.height))


@dataclass(frozen=True)
class Flip:
    """Mirror left to right."""

    def __call__(self, picture: Image.Image, t: int, how: Resampling) -> Image.Image:
        """Mirror the picture."""
        return picture.transpose(Transpose.FLIP_LEFT_RIGHT)


@dataclass(frozen=True)
class Rotate:
    """Turn every frame by an angle of its own about one centre; what comes into view is black and unannotated."""

    angles: tuple[float, ...]
    """Degrees, counter-clockwise, one a frame."""
    centre: tuple[float, float]
    """Place of the centre as shares of width and height, 0 ... 1."""

    def __call__(self, picture: Image.Image, t: int, how: Resampling) -> Image.Image:
        """Turn frame ``t`` by its angle."""
        centre = (self.centre[0] * picture.width, self.centre[1] * picture.height)
        return picture.rotate(self.angles[t], how, center=centre)


@dataclass(frozen=True)
class Drift:
    """Show a part of the picture in every frame, brought to the size of the whole: the camera moves and zooms."""

    windows: tuple[tuple[float, float, float], ...]
    """Left, top and side of what each frame shows, as shares of width and height."""

    def __call__(self, picture: Image.Image, t: int, how: Resampling) -> Image.Image:
        """Bring the window of frame ``t`` to full size."""
        left, top, side = self.windows[t]
        width, height = picture.size
        box = (left * width, top * height, (left + side) * width, (top + side) * height)
        return picture.resize(picture.size, how, box=box)


Step = Resize | Crop | Flip | Rotate | Drift | Look
OF_EACH_FRAME = Rotate | Drift | Blur | Noise
"""What differs between the frames of a clip."""
Size = tuple[int, int]
"""Height and width in pixels."""


def draw_steps(
    augmentation: Augmentation, size: Size, frames: int, rng: np.random.Generator, *, still: bool = False
) -> tuple[Step, ...]:
    """Draw what happens to a clip of ``frames`` frames of ``size``; ``still``: all of them are one picture.

    The order is: crop, resize, window, flip, rotation, drift, tone, corruption (the released code's, as far as it has
    them).
    """
    steps: list[Step] = []
    if augmentation.crop and rng.random() < augmentation.crop:
        steps += _draw_crop(augmentation, size, rng)
        size = _size_after(steps, size)
    steps += _draw_size(augmentation, size, rng)
    if augmentation.flip and rng.random() < augmentation.flip:
        steps.append(Flip())
    if augmentation.rotation and still:
        angles = np.sort(rng.uniform(-augmentation.rotation, augmentation.rotation, frames))
        angles = angles[::-1] if rng.random() < 0.5 else angles
        x, y = rng.uniform(0.4, 0.6, 2)
        steps.append(Rotate(tuple(angles.tolist()), (float(x), float(y))))
    if augmentation.drift and still:
        steps.append(_draw_drift(augmentation.drift, frames, rng))
    shares = np.array([augmentation.brightness, augmentation.contrast, augmentation.saturation])
    if shares.any():
        steps.append(Tone(*(1 + shares * rng.uniform(-1, 1, 3)).tolist()))
    if augmentation.corruption:
        apart = rng.spawn(1)[0]  # so that the clips are those without corruption in all else
        steps += draw_corruption(frames, apart) if apart.random() < augmentation.corruption else []
    return tuple(steps)


def _draw_drift(most: float, frames: int, rng: np.random.Generator) -> Drift:
    """From one window to another, in even steps; both lie within the picture, and so do those between them."""
    sides = 1 - most * rng.random(2)
    ends = [(*(rng.random(2) * (1 - side)).tolist(), float(side)) for side in sides]
    return Drift(tuple(tuple(row) for row in np.linspace(*ends, num=frames).tolist()))


def _draw_crop(augmentation: Augmentation, size: Size, rng: np.random.Generator) -> list[Step]:
    """Resize, and a window whose height and width are drawn independently."""
    resize = fit(size, int(rng.choice(augmentation.crop_short_sides)), augmentation.crop_max_side)
    least, most = augmentation.crop_range
    height, width = (int(rng.integers(min(side, least), min(side, most) + 1)) for side in (resize.height, resize.width))
    return [resize, _draw_window((resize.height, resize.width), (height, width), rng)]


def _draw_size(augmentation: Augmentation, size: Size, rng: np.random.Generator) -> list[Step]:
    """The size of the clip: one of the short sides or a scale, and a window where that is larger than allowed."""
    steps: list[Step] = []
    window = augmentation.window
    if augmentation.scale_jitter:
        scale = window / max(size) * rng.uniform(*augmentation.scale_jitter)
        steps.append(Resize(*(max(1, int(side * scale + 0.5)) for side in size)))
    elif augmentation.short_sides:
        steps.append(fit(size, int(rng.choice(augmentation.short_sides)), augmentation.max_side))
    size = _size_after(steps, size)
    if window and max(size) > window:
        steps.append(_draw_window(size, (min(size[0], window), min(size[1], window)), rng))
    return steps


def _draw_window(size: Size, window: Size, rng: np.random.Generator) -> Crop:
    """A window of a size, anywhere."""
    top, left = (int(rng.integers(0, side - kept + 1)) for side, kept in zip(size, window, strict=True))
    return Crop(top, left, *window)


def fit(size: Size, short_side: int, max_side: int) -> Resize:
    """The size whose short side is ``short_side``, unless the long one would pass ``max_side``."""
    scale = min(short_side / min(size), max_side / max(size))
    return Resize(*(max(1, int(side * scale + 0.5)) for side in size))


def _size_after(steps: Sequence[Step], size: Size) -> Size:
    """The size the last resize or crop leaves."""
    sizes = [(step.height, step.width) for step in steps if isinstance(step, Resize | Crop)]
    return sizes[-1] if sizes else size


def augment(clip: Clip, steps: Sequence[Step]) -> Clip:
    """Apply steps to a clip; an object without a pixel left in a frame is absent there, and left out if in all.

    What a still picture's frames share is done once; one that turns or drifts is still no longer.
    """
    if not steps:
        return clip
    shared = tuple(takewhile(lambda step: not isinstance(step, OF_EACH_FRAME), steps)) if clip.still else ()
    frames, masks = clip.frames, clip.targets.masks
    if shared:
        frames = _frames(frames[:1], shared).expand(len(frames), -1, -1, -1).contiguous()
        masks = _masks(masks[:, :1], shared, frames.shape[-2:]).repeat(1, len(frames), 1, 1)
    rest = tuple(steps)[len(shared) :]
    if rest:
        frames = _frames(frames, rest)
        masks = _masks(masks, rest, frames.shape[-2:])
    return replace(clip, frames=frames, targets=seen_in(clip.targets, masks), still=clip.still and not rest)


def seen_in(targets: Targets, masks: Bool[Tensor, "N T H W"], least: int = 1) -> Targets:
    """The targets with other masks: present where they were annotated and have pixels enough, left out if nowhere."""
    present = targets.present & (masks.flatten(2).sum(dim=2) >= least)
    kept = present.any(dim=1)
    rows = {"labels": targets.labels[kept], "ids": targets.ids[kept], "present": present[kept]}
    return replace(targets, masks=(masks & present[..., None, None])[kept], **rows)


def _frames(frames: UInt8[Tensor, "T 3 H W"], steps: Sequence[Step]) -> UInt8[Tensor, "T 3 H2 W2"]:
    pictures = frames.permute(0, 2, 3, 1).contiguous().numpy()
    return _as_frames([_apply(picture, steps, t, Resampling.BILINEAR) for t, picture in enumerate(pictures)])


def _as_frames(pictures: Sequence[UInt8[np.ndarray, "H W 3"]]) -> UInt8[Tensor, "T 3 H W"]:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def _masks(masks: Bool[Tensor, "N T H W"], steps: Sequence[Step], size: Sequence[int]) -> Bool[Tensor, "N T H2 W2"]:
    """Masks follow the frames to their new ``size``; empty ones need no work."""
    steps = [step for step in steps if not isinstance(step, Look)]
    changed = np.zeros((*masks.shape[:2], *size), dtype=bool)
    for n, t in masks.flatten(2).any(dim=2).nonzero().tolist():
        changed[n, t] = _apply(masks[n, t].numpy().view(np.uint8), steps, t, Resampling.NEAREST)
    return torch.from_numpy(changed)


def _apply(picture: UInt8[np.ndarray, "*shape"], steps: Sequence[Step], t: int, how: Resampling) -> np.ndarray:
    image = Image.fromarray(picture)
    for step in steps:
        image = step(image, t, how)
    return np.asarray(image)


@dataclass(frozen=True)
class Paste:
    """Which objects of another clip come in, how large, and where."""

    rows: tuple[int, ...]
    """Rows of the other clip's targets."""
    scale: float
    place: tuple[float, float]
    """Where the other clip's picture lies, as shares of the room there is (0: top or left, 1: bottom or right)."""


def draw_paste(augmentation: Augmentation, other: Clip, rng: np.random.Generator) -> Paste:
    """Each object of ``other`` comes along with probability 1/2, at least one if there are any."""
    count = len(other.targets.labels)
    rows = np.flatnonzero(rng.random(count) < 0.5).tolist() or ([int(rng.integers(count))] if count else [])
    scale, (y, x) = float(rng.uniform(*augmentation.paste_scale)), rng.uniform(0, 1, 2).tolist()
    return Paste(tuple(rows), scale, (y, x))


def paste(clip: Clip, other: Clip, drawn: Paste) -> Clip:
    """Put objects of ``other`` in front of a clip of as many frames (ValueError otherwise).

    Frame by frame they cover what is behind them. Their ids go on from those of the clip. What is unknown in the clip
    stays so; objects of such a label may come in, for what is annotated is learned all the same.
    """
    if len(clip.frames) != len(other.frames):
        raise ValueError(
            f"expected clips of one length to paste, got {len(clip.frames)} and {len(other.frames)} frames"
        )
    rows = torch.tensor(drawn.rows, dtype=torch.int64)
    height, width = (max(1, int(side * drawn.scale + 0.5)) for side in other.frames.shape[-2:])
    scaled = augment(replace(other, targets=_rows(other.targets, rows)), (Resize(height, width),))
    if len(scaled.targets.labels) == 0:
        return clip
    placed = _placer((clip.frames.shape[-2], clip.frames.shape[-1]), (height, width), drawn.place)
    masks = placed(scaled.targets.masks)
    front = masks.any(dim=0)
    frames = torch.where(front[:, None], placed(scaled.frames), clip.frames)
    behind, before = seen_in(clip.targets, clip.targets.masks & ~front), seen_in(scaled.targets, masks)
    first = int(clip.targets.ids.max()) + 1 if len(clip.targets.ids) else 0
    targets = Targets(
        labels=torch.cat((behind.labels, before.labels)),
        ids=torch.cat((behind.ids, torch.arange(first, first + len(before.ids)))),
        masks=torch.cat((behind.masks, before.masks)),
        present=torch.cat((behind.present, before.present)),
        unknown=clip.targets.unknown,
    )
    return replace(clip, frames=frames, targets=targets, still=clip.still and other.still)


@dataclass(frozen=True)
class Twin:
    """Which object of a clip comes a second time, and where its copy stands."""

    row: int
    """Of the clip's targets."""
    mirrored: bool
    aside: tuple[float, float]
    """From the middle of the object to that of its copy: down in heights, to the right in widths of the object."""


def draw_twin(clip: Clip, rng: np.random.Generator) -> Twin | None:
    """Any object with a pixel, its copy beside it or half in front of it; None where there is none."""
    rows = clip.targets.masks.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
    if not rows:
        return None
    side = rng.choice((-1, 1)) * rng.uniform(0.4, 1.1)
    row = rows[int(rng.integers(len(rows)))]
    return Twin(row, bool(rng.random() < 0.5), (float(rng.uniform(-0.2, 0.2)), float(side)))


def add_twin(clip: Clip, drawn: Twin) -> Clip:
    """Put a copy of an object in front of the clip: two that look alike are two all the same."""
    alone = replace(clip, targets=_rows(clip.targets, torch.tensor([drawn.row])))
    height, width = clip.frames.shape[-2:]
    ys, xs = (places.nonzero() for places in (alone.targets.masks.any(dim=-1), alone.targets.masks.any(dim=-2)))
    (top, bottom), (left, right) = ((int(at[:, -1].min()), int(at[:, -1].max()) + 1) for at in (ys, xs))
    down, across = round(drawn.aside[0] * (bottom - top)), round(drawn.aside[1] * (right - left))
    if drawn.mirrored:
        across += left + right - width  # back to where it was before the picture was mirrored
    window = Crop(-down, -across, height, width)
    copy = augment(alone, (Flip(), window) if drawn.mirrored else (window,))
    return paste(clip, copy, Paste(tuple(range(len(copy.targets.labels))), 1.0, (0.0, 0.0)))


def _rows(targets: Targets, rows: Tensor) -> Targets:
    kept = {name: getattr(targets, name)[rows] for name in ("labels", "ids", "masks", "present")}
    return replace(targets, **kept)


def _placer(size: Size, other: Size, place: tuple[float, float]) -> Callable[[Tensor], Tensor]:
    """Lay maps of one size on empty ones of another; what sticks out is cut off."""
    offsets = [round((a - b) * share) for a, b, share in zip(size, other, place, strict=True)]
    to = tuple(slice(max(o, 0), min(o + b, a)) for a, b, o in zip(size, other, offsets, strict=True))
    of = tuple(slice(max(-o, 0), min(a - o, b)) for a, b, o in zip(size, other, offsets, strict=True))

    def place_on_empty(maps: Tensor) -> Tensor:
        canvas = maps.new_zeros(*maps.shape[:-2], *size)
        canvas[..., to[0], to[1]] = maps[..., of[0], of[1]]
        return canvas

    return place_on_empty
