"""DINOv2, frozen, and the memory-efficient ViT-Adapter that makes four feature maps of it (the paper's ViT-L).

The adapter only reads: nothing flows back into the transformer, so all of its blocks run ahead, without gradients.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2Layer

from cavis.config import VitAdapter
from cavis.model.deformable_attention import DeformableAttention, Sizes, cell_centres

PATCH = 16
GRID = 37
"""Side of the grid of patches that the position embedding is made for."""
QUARTERS = 4
EXTRA_EXTRACTORS = 2
POINTS = 4
STRIDES = (4, 8, 16, 32)
EPS = 1e-6


class VitTokens(nn.Module):
    """A DINOv2 transformer with patches of 16 pixels; its blocks are transformers' own.

    It is frozen: always in evaluation mode, and :meth:`forward` keeps no graph, whoever asks it to learn.
    Raises ValueError if the heads do not divide the width or four does not divide the depth.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if width % heads or depth % QUARTERS:
            raise ValueError(
                f"expected a width that {heads} heads divide and a depth of whole quarters, got {width} and {depth}"
            )
        self.heads = heads
        config = Dinov2Config(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            layer_norm_eps=EPS,
            layerscale_value=1e-5,
        )
        config._attn_implementation = "sdpa"
        self.patches = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + GRID * GRID, width))
        """Of the class token, then of every patch of the nominal grid, row by row."""
        self.blocks = nn.ModuleList(Dinov2Layer(config) for _ in range(depth))
        self.blocks.apply(_init)
        self.train()

    def train(self, mode: bool = True) -> "VitTokens":
        """Freeze, whatever the mode."""
        self.requires_grad_(False)
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B L C"], ...]:
        """The tokens of the patches (row by row, without the class token) after each quarter of the blocks."""
        patches = self.patches(images)
        x = torch.cat((self.class_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)), dim=1)
        x = x + self.positions(*patches.shape[-2:])
        seen = []
        for i, block in enumerate(self.blocks, start=1):
            x = block(x)
            if i % (len(self.blocks) // QUARTERS) == 0:
                seen.append(x[:, 1:])
        return tuple(seen)

    def positions(self, height: int, width: int) -> Float[Tensor, "1 _ C"]:
        """The position embedding of a class token and of ``height`` x ``width`` patches.

        It is resized bicubically, and sampled as DINOv2 does: at the spacing of a grid that is 0.1 patches larger.
        """
        if (height, width) == (GRID, GRID):
            return self.position
        grid = self.position[:, 1:].unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
        scale = ((height + 0.1) / GRID, (width + 0.1) / GRID)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat((self.position[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)


class SpatialPrior(nn.Module):
    """A few convolutions that see the detail which patches of 16 pixels lose."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(3, 64, stride=2),
            *_convolution(64, 64),
            *_convolution(64, 64),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.down = nn.ModuleList(
            nn.Sequential(*_convolution(before, after, stride=2))
            for before, after in ((64, 128), (128, 256), (256, 256))
        )
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in (64, 128, 256, 256))
        self.apply(_init)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C _ _"], ...]:
        """Four maps of one width, at strides 4, 8, 16, 32."""
        maps = [self.stem(images)]
        for down in self.down:
            maps.append(down(maps[-1]))
        return tuple(project(x) for project, x in zip(self.project, maps, strict=True))


class ConvFeedForward(nn.Module):
    """A feed-forward layer through a quarter of the width; there each cell also sees its neighbours on its level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width // 4
        self.contract = nn.Linear(width, hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.expand = nn.Linear(hidden, width)
        self.apply(_init)

    def forward(self, cells: Float[Tensor, "B L C"], sizes: Sizes) -> Float[Tensor, "B L C"]:
        """Transform the cells of all levels, flattened one after the other."""
        mixed = [self.mix(level).flatten(2) for level in _to_maps(self.contract(cells), sizes)]
        return self.expand(F.gelu(torch.cat(mixed, dim=-1)).transpose(1, 2))


class Extractor(nn.Module):
    """The cells of the adapter look at the tokens of the transformer around them; pre-norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width, eps=EPS)
        self.token_norm = nn.LayerNorm(width, eps=EPS)
        self.attention = DeformableAttention(width, heads, levels=1, points=POINTS)
        self.feedforward_norm = nn.LayerNorm(width, eps=EPS)
        self.feedforward = ConvFeedForward(width)

    def forward(
        self, cells: Float[Tensor, "B L C"], tokens: Float[Tensor, "B M C"], sizes: Sizes, grid: tuple[int, int]
    ) -> Float[Tensor, "B L C"]:
        """Refine the cells of levels of these ``sizes`` with the tokens of a ``grid`` of patches."""
        centres = cell_centres(sizes, like=cells)
        cells = cells + self.attention(self.query_norm(cells), centres, self.token_norm(tokens), (grid,))
        return cells + self.feedforward(self.feedforward_norm(cells), sizes)


class VitAdapterMaps(nn.Module):
    """Four maps of the transformer's width; the transformer stays as it is, the adapter learns.

    Raises ValueError if the heads, or the adapter's heads, do not divide the width or four does not divide the depth.
    """

    def __init__(self, config: VitAdapter) -> None:
        super().__init__()
        width = config.width
        if width % config.adapter_heads:
            raise ValueError(f"expected a width that {config.adapter_heads} adapter heads divide, got {width}")
        self.channels = (width, width, width, width)
        self.vit = VitTokens(width, config.depth, config.heads)
        self.prior = SpatialPrior(width)
        self.level_embedding = nn.Parameter(torch.randn(3, width))
        self.extractors = nn.ModuleList(
            Extractor(width, config.adapter_heads) for _ in range(QUARTERS + EXTRA_EXTRACTORS)
        )
        """One for each quarter of the transformer, then the extra ones, which look at the last quarter again."""
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2).apply(_init)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(QUARTERS))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Normalised images in; maps at strides 4, 8, 16, 32 out.

        Raises ValueError unless height and width are multiples of 32.
        """
        height, width = images.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise ValueError(f"expected a height and a width that {STRIDES[-1]} divides, got {height} x {width}")
        tokens = self.vit(images)
        fine, *coarse = self.prior(images)
        coarse = self._extract(coarse, tokens, (height // PATCH, width // PATCH))
        maps = (fine + self.up(coarse[0]), *coarse)
        seen = [x.transpose(1, 2).unflatten(2, (height // PATCH, width // PATCH)) for x in tokens]
        return tuple(
            norm(x + F.interpolate(y, size=x.shape[-2:], mode="bilinear"))
            for norm, x, y in zip(self.norms, maps, seen, strict=True)
        )

    def _extract(
        self,
        maps: list[Float[Tensor, "B C _ _"]],
        tokens: tuple[Float[Tensor, "B L C"], ...],
        grid: tuple[int, int],
    ) -> tuple[Float[Tensor, "B C _ _"], ...]:
        """Let the cells at strides 8, 16, 32 look at the tokens, quarter by quarter."""
        sizes = tuple((x.shape[-2], x.shape[-1]) for x in maps)
        levels = [x.flatten(2).transpose(1, 2) + e for x, e in zip(maps, self.level_embedding, strict=True)]
        cells = torch.cat(levels, dim=1)
        for extractor, seen in zip(self.extractors, tokens + tokens[-1:] * EXTRA_EXTRACTORS, strict=True):
            if cells.requires_grad:  # computed again in the backward pass: their activations would fill the memory
                cells = checkpoint(extractor, cells, seen, sizes, grid, use_reentrant=False, preserve_rng_state=False)
            else:
                cells = extractor(cells, seen, sizes, grid)
        return _to_maps(cells, sizes)


def _to_maps(cells: Float[Tensor, "B L C"], sizes: Sizes) -> tuple[Float[Tensor, "B C _ _"], ...]:
    """Undo the flattening of levels."""
    levels = cells.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
    return tuple(level.unflatten(-1, size) for level, size in zip(levels, sizes, strict=True))


def _convolution(before: int, after: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()


def _init(layer: nn.Module) -> None:
    """Small normal weights for linear layers, convolutions scaled by what leaves them, no biases."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        height, width = layer.kernel_size
        nn.init.normal_(layer.weight, std=math.sqrt(2 * layer.groups / (height * width * layer.out_channels)))
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
