"""Every knob of the twins' world."""

from dataclasses import dataclass

from cavis import categories

CATEGORIES: tuple[str, ...] = categories.TWINS
"""The 20 classes, named as YouTube-VIS and OVIS name them; the index is the label."""

MAX_OBJECTS = 14
"""More annotated objects than this in one clip would crowd out the queries of the small models."""

_COUNTS = ("twin_pairs", "singles", "obstacles")
_FRACTIONS = ("occlusion", "through", "hidden_crossings")
_RANGES = {
    "speed": (0.0, 0.5),
    "scale": (0.05, 1.0),
    "companion_scale": (0.1, 2.0),
    "background_contrast": (0.0, 1.0),
    "camera_motion": (0.0, 1.0),
    "blur": (0.0, 5.0),
    "noise": (0.0, 0.5),
}


@dataclass(frozen=True)
class TwinsConfig:
    """How the clips look and how hard they are; the default is the difficulty the experiments are run at.

    Pairs of numbers are ranges, both ends included: each clip (or each thing in it) draws its own value.
    A value outside of what is stated is a ValueError.
    """

    height: int = 160
    """Of the frames, in pixels, 32 ... 2048; lengths below are fractions of it."""
    width: int = 240
    """Of the frames, in pixels, 32 ... 2048."""
    frames: int = 24
    """Length of a clip, 1 ... 1000."""
    twin_pairs: tuple[int, int] = (2, 2)
    """Number of pairs of twins in a clip."""
    singles: tuple[int, int] = (0, 2)
    """Number of other things that pass by."""
    companions: bool = True
    """Whether each twin's companion is drawn and annotated; the rest of the clip does not depend on it."""
    speed: tuple[float, float] = (0.03, 0.055)
    """How fast things move on average, in frame heights per frame, 0 ... 0.5."""
    occlusion: float = 0.95
    """How exactly twins pass behind each other, 0 ... 1: at 0 they miss each other by up to their size."""
    through: float = 0.5
    """Share of the meetings in which twins change sides; in the others they turn back, 0 ... 1."""
    hidden_crossings: float = 0.5
    """Share of the pairs that meet behind an obstacle, 0 ... 1."""
    obstacles: tuple[int, int] = (0, 1)
    """Number of further posts, walls and bushes in the foreground; these are not annotated."""
    scale: tuple[float, float] = (0.28, 0.46)
    """Longest side of twins and singles, in frame heights, 0.05 ... 1."""
    companion_scale: tuple[float, float] = (0.7, 0.95)
    """Longest side of a companion, in sides of its twin, 0.1 ... 2."""
    rotation: float = 20.0
    """Things tilt by up to this many degrees to either side, 0 ... 180."""
    background_contrast: tuple[float, float] = (0.4, 1.0)
    """How strong the texture of the background is: 0 (one colour) ... 1."""
    camera_motion: tuple[float, float] = (0.0, 1.0)
    """How far the camera moves: 0 (still) ... 1 (pans by an eighth of the height, zooms by 5 %)."""
    blur: tuple[float, float] = (0.0, 0.7)
    """Radius of the lens blur in pixels, 0 ... 5."""
    noise: tuple[float, float] = (0.0, 0.03)
    """Standard deviation of the sensor noise, as a fraction of white, 0 ... 0.5."""

    def __post_init__(self):
        for name in ("height", "width"):
            self._check(name, getattr(self, name), 32, 2048)
        self._check("frames", self.frames, 1, 1000)
        for name in _COUNTS:
            self._check_range(name, 0, MAX_OBJECTS)
        for name in ("height", "width", "frames", *_COUNTS):
            value = getattr(self, name)
            if not all(isinstance(number, int) for number in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"expected whole numbers for {name}, got {value}")
        for name, (low, high) in _RANGES.items():
            self._check_range(name, low, high)
        for name in _FRACTIONS:
            self._check(name, getattr(self, name), 0, 1)
        self._check("rotation", self.rotation, 0, 180)
        # Counted with companions even when they are off: both renderings of a clip come from one plan.
        objects = 4 * self.twin_pairs[1] + self.singles[1]
        if objects > MAX_OBJECTS:
            raise ValueError(
                f"expected at most {MAX_OBJECTS} objects in a clip (4 for each pair of twins, and the singles), "
                f"got up to {objects}"
            )

    @staticmethod
    def _check(name: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:
            raise ValueError(f"expected {name} within {low} ... {high}, got {value}")

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(f"expected {name} to be a range (lowest, highest), got {value!r}")
        if value[0] > value[1]:
            raise ValueError(f"expected the range {name} to go from low to high, got {value}")
        self._check(name, value[0], low, high)
        self._check(name, value[1], low, high)
