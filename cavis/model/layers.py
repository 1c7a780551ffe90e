"""The blocks transformers are made of, post-norm as in the paper's code; one loop over blocks serves them all."""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cavis.records import LayerPrediction


class Mlp(nn.Module):
    """Linear layers with a ReLU between them, and after the last one if asked."""

    def __init__(self, widths: tuple[int, ...], last_relu: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.last_relu = last_relu

    def forward(self, x: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch D"]:
        """Apply the layers to the last axis."""
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i + 1 < len(self.layers) or self.last_relu:
                x = F.relu(x)
        return x


class KeyValue(NamedTuple):
    """Projected keys and values, split into heads."""

    key: Float[Tensor, "*batch heads L d"]
    value: Float[Tensor, "*batch heads L d"]

    def at(self, frame: int) -> "KeyValue":
        """The keys and values of one frame of a window (axis 1)."""
        return KeyValue(self.key[:, frame], self.value[:, frame])


class Attention(nn.Module):
    """Multi-head attention with its own projections, computed by the fused kernel.

    Keys and values are projected by :meth:`project`, ahead of a recurrence that does not change them.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"expected a hidden size that {heads} heads divide, got {hidden}")
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def project(self, key: Float[Tensor, "*batch L C"], value: Float[Tensor, "*batch L C"]) -> KeyValue:
        """Project what is attended to."""
        return KeyValue(self._split(self.key(key)), self._split(self.value(value)))

    def forward(
        self, query: Float[Tensor, "B Q C"], memory: KeyValue, blocked: Bool[Tensor, "B Q L"] | None = None
    ) -> Float[Tensor, "B Q C"]:
        """Attend; positions that are ``blocked`` get no weight. No row may be blocked everywhere."""
        allowed = None if blocked is None else ~blocked[:, None]
        attended = F.scaled_dot_product_attention(
            self._split(self.query(query)), memory.key, memory.value, attn_mask=allowed
        )
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Float[Tensor, "*batch L C"]) -> Float[Tensor, "*batch heads L d"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class CrossAttention(nn.Module):
    """LayerNorm(residual + attention(query, memory))."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(hidden, heads)
        self.norm = nn.LayerNorm(hidden)

    def forward(
        self,
        residual: Float[Tensor, "B Q C"],
        query: Float[Tensor, "B Q C"],
        memory: KeyValue,
        blocked: Bool[Tensor, "B Q L"] | None = None,
    ) -> Float[Tensor, "B Q C"]:
        """Attend and add to ``residual``, which need not be the query."""
        return self.norm(residual + self.attention(query, memory, blocked))


class SelfAttention(nn.Module):
    """LayerNorm(x + attention(x + position, x + position, x))."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(hidden, heads)
        self.norm = nn.LayerNorm(hidden)

    def forward(
        self, x: Float[Tensor, "B Q C"], position: Float[Tensor, "Q C"] | None = None
    ) -> Float[Tensor, "B Q C"]:
        """Let the slots see each other."""
        where = x if position is None else x + position
        return self.norm(x + self.attention(where, self.attention.project(where, x)))


class FeedForward(nn.Module):
    """LayerNorm(x + two linear layers with a ReLU between)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(hidden, width)
        self.contract = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        """Transform each slot on its own."""
        return self.norm(x + self.contract(F.relu_(self.expand(x))))


CLASS_HEAD = "class_head."
"""What the names of those weights contain whose rows are categories."""


class Heads(nn.Module):
    """The final norm and the class and mask heads: slots in, class logits and mask logits out."""

    def __init__(self, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.class_head = nn.Linear(hidden, num_classes + 1)
        self.mask_head = Mlp((hidden, hidden, hidden, hidden))

    def classify(self, core: Float[Tensor, "*batch Q C"]) -> Float[Tensor, "*batch Q K1"]:
        """Class logits of normed slots, "no object" last."""
        return self.class_head(core)

    def masks(
        self, core: Float[Tensor, "*batch Q C"], features: Float[Tensor, "*batch C h w"]
    ) -> Float[Tensor, "*batch Q h w"]:
        """Mask logits of normed slots on the grid of ``features``."""
        return torch.einsum("...qc,...chw->...qhw", self.mask_head(core), features)

    def predict(self, slots: Float[Tensor, "B T Q C"], features: Float[Tensor, "B T C h w"]) -> LayerPrediction:
        """Both, from slots before the norm."""
        core = self.norm(slots)
        return LayerPrediction(self.classify(core), self.masks(core, features))


def init_transformer(module: nn.Module) -> None:
    """Xavier-uniform matrices; biases keep PyTorch's start."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
