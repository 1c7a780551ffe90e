"""One clip of the twins' world: planned once, rendered frame by frame in any order."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageFilter

from cavis.data.synthetic.config import TwinsConfig
from cavis.data.synthetic.scenery import background
from cavis.data.synthetic.script import Actor, Obstacle, plan_camera, random_streams, write_script
from cavis.data.synthetic.sprites import Patch, Pose, cast_shadow, claim, cutout, draw, paint

_NOISE_MARGIN = 64
_NOBODY = -1


class TwinsClip:
    """The plan of one clip; row ``n`` of everything is the same object in every frame.

    ``seed`` (a non-negative integer, see :func:`clip_seed`) and ``config`` determine every pixel.
    Raises ValueError for a negative seed.
    """

    labels: Int[np.ndarray, "N"]
    """Class of each object, an index into ``CATEGORIES``."""
    cutouts: tuple[str, ...]
    """File name of each object's cut-out."""
    twin_of: Int[np.ndarray, "N"]
    """Index of each object's twin, -1 where it has none."""
    companion_of: Int[np.ndarray, "N"]
    """Index of the twin a companion moves along with, -1 for all others."""

    def __init__(self, seed: int, config: TwinsConfig = TwinsConfig()):  # noqa: B008 - frozen
        if seed < 0:
            raise ValueError(f"expected a seed of at least 0, got {seed}")
        self.seed = seed
        self.config = config
        streams = random_streams(seed)
        actors, self._obstacles = write_script(streams, config)
        self._actors = actors if config.companions else _without_companions(actors)
        self._camera = plan_camera(streams["camera"], config)
        self._margin = math.ceil(0.12 * config.height + 0.03 * max(config.height, config.width)) + 3
        contrast = streams["background"].uniform(*config.background_contrast)
        size = (config.height + 2 * self._margin, config.width + 2 * self._margin)
        self._background = background(streams["background"], *size, contrast)
        film = streams["film"]
        self._blur, self._noise = film.uniform(*config.blur), film.uniform(*config.noise)
        self._exposure = np.float32(film.uniform(0.85, 1.1))
        self._noise_corners = film.integers(0, _NOISE_MARGIN, (config.frames, 2))
        self._order = sorted(range(len(self._actors)), key=lambda index: self._actors[index].depth)
        self.labels = np.array([actor.label for actor in self._actors], dtype=np.int64)
        self.cutouts = tuple(actor.cutout for actor in self._actors)
        self.twin_of = np.array([actor.twin_of for actor in self._actors], dtype=np.int64)
        self.companion_of = np.array([actor.companion_of for actor in self._actors], dtype=np.int64)

    def __len__(self) -> int:
        return self.config.frames

    def render(self, t: int) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "N H W"]]:
        """Frame ``t`` (0 ... frames - 1, else IndexError): RGB, and the visible pixels of each object.

        The masks are disjoint: what another object or an obstacle covers is not part of a mask.
        Frames do not depend on the order in which they are rendered.
        """
        self._check(t)
        canvas = self._view(t)
        owner = np.full(canvas.shape[:2], _NOBODY, dtype=np.int8)
        for index in self._order:
            patch = self._actor_patch(index, t)
            if patch is not None:
                cast_shadow(canvas, patch, self._actors[index].paths.size[t])
                paint(canvas, patch, self._actors[index].light)
                claim(owner, patch, index)
        for obstacle in self._obstacles:
            patch = self._obstacle_patch(obstacle, t)
            if patch is not None:
                paint(canvas, patch, np.ones(3, dtype=np.float32))
                claim(owner, patch, _NOBODY)
        return self._expose(canvas, t), owner == np.arange(len(self._actors), dtype=np.int8)[:, None, None]

    def whole_masks(self, t: int) -> Bool[np.ndarray, "N H W"]:
        """The pixels each object would show in frame ``t`` if nothing hid it."""
        self._check(t)
        masks = np.zeros((len(self._actors), self.config.height, self.config.width), dtype=bool)
        for index, mask in enumerate(masks):
            patch = self._actor_patch(index, t)
            if patch is not None:
                claim(mask, patch, True)
        return masks

    def _check(self, t: int) -> None:
        if not 0 <= t < self.config.frames:
            raise IndexError(f"expected a frame within 0 ... {self.config.frames - 1}, got {t}")

    def _view(self, t: int) -> Float[np.ndarray, "H W 3"]:
        """The background as the camera sees it."""
        height, width = self.config.height, self.config.width
        zoom = self._camera.zoom[t]
        left = self._margin + self._camera.x[t] + width / 2 * (1 - 1 / zoom)
        top = self._margin + self._camera.y[t] + height / 2 * (1 - 1 / zoom)
        box = (left, top, left + width / zoom, top + height / zoom)
        view = self._background.resize((width, height), Image.Resampling.BILINEAR, box=box)
        return np.asarray(view, dtype=np.float32).copy()

    def _seen(self, pose: Pose, t: int) -> Pose:
        """From the world to the view."""
        zoom = float(self._camera.zoom[t])
        middle = (self.config.width / 2, self.config.height / 2)
        x = middle[0] + (pose.x - middle[0] - self._camera.x[t]) * zoom
        y = middle[1] + (pose.y - middle[1] - self._camera.y[t]) * zoom
        return replace(pose, x=float(x), y=float(y), size=float(pose.size * zoom))

    def _actor_patch(self, index: int, t: int) -> Patch | None:
        actor = self._actors[index]
        paths = actor.paths
        pose = Pose(paths.x[t], paths.y[t], paths.size[t], float(paths.tilt[t]), actor.flip)
        return draw(cutout(actor.cutout), self._seen(pose, t), (self.config.height, self.config.width))

    def _obstacle_patch(self, obstacle: Obstacle, t: int) -> Patch | None:
        pose = self._seen(Pose(obstacle.x, obstacle.y, obstacle.size), t)
        return draw(obstacle.sprite, pose, (self.config.height, self.config.width))

    def _expose(self, canvas: Float[np.ndarray, "H W 3"], t: int) -> UInt8[np.ndarray, "H W 3"]:
        """What the lens and the sensor make of the scene."""
        canvas *= self._exposure
        if self._blur > 0.1:
            sharp = Image.fromarray(np.minimum(canvas, 255, out=canvas).astype(np.uint8))
            canvas = np.asarray(sharp.filter(ImageFilter.BoxBlur(self._blur)), dtype=np.float32)
        y, x = self._noise_corners[t]
        grain = _grain(self.config.height + _NOISE_MARGIN, self.config.width + _NOISE_MARGIN)
        grain = grain[y : y + self.config.height, x : x + self.config.width]
        canvas = grain * np.float32(255 * self._noise) + canvas
        return np.clip(canvas, np.float32(0), np.float32(255), out=canvas).astype(np.uint8)


def _without_companions(actors: list[Actor]) -> list[Actor]:
    kept = [index for index, actor in enumerate(actors) if actor.companion_of < 0]
    place = {index: position for position, index in enumerate(kept)}
    return [replace(actors[index], twin_of=place.get(actors[index].twin_of, -1)) for index in kept]


@lru_cache(maxsize=4)
def _grain(height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    """Noise of standard deviation 1; every frame shows another part of it."""
    return np.random.default_rng(0).standard_normal((height, width, 3), dtype=np.float32)
