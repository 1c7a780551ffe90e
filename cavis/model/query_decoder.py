"""The masked-attention decoder of Mask2Former: queries become instances by looking where their own masks are."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cavis.model.layers import CrossAttention, FeedForward, Heads, SelfAttention, init_transformer
from cavis.model.pixel_decoder import PixelFeatures
from cavis.model.position import sine_position


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward; in this order, post-norm."""

    def __init__(self, hidden: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.cross = CrossAttention(hidden, heads)
        self.self_attention = SelfAttention(hidden, heads)
        self.feedforward = FeedForward(hidden, feedforward)

    def forward(
        self,
        x: Float[Tensor, "B Q C"],
        position: Float[Tensor, "Q C"],
        level: "Level",
        blocked: Bool[Tensor, "B Q L"],
    ) -> Float[Tensor, "B Q C"]:
        """One round of looking at one level."""
        memory = self.cross.attention.project(level.tokens + level.position, level.tokens)
        x = self.cross(x, x + position, memory, blocked)
        return self.feedforward(self.self_attention(x, position))


class Level(NamedTuple):
    """One level as the decoder attends to it."""

    tokens: Float[Tensor, "B L C"]
    position: Float[Tensor, "L C"]
    mask_features: Float[Tensor, "B C _ _"]
    """The mask features at the level's size: resizing commutes with the channel product, so masks are made here."""


class QueryDecoder(nn.Module):
    """Learned queries, a stack of :class:`DecoderLayer` over three levels in turn, and the shared heads."""

    def __init__(
        self, *, queries: int, hidden: int, heads: int, layers: int, feedforward: int, num_classes: int
    ) -> None:
        super().__init__()
        self.query_feature = nn.Embedding(queries, hidden)
        self.query_position = nn.Embedding(queries, hidden)
        self.level_embedding = nn.Embedding(3, hidden)
        self.layers = nn.ModuleList(DecoderLayer(hidden, heads, feedforward) for _ in range(layers))
        self.heads = Heads(hidden, num_classes)
        init_transformer(self.layers)

    def forward(self, features: PixelFeatures) -> tuple[Float[Tensor, "B Q C"], ...]:
        """The slots before the first layer and after each layer, all before the final norm."""
        levels = [self._level(i, features) for i in range(len(features.levels))]
        x = self.query_feature.weight.expand(features.mask_features.shape[0], -1, -1)
        steps = [x]
        for i, layer in enumerate(self.layers):
            level = levels[i % len(levels)]
            x = layer(x, self.query_position.weight, level, self._blocked(x, level))
            steps.append(x)
        return tuple(steps)

    def _level(self, i: int, features: PixelFeatures) -> Level:
        feature = features.levels[i]
        size = feature.shape[-2:]
        return Level(
            tokens=feature.flatten(2).transpose(1, 2) + self.level_embedding.weight[i],
            position=sine_position(size[0], size[1], feature.shape[1], like=feature),
            mask_features=F.interpolate(features.mask_features, size=size, mode="bilinear", align_corners=False),
        )

    @torch.no_grad()
    def _blocked(self, x: Float[Tensor, "B Q C"], level: Level) -> Bool[Tensor, "B Q L"]:
        """Positions outside each query's present mask; a query with an empty mask may look everywhere."""
        logits = self.heads.masks(self.heads.norm(x), level.mask_features).flatten(2)
        blocked = logits.sigmoid() < 0.5
        return blocked & ~blocked.all(dim=-1, keepdim=True)
