"""From averaged logits and stride-4 masks to scores and masks of the frame's size."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

MAP_PIXELS = 2**25
"""How many full-size pixels of all maps together are worked on at a time: 128 MiB of fp32."""


class Sizes(NamedTuple):
    """Height and width of a video's frames and of what the network sees of them."""

    frame: tuple[int, int]
    network: tuple[int, int]


def network_size(height: int, width: int, short_side: int, max_side: int) -> tuple[int, int]:
    """The size a frame is brought to: its short side to ``short_side``, unless the long one would pass ``max_side``."""
    scale = min(short_side / min(height, width), max_side / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def to_network(frame: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[Tensor, "3 H2 W2"]:
    """Resize a frame for the network (bilinear)."""
    if frame.shape[:2] != size:
        frame = np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return torch.tensor(frame).permute(2, 0, 1)  # a copy: frames of a reader may be read-only


def instance_masks(logits: Float[Tensor, "N h w"], sizes: Sizes) -> Bool[Tensor, "N H W"]:
    """Masks at the frame's size: up to the padded input, padding cut off, on to the frame, logit > 0."""
    parts = [to_frame(to_input(logits[part], sizes), sizes) > 0 for part in parts_of(len(logits), sizes.frame)]
    return torch.cat(parts) if parts else torch.zeros(0, *sizes.frame, dtype=torch.bool)


def mask_probabilities(logits: Float[Tensor, "N h w"], sizes: Sizes) -> Float[Tensor, "N H W"]:
    """Probabilities at the frame's size, 0 ... 1; unlike for instances the sigmoid comes between the two resizes."""
    return to_frame(to_input(logits, sizes).sigmoid(), sizes)


def to_input(maps: Float[Tensor, "N h w"], sizes: Sizes) -> Float[Tensor, "N H2 W2"]:
    """Stride-4 maps at the size of the network's input, its padding cut off (bilinear)."""
    padded = (4 * maps.shape[-2], 4 * maps.shape[-1])
    full = F.interpolate(maps[None], size=padded, mode="bilinear", align_corners=False)[0]
    return full[:, : sizes.network[0], : sizes.network[1]]


def to_frame(maps: Float[Tensor, "N H2 W2"], sizes: Sizes) -> Float[Tensor, "N H W"]:
    """Maps of the network's input at the frame's size (bilinear)."""
    if sizes.network == sizes.frame:
        return maps
    return F.interpolate(maps[None], size=sizes.frame, mode="bilinear", align_corners=False)[0]


def parts_of(count: int, size: tuple[int, int]) -> list[slice]:
    """Cut ``count`` maps of ``size`` (height, width) into parts that are small enough to be in memory at once."""
    step = max(1, MAP_PIXELS // (size[0] * size[1]))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


class Contest:
    """Which of many maps is the highest at each pixel; they enter one by one, and the first one of equals wins."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.best = torch.full(size, -torch.inf)
        """The highest value so far."""
        self.winner = torch.zeros(size, dtype=torch.int16)
        """The number of the map it comes from."""

    def enter(self, values: Float[Tensor, "H W"], number: int) -> Bool[Tensor, "H W"]:
        """Where the new map wins."""
        better = values > self.best
        self.winner.masked_fill_(better, number)
        torch.maximum(self.best, values, out=self.best)
        return better


def class_probabilities(mean_logits: Float[Tensor, "Q K1"]) -> Float[np.ndarray, "Q K1"]:
    """Probability of each class, and last of "no object"."""
    return mean_logits.float().softmax(dim=-1).cpu().numpy()


def class_scores(mean_logits: Float[Tensor, "Q K1"]) -> Float[np.ndarray, "Q K"]:
    """Probability of each class; what is missing to 1 is "no object"."""
    return class_probabilities(mean_logits)[:, :-1]


def best_slots(scores: Float[np.ndarray, "Q K"], top_k: int) -> list[int]:
    """The slots that have a part in the ``top_k`` best (slot, class) pairs, best slot first."""
    order = np.argsort(-scores, axis=None, kind="stable")[:top_k]
    slots = dict.fromkeys(int(i) for i in order // scores.shape[1])
    return list(slots)
