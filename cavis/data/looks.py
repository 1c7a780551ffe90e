"""Random changes of how frames look, in training clips: what they show stays where it is, and so do masks.

Pictures that a data set is made of are sharp, bright and clean; frames of a phone's clip are not. Those corruptions
are of the kinds of Hendrycks and Dietterich (Benchmarking Neural Network Robustness, 2019).
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from PIL.Image import Resampling

GREY = 128


@dataclass(frozen=True)
class Tone:
    """Change the colours of frames. Factors of 1 change nothing."""

    brightness: float
    contrast: float
    """About a fixed grey, not about the mean of a frame, so that all frames of a clip are treated alike."""
    saturation: float

    def __call__(self, picture: Image.Image, t: int, how: Resampling) -> Image.Image:
        """Scale the distance from black, from grey, and from the picture without colour."""
        for start, factor in ((0, self.brightness), (GREY, self.contrast)):
            picture = Image.blend(Image.new("RGB", picture.size, (start,) * 3), picture, factor)
        return Image.blend(picture.convert("L").convert("RGB"), picture, self.saturation)


@dataclass(frozen=True)
class Blur:
    """Average each pixel of a frame with its neighbours: motion blur along one side, defocus along both."""

    radii: tuple[tuple[float, float], ...]
    """How many pixels across and down, to either side, one pair a frame."""

    def __call__(self, picture: Image.Image, t: int, how: Resampling) -> Image.Image:
        """Blur frame ``t`` by its radii."""
        return picture.filter(ImageFilter.BoxBlur(self.radii[t]))


@dataclass(frozen=True)
class Noise:
    """Add to every colour of every pixel what a sensor adds in dim light: normal, anew in each frame."""

    deviation: float
    """Of 255 levels."""
    seed: int

    def __call__(self, picture: Image.Image, t: int, how: Resampling) -> Image.Image:
        """Add the noise of frame ``t``."""
        drawn = np.random.default_rng([self.seed, t]).standard_normal((picture.height, picture.width, 3), np.float32)
        return Image.fromarray((np.asarray(picture) + self.deviation * drawn).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Compress:
    """What is left of a frame after it was stored as JPEG."""

    quality: int
    """1 ... 95."""

    def __call__(self, picture: Image.Image, t: int, how: Resampling) -> Image.Image:
        """Store and read the picture."""
        stored = io.BytesIO()
        picture.save(stored, "JPEG", quality=self.quality)
        return Image.open(stored).convert("RGB")


Look = Tone | Blur | Noise | Compress


def draw_corruption(frames: int, rng: np.random.Generator) -> list[Look]:
    """Each of dim light, blur, noise and compression with probability 1/2, in the order in which a camera has them.

    Blur goes evenly from that of the first of ``frames`` to that of the last. Sizes are for frames of some 256 pixels.
    """
    dim, blurred, noisy, stored = (rng.random(4) < 0.5).tolist()
    looks: list[Look] = []
    if dim:
        looks.append(Tone(float(rng.uniform(0.25, 1)), 1.0, float(rng.uniform(0.5, 1))))
    if blurred:
        most = ((6, 0), (0, 6), (1.5, 1.5))[int(rng.integers(3))]
        ends = rng.random((2, 1)) * most
        looks.append(Blur(tuple((across, down) for across, down in np.linspace(*ends, num=frames).tolist())))
    if noisy:
        looks.append(Noise(float(rng.uniform(2, 20)), int(rng.integers(2**32))))
    if stored:
        looks.append(Compress(int(rng.integers(10, 51))))
    return looks
