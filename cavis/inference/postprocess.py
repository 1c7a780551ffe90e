"""From averaged logits to instances."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor


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
    if len(logits) == 0:
        return torch.zeros(0, *sizes.frame, dtype=torch.bool)
    padded = (4 * logits.shape[-2], 4 * logits.shape[-1])
    full = F.interpolate(logits[None], size=padded, mode="bilinear", align_corners=False)
    valid = full[..., : sizes.network[0], : sizes.network[1]]
    if sizes.network != sizes.frame:
        valid = F.interpolate(valid, size=sizes.frame, mode="bilinear", align_corners=False)
    return valid[0] > 0


def class_scores(mean_logits: Float[Tensor, "Q K1"]) -> Float[np.ndarray, "Q K"]:
    """Probability of each class; what is missing to 1 is "no object"."""
    return mean_logits.float().softmax(dim=-1)[:, :-1].cpu().numpy()


def best_slots(scores: Float[np.ndarray, "Q K"], top_k: int) -> list[int]:
    """The slots that have a part in the ``top_k`` best (slot, class) pairs, best slot first."""
    order = np.argsort(-scores, axis=None, kind="stable")[:top_k]
    slots = dict.fromkeys(int(i) for i in order // scores.shape[1])
    return list(slots)
