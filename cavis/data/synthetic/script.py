"""Who plays in a clip, and where everyone is in each of its frames."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cavis.data.synthetic.config import CATEGORIES, TwinsConfig
from cavis.data.synthetic.scenery import bush, post, wall
from cavis.data.synthetic.sprites import Sprite, cutouts

Random = np.random.Generator
STREAMS = ("cast", "twins", "companions", "singles", "obstacles", "background", "camera", "film")
"""Each aspect of a clip has its own random numbers, so that taking one away leaves the others as they are."""

_MEETING_PERIOD = (20.0, 28.0)
"""Frames from one meeting of a pair to the next."""
_LINGER = 1.8
"""Exponent of the approach: above 1, twins slow down where they hide each other, and inertia tells nothing."""


@dataclass(frozen=True)
class Paths:
    """Where one thing is in every frame, in pixels of the world (the frame, if the camera stood still)."""

    x: Float[np.ndarray, "T"]
    y: Float[np.ndarray, "T"]
    size: Float[np.ndarray, "T"]
    """Longest side."""
    tilt: Float[np.ndarray, "T"]
    """Radians, clockwise."""


@dataclass(frozen=True)
class Actor:
    """One annotated thing of a clip."""

    cutout: str
    paths: Paths
    flip: bool
    light: Float[np.ndarray, "3"]
    """Factors on red, green and blue."""
    depth: float
    """Larger is nearer to the camera."""
    twin_of: int = -1
    """Index of the other twin in the plan, -1 if it has none."""
    companion_of: int = -1
    """Index of the twin it moves along with, -1 if it is no companion."""

    @property
    def label(self) -> int:
        """Class index, 0 ... 19."""
        return CATEGORIES.index(cutouts()[self.cutout])


@dataclass(frozen=True)
class Obstacle:
    """A thing in the foreground that stands still and is not annotated."""

    sprite: Sprite
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Camera:
    """The view in every frame."""

    x: Float[np.ndarray, "T"]
    """How far the view is shifted to the right, in pixels."""
    y: Float[np.ndarray, "T"]
    zoom: Float[np.ndarray, "T"]
    """Magnification about the centre of the view."""


@dataclass(frozen=True)
class _Meeting:
    """What a pair of twins shares."""

    x: float
    y: float
    size: float
    direction: float
    """Radians; the twins approach along it."""
    paths: tuple[Paths, Paths]


def random_streams(seed: int) -> dict[str, Random]:
    """One independent generator for each aspect of a clip."""
    children = np.random.SeedSequence(seed).spawn(len(STREAMS))
    return {name: np.random.default_rng(child) for name, child in zip(STREAMS, children, strict=True)}


def write_script(streams: dict[str, Random], config: TwinsConfig) -> tuple[list[Actor], list[Obstacle]]:
    """Plan all actors (companions included, whatever the config says) and obstacles of one clip."""
    cast = streams["cast"]
    pairs, singles = _count(cast, config.twin_pairs), _count(cast, config.singles)
    names, depths = _choose_cutouts(cast), iter(cast.permutation(2 * pairs + singles).astype(float))
    actors: list[Actor] = []
    meetings = [_plan_meeting(streams["twins"], config, number, pairs) for number in range(pairs)]
    for number, meeting in enumerate(meetings):
        look = _look(streams["twins"], names[3 * number])
        first = len(actors)
        for side in (0, 1):
            twin = Actor(paths=meeting.paths[side], depth=next(depths), twin_of=first + 1 - side, **look)
            actors.append(twin)
        for side in (0, 1):
            name = names[3 * number + 1 + side]
            actors.append(_plan_companion(streams["companions"], config, (meeting, side), name))
            twin = actors[first + side]
            nearer = streams["companions"].choice((-0.3, 0.3))
            actors[-1] = replace(actors[-1], depth=twin.depth + nearer, companion_of=first + side)
    for number in range(singles):
        paths, look = _plan_single(streams["singles"], config), _look(streams["singles"], names[3 * pairs + number])
        actors.append(Actor(paths=paths, depth=next(depths), **look))
    return actors, _plan_obstacles(streams["obstacles"], config, meetings)


def plan_camera(random: Random, config: TwinsConfig) -> Camera:
    """A slow pan and zoom with a little shake."""
    amount = random.uniform(*config.camera_motion)
    reach = 0.12 * config.height * amount
    x = reach * (0.9 * _sway(random, config.frames) + 0.1 * _sway(random, config.frames, period=(4, 8)))
    y = reach * (0.9 * _sway(random, config.frames) + 0.1 * _sway(random, config.frames, period=(4, 8)))
    return Camera(x, y, 1 + 0.05 * amount * _sway(random, config.frames))


def _count(random: Random, bounds: tuple[int, int]) -> int:
    return int(random.integers(bounds[0], bounds[1] + 1))


def _choose_cutouts(random: Random) -> list[str]:
    """One cut-out of each class in random order: within a clip only twins look alike."""
    by_category: dict[str, list[str]] = {name: [] for name in CATEGORIES}
    for name, category in cutouts().items():
        by_category[category].append(name)
    order = random.permutation(len(CATEGORIES))
    picks = random.uniform(size=len(CATEGORIES))
    groups = [by_category[CATEGORIES[index]] for index in order]
    return [group[int(pick * len(group))] for group, pick in zip(groups, picks, strict=True)]


def _look(random: Random, name: str) -> dict:
    tint = random.uniform(0.85, 1.15) * random.uniform(0.94, 1.06, 3)
    return {"cutout": name, "flip": bool(random.integers(2)), "light": tint.astype(np.float32)}


def _sway(random: Random, frames: int, period: tuple[float, float] = (20, 60)) -> Float[np.ndarray, "T"]:
    """A slow oscillation within -1 ... 1."""
    t = np.arange(frames)
    return np.sin(2 * math.pi * (t / random.uniform(*period) + random.uniform()))


def _tilt(random: Random, config: TwinsConfig) -> Float[np.ndarray, "T"]:
    share = random.uniform(-0.5, 0.5) + 0.5 * random.uniform() * _sway(random, config.frames)
    return math.radians(config.rotation) * share


def _plan_meeting(random: Random, config: TwinsConfig, number: int, pairs: int) -> _Meeting:
    height, width = config.height, config.width
    size = random.uniform(*config.scale) * height
    x = width * random.uniform(0.3, 0.7)
    band = (number + 0.5) / pairs if pairs > 1 else random.uniform(0.4, 0.6)
    y = height * (band + random.uniform(-0.08, 0.08))
    tilted = math.radians(25) if random.uniform() < 0.8 else math.pi / 2
    direction = random.uniform(-tilted, tilted) + math.pi * random.integers(2)
    ahead = _separation(random, config)
    aside = 0.5 * size * (1 - config.occlusion) * random.uniform(-1, 1) * np.ones(config.frames)
    drift = 0.2 * random.uniform(*config.speed) * height * (np.arange(config.frames) - config.frames / 2)
    heading = random.uniform(0, 2 * math.pi)
    # Everything that is not the path is shared: nothing but the surroundings tells twins apart.
    sizes = size * (1 + 0.1 * _sway(random, config.frames))
    tilt = _tilt(random, config)
    cos, sin = math.cos(direction), math.sin(direction)
    wander = 0.03 * height * _sway(random, config.frames)
    middle_x = x + math.cos(heading) * drift
    middle_y = y + math.sin(heading) * np.clip(drift, -0.12 * height, 0.12 * height) + wander
    sides = [
        Paths(middle_x + sign * (cos * ahead - sin * aside), middle_y + sign * (sin * ahead + cos * aside), sizes, tilt)
        for sign in (1, -1)
    ]
    return _Meeting(x, y, size, direction, (sides[0], sides[1]))


def _separation(random: Random, config: TwinsConfig) -> Float[np.ndarray, "T"]:
    """Signed distance of a twin from the middle of its pair: zero where the twins meet."""
    frames = config.frames
    meeting = frames * random.uniform(0.38, 0.62)
    period = random.uniform(*_MEETING_PERIOD)
    farthest = random.uniform(*config.speed) * config.height * period / 2
    t = np.arange(frames)
    met = np.floor((t - meeting) / period) - math.floor(-meeting / period)
    changes = np.where(random.uniform(size=math.ceil(frames / period) + 1) < config.through, -1, 1)
    side = np.concatenate(([1], np.cumprod(changes)))[met.astype(int)]
    return side * farthest * np.abs(np.sin(math.pi * (t - meeting) / period)) ** _LINGER


def _plan_companion(random: Random, config: TwinsConfig, beside: tuple[_Meeting, int], name: str) -> Actor:
    meeting, side = beside
    twin = meeting.paths[side]
    share = random.uniform(*config.companion_scale)
    # Beside the path rather than on it, so that it stays in view while its twin is hidden.
    angle = meeting.direction + random.choice((-1, 1)) * math.radians(90 + random.uniform(-40, 40))
    gap = 0.5 * (1 + share) * random.uniform(0.74, 0.9)
    outside = meeting.y + meeting.size * gap * math.sin(angle)
    if not 0.08 * config.height < outside < 0.92 * config.height:
        angle = -angle
    bob = 0.05 * _sway(random, config.frames, period=(6, 14))
    x = twin.x + twin.size * gap * math.cos(angle)
    y = twin.y + twin.size * (gap * math.sin(angle) + bob)
    paths = Paths(x, y, share * twin.size, _tilt(random, config))
    return Actor(paths=paths, depth=0.0, **_look(random, name))


def _plan_single(random: Random, config: TwinsConfig) -> Paths:
    height, width, frames = config.height, config.width, config.frames
    size = random.uniform(*config.scale) * height
    step = random.uniform(*config.speed) * height
    heading = random.uniform(0, 2 * math.pi)
    t = np.arange(frames) - frames * random.uniform(0.2, 0.8)
    x = width * random.uniform(0.15, 0.85) + step * math.cos(heading) * t
    y = height * random.uniform(0.15, 0.85) + 0.5 * step * math.sin(heading) * t
    y = y + 0.05 * height * _sway(random, frames)
    return Paths(x, y, size * (1 + 0.1 * _sway(random, frames)), _tilt(random, config))


def _plan_obstacles(random: Random, config: TwinsConfig, meetings: list[_Meeting]) -> list[Obstacle]:
    places = []
    for meeting in meetings:
        hides, shift = random.uniform() < config.hidden_crossings, random.uniform(-0.1, 0.1)
        if hides:
            places.append((meeting.x + shift * meeting.size, meeting.y, meeting.size * random.uniform(0.95, 1.15)))
    for _ in range(_count(random, config.obstacles)):
        size = config.height * random.uniform(0.12, 0.28)
        places.append((config.width * random.uniform(0.05, 0.95), config.height * random.uniform(0.5, 1.0), size))
    return [_build_obstacle(random, config, place) for place in places]


def _build_obstacle(random: Random, config: TwinsConfig, place: tuple[float, float, float]) -> Obstacle:
    x, y, size = place
    kind = random.integers(3)
    if kind == 0:
        # Taller than any view, so that no end of a post ever shows.
        width, height, y = 0.8 * size, 1.5 * config.height, config.height / 2
        sprite = post(random, width, height)
    elif kind == 1:
        width, height = size * random.uniform(0.9, 1.2), size * random.uniform(0.9, 1.2)
        sprite = wall(random, width, height)
    else:
        width, height = size * random.uniform(1.1, 1.3), size * random.uniform(1.0, 1.2)
        sprite = bush(random, width, height)
    return Obstacle(sprite, x, y, max(sprite.levels[0].size) - 4)
