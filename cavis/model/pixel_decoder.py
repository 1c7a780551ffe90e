"""From the backbone's four maps to three refined levels and the stride-4 mask features F as in Mask2Former."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cavis.model.deformable_attention import DeformableAttention, Sizes, cell_centres
from cavis.model.layers import FeedForward
from cavis.model.position import sine_position


class PixelFeatures(NamedTuple):
    """What the query decoder looks at."""

    levels: tuple[Float[Tensor, "B C _ _"], ...]
    """Strides 32, 16, 8."""
    mask_features: Float[Tensor, "B C h w"]
    """Stride 4; masks are its products with mask embeddings."""


class EncoderLayer(nn.Module):
    """Deformable self-attention over all levels at once, then a feed-forward layer; post-norm."""

    def __init__(self, hidden: int, heads: int, points: int, feedforward: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(hidden, heads, levels=3, points=points)
        self.norm = nn.LayerNorm(hidden)
        self.feedforward = FeedForward(hidden, feedforward)

    def forward(
        self, x: Float[Tensor, "B L C"], position: Float[Tensor, "L C"], centres: Float[Tensor, "L 2"], sizes: Sizes
    ) -> Float[Tensor, "B L C"]:
        """Refine every cell."""
        x = self.norm(x + self.attention(x + position, centres, x, sizes))
        return self.feedforward(x)


class PixelDecoder(nn.Module):
    """A deformable encoder over strides 32, 16 and 8, and one step of a feature pyramid down to stride 4."""

    def __init__(
        self,
        channels: tuple[int, int, int, int],
        *,
        hidden: int,
        heads: int,
        points: int,
        layers: int,
        feedforward: int,
    ) -> None:
        super().__init__()
        groups = math.gcd(32, hidden)
        self.project = nn.ModuleList(_projection(width, hidden, groups) for width in channels[:0:-1])
        self.level_embedding = nn.Parameter(torch.randn(3, hidden))
        self.encoder = nn.ModuleList(EncoderLayer(hidden, heads, points, feedforward) for _ in range(layers))
        self.lateral = nn.Sequential(nn.Conv2d(channels[0], hidden, 1, bias=False), nn.GroupNorm(groups, hidden))
        self.smooth = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False), nn.GroupNorm(groups, hidden), nn.ReLU()
        )
        self.mask_features = nn.Conv2d(hidden, hidden, 1)

    def forward(self, maps: tuple[Float[Tensor, "B _ _ _"], ...]) -> PixelFeatures:
        """Refine the backbone's maps (strides 4, 8, 16, 32)."""
        coarse_first = [project(x) for project, x in zip(self.project, maps[:0:-1], strict=True)]
        sizes = tuple((x.shape[-2], x.shape[-1]) for x in coarse_first)
        x = torch.cat([level.flatten(2).transpose(1, 2) for level in coarse_first], dim=1)
        position = torch.cat(
            [
                sine_position(*size, x.shape[-1], like=x) + embedding
                for size, embedding in zip(sizes, self.level_embedding, strict=True)
            ]
        )
        centres = cell_centres(sizes, like=x)
        for layer in self.encoder:
            x = layer(x, position, centres, sizes)
        split = x.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
        levels = tuple(level.unflatten(-1, size) for level, size in zip(split, sizes, strict=True))
        fine = self.lateral(maps[0])
        fine = fine + F.interpolate(levels[-1], size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return PixelFeatures(levels, self.mask_features(self.smooth(fine)))


def _projection(width: int, hidden: int, groups: int) -> nn.Sequential:
    """A 1 x 1 convolution to the hidden size, normed."""
    convolution = nn.Conv2d(width, hidden, 1)
    nn.init.xavier_uniform_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(groups, hidden))
