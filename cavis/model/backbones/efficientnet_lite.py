"""EfficientNet-Lite: MobileNetV2's inverted residuals in EfficientNet's sizes, without squeeze-and-excitation.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019); the Lite models are
their authors' own, for devices without a GPU. transformers has none of them, so this one is written here.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cavis.config import EfficientNetLite
from cavis.model.backbones.folding import FrozenBatchNorm

EPSILON = 1e-3
"""Of the batch norms, as in TensorFlow."""


class Level(NamedTuple):
    """A run of blocks of one width, of which only the first one may have a stride."""

    kernel: int
    stride: int
    expansion: int


LEVELS = (
    *(Level(3, 1, 1), Level(3, 2, 6), Level(5, 2, 6), Level(3, 2, 6)),
    *(Level(5, 1, 6), Level(5, 2, 6), Level(3, 1, 6)),
)
MAPS = (1, 2, 4, 6)
"""The levels that end the strides 4, 8, 16 and 32."""


class SameConv2d(nn.Conv2d):
    """A convolution padded as in TensorFlow: of an odd number of cells the one more goes right and below."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)
        if stride == 1:
            self.padding = (kernel // 2, kernel // 2)

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Convolve; a stride of 2 halves the sides, rounded up."""
        if self.stride[0] > 1:
            input = F.pad(input, [side for size in input.shape[:-3:-1] for side in self._sides(size)])
        return super().forward(input)

    def _sides(self, size: int) -> tuple[int, int]:
        """What is added before and after an axis."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return missing // 2, missing - missing // 2


class Block(nn.Module):
    """Widen, look around in each channel, narrow; added to what came in where the shapes allow it."""

    def __init__(self, channels: int, out: int, level: Level, stride: int) -> None:
        super().__init__()
        wide = channels * level.expansion
        self.widen = unit(channels, wide) if level.expansion > 1 else nn.Identity()
        self.look = unit(wide, wide, level.kernel, stride, groups=wide)
        self.narrow = unit(wide, out, last=True)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """One inverted residual."""
        y = self.narrow(self.look(self.widen(x)))
        return x + y if self.residual else y


def unit(
    channels: int, out: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, last: bool = False
) -> nn.Sequential:
    """A convolution and its norm, which keeps the statistics it was loaded with; and a ReLU6 unless ``last``."""
    parts = [SameConv2d(channels, out, kernel, stride, groups), FrozenBatchNorm(out, EPSILON)]
    return nn.Sequential(*parts, *([] if last else [nn.ReLU6(inplace=True)]))


class EfficientNetLiteMaps(nn.Module):
    """The maps of an EfficientNet-Lite at the ends of four of its seven levels."""

    def __init__(self, config: EfficientNetLite) -> None:
        super().__init__()
        w = config.widths
        self.channels = (w[MAPS[0]], w[MAPS[1]], w[MAPS[2]], w[MAPS[3]])
        self.stem = unit(3, config.stem_width, 3, 2)
        self.levels = nn.ModuleList()
        channels = config.stem_width
        for level, width, depth in zip(LEVELS, config.widths, config.depths, strict=True):
            blocks = [Block(channels, width, level, level.stride)]
            blocks += [Block(width, width, level, 1) for _ in range(depth - 1)]
            self.levels.append(nn.Sequential(*blocks))
            channels = width
        self.frozen = config.frozen_levels

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Normalised images in; maps at strides 4, 8, 16, 32 out."""
        x, maps = images.contiguous(memory_format=torch.channels_last), []  # a quarter faster on a CPU, and no other
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = self.stem(x)
        for i, level in enumerate(self.levels):
            with torch.set_grad_enabled(torch.is_grad_enabled() and i >= self.frozen):
                x = level(x)
            if i in MAPS:
                maps.append(x)
        return tuple(maps)
