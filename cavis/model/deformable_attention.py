"""Multi-scale deformable attention in plain PyTorch: each query looks at a few learned places on every level."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Sizes = tuple[tuple[int, int], ...]
"""Height and width of each level."""


class DeformableAttention(nn.Module):
    """Deformable DETR's attention: learned offsets around a reference point, softmax over all samples."""

    def __init__(self, hidden: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(hidden, heads * levels * points * 2)
        self.weights = nn.Linear(hidden, heads * levels * points)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)
        self._init()

    def _init(self) -> None:
        """Start by looking outwards: head i along its own direction, point k at distance k + 1."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        distance = torch.arange(1, self.points + 1)
        start = direction[:, None, None] * distance[None, None, :, None]
        with torch.no_grad():
            self.offsets.bias.copy_(start.expand(-1, self.levels, -1, -1).flatten())
        for constant in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(constant)
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Float[Tensor, "B Q C"],
        reference: Float[Tensor, "Q 2"],
        memory: Float[Tensor, "B L C"],
        sizes: Sizes,
    ) -> Float[Tensor, "B Q C"]:
        """Sample ``memory`` (all levels, flattened one after the other) around ``reference`` (x, y in 0 ... 1)."""
        batch, queries, _ = query.shape
        shape = (batch, queries, self.heads, self.levels, self.points)
        extent = query.new_tensor([(width, height) for height, width in sizes])
        places = reference[:, None, None, None] + self.offsets(query).view(*shape, 2) / extent[:, None]
        weights = self.weights(query).view(batch, queries, self.heads, -1).softmax(-1).view(shape)
        value = self.value(memory).unflatten(-1, (self.heads, -1))
        return self.out(sample_levels(value, sizes, places, weights))


def sample_levels(
    value: Float[Tensor, "B L heads d"],
    sizes: Sizes,
    places: Float[Tensor, "B Q heads levels points 2"],
    weights: Float[Tensor, "B Q heads levels points"],
) -> Float[Tensor, "B Q C"]:
    """Weighted sum of bilinear samples (zero outside) of every level at ``places`` (x, y in 0 ... 1)."""
    by_head = value.permute(0, 2, 3, 1).flatten(0, 1)
    grids = (2 * places - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    shares = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)
    total = torch.zeros((), device=value.device, dtype=value.dtype)
    levels = by_head.split([height * width for height, width in sizes], dim=-1)
    for level, size, grid, share in zip(levels, sizes, grids, shares, strict=True):
        samples = F.grid_sample(level.unflatten(-1, size), grid, align_corners=False)
        total = total + (samples * share[:, None]).sum(dim=-1)
    return total.unflatten(0, (value.shape[0], -1)).permute(0, 3, 1, 2).flatten(2)


def cell_centres(sizes: Sizes, like: Tensor) -> Float[Tensor, "L 2"]:
    """The centre (x, y in 0 ... 1) of every cell of every level, in memory order."""
    centres = []
    for height, width in sizes:
        y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        centres.append(torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), dim=-1).flatten(0, 1))
    return torch.cat(centres)
