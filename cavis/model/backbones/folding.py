"""Batch norms folded into the convolutions before them: the same maps for fewer passes over memory."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

NormPair = tuple[nn.Module, str, str]
"""A module, and the names of its convolution and of the norm that follows it."""


class FrozenBatchNorm(nn.Module):
    """Batch norm as a fixed affine map: weights and statistics are buffers, loaded and never trained."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, start in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), start))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Scale and shift each channel."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def freeze_norms(network: nn.Module) -> None:
    """Replace every batch norm of ``network`` by a :class:`FrozenBatchNorm`."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm(child.num_features, child.eps))


@torch.no_grad()
def fold_norms(network: nn.Module) -> None:
    """Fold every norm that directly follows a convolution into it, for inference; the weights' names change.

    The outputs stay the same up to rounding. A network folded this way can no longer be trained or saved as it was.
    """
    for module, conv_name, norm_name in list(_pairs(network)):
        convolution, norm = getattr(module, conv_name), getattr(module, norm_name)
        weight, bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        convolution.weight, convolution.bias = weight, bias
        setattr(module, norm_name, nn.Identity())


def _pairs(network: nn.Module) -> list[NormPair]:
    """Where a norm follows a convolution: neighbours in a Sequential, or transformers' two attributes."""
    found = []
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            names = list(pairwise(dict(module.named_children())))
        else:
            names = [("convolution", "normalization")]
        for first, second in names:
            convolution, norm = getattr(module, first, None), getattr(module, second, None)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm):
                found.append((module, first, second))
    return found
