"""The context of an instance (Sec. 4.1.1): what lies around its boundary, averaged and pooled (Eq. 6)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

ContextKind = Literal["per_channel", "channel_sum", "learnable", "none"]


def inner_boundary(mask: Bool[Tensor, "B Q h w"]) -> Bool[Tensor, "B Q h w"]:
    """Lap(M) > 0 of Eq. 6: the foreground pixels with at least one of their eight neighbours outside the mask.

    The Laplacian's centre weighs +8 and its neighbours -1, so it is positive on the mask's *inner* edge only;
    pixels beyond the image count as outside. Exact, for it never leaves the integers.
    """
    surrounded = -F.max_pool2d(-F.pad(mask.float(), (1, 1, 1, 1)), kernel_size=3, stride=1)
    return mask & (surrounded == 0)


def box_mean(maps: Float[Tensor, "B X h w"], size: int) -> Float[Tensor, "B X h w"]:
    """Avg of Eq. 6: the mean over a ``size`` x ``size`` box, zero outside the image, divisor always size²."""
    return F.avg_pool2d(maps, size, stride=1, padding=size // 2, count_include_pad=True)


class ContextPooling(nn.Module):
    """Eq. 6: blur the features, keep the boundary pixels of each mask, average over them.

    Blurring first is what lets the inner edge see its surroundings.
    ``kind`` chooses the blur: ``per_channel`` (the paper's text), ``channel_sum`` (the released weights: one box mean
    of the sum over all channels, the same number in every channel), ``learnable`` (a depth-wise filter, Table 3 d),
    ``none`` (zeros).
    """

    def __init__(self, hidden: int, kind: ContextKind = "per_channel", filter_size: int = 9) -> None:
        super().__init__()
        self.kind = kind
        self.filter_size = filter_size
        if kind == "learnable":
            start = torch.full((hidden, 1, filter_size, filter_size), 1 / filter_size**2)
            self.filter = nn.Parameter(start)

    def forward(
        self, mask_logits: Float[Tensor, "B Q h w"], features: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B Q C"]:
        """Pool the surroundings Q̃ of every query; an empty mask gives zeros. Gradient reaches the features only."""
        edge = inner_boundary(mask_logits.detach() > 0).float()
        count = edge.sum(dim=(-2, -1))[..., None] + 1e-6
        with torch.autocast(features.device.type, enabled=False):  # sums over thousands of pixels overflow fp16
            return self._pool(edge, features.float()) / count

    def _pool(self, edge: Float[Tensor, "B Q h w"], features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B Q C"]:
        """Σ_hw F̄ * 1(M̂ > 0), the numerator of Eq. 6."""
        if self.kind == "per_channel":
            # A box mean is its own adjoint: blurring the Q edges gives the same sums as blurring the C features.
            return torch.einsum("bqhw,bchw->bqc", box_mean(edge, self.filter_size), features)
        if self.kind == "channel_sum":
            blurred = box_mean(features.sum(dim=1, keepdim=True), self.filter_size)
            return torch.einsum("bqhw,bxhw->bqx", edge, blurred).expand(-1, -1, features.shape[1])
        if self.kind == "learnable":
            padding = self.filter_size // 2
            blurred = F.conv2d(features, self.filter.float(), padding=padding, groups=features.shape[1])
            return torch.einsum("bqhw,bchw->bqc", edge, blurred)
        return features.new_zeros(edge.shape[0], edge.shape[1], features.shape[1])
