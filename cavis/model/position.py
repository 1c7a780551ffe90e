"""The 2-D sine position encoding."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sine_position(height: int, width: int, channels: int, like: Tensor) -> Float[Tensor, "L C"]:
    """Encode each cell of a ``height`` x ``width`` grid, row by row; first half of the channels y, second half x.

    ``channels`` must be a multiple of 4. The result has the device and dtype of ``like``.
    """
    half = channels // 2
    steps = torch.arange(half, device=like.device, dtype=torch.float32)
    period = 10000.0 ** (2 * torch.div(steps, 2, rounding_mode="floor") / half)

    def encode(n: int) -> Float[Tensor, "n half"]:
        place = torch.arange(1, n + 1, device=like.device, dtype=torch.float32) / (n + 1e-6) * (2 * math.pi)
        angle = place[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=-1).flatten(1)

    y, x = encode(height), encode(width)
    grid = torch.cat((y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)), dim=-1)
    return grid.flatten(0, 1).to(like.dtype)
