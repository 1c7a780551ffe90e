"""Multi-scale deformable attention in plain PyTorch: each query looks at a few learned places on every level."""

import math
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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
        anchors = reference[:, None] * _extents(sizes, query) - 0.5
        anchors = anchors[:, :, None].expand(-1, -1, self.points, -1).flatten(1)  # one long axis adds faster
        places = anchors[:, None] + self.offsets(query).view(batch, queries, self.heads, -1)
        weights = softmax_of_rows(self.weights(query).view(batch, queries, self.heads, -1)).view(shape)
        value = self.value(memory).unflatten(-1, (self.heads, -1))
        return self.out(sample_levels(value, sizes, places.view(*shape, 2), weights))


def softmax_of_rows(x: Float[Tensor, "*any n"]) -> Float[Tensor, "*any n"]:
    """Softmax over a short last axis: of the transposed over its first one, which goes by many rows at a time."""
    return x.flatten(0, -2).t().softmax(dim=0).t().reshape(x.shape)


def sample_levels(
    value: Float[Tensor, "B L heads d"],
    sizes: Sizes,
    places: Float[Tensor, "B Q heads levels points 2"],
    weights: Float[Tensor, "B Q heads levels points"],
) -> Float[Tensor, "B Q C"]:
    """Weighted sum of bilinear samples (zero outside) of every level.

    ``places`` are x, y in cells of their level: 0, 0 is the centre of the first one. On a CPU and without gradients
    :func:`sample_rows` is used, which gives the same for a fraction of the time; its gradient would cost more than
    that of :func:`sample_grids`.
    """
    learning = torch.is_grad_enabled() and any(x.requires_grad for x in (value, places, weights))
    sample = sample_grids if learning or value.device.type != "cpu" else sample_rows
    return sample(value, sizes, places, weights)


def sample_grids(
    value: Float[Tensor, "B L heads d"],
    sizes: Sizes,
    places: Float[Tensor, "B Q heads levels points 2"],
    weights: Float[Tensor, "B Q heads levels points"],
) -> Float[Tensor, "B Q C"]:
    """:func:`sample_levels` by grid sampling, level by level."""
    by_head = value.permute(0, 2, 3, 1).flatten(0, 1)
    grids = (places.permute(3, 0, 2, 1, 4, 5) + 0.5).flatten(1, 2)
    shares = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)
    total = torch.zeros((), device=value.device, dtype=value.dtype)
    levels = by_head.split([height * width for height, width in sizes], dim=-1)
    scales = 2 / _extents(sizes, places)
    for level, size, grid, scale, share in zip(levels, sizes, grids, scales, shares, strict=True):
        samples = F.grid_sample(level.unflatten(-1, size), grid * scale - 1, align_corners=False)
        total = total + (samples * share[:, None]).sum(dim=-1)
    return total.unflatten(0, (value.shape[0], -1)).permute(0, 3, 1, 2).flatten(2)


SAMPLES_AT_ONCE = 2**15
"""How many samples :func:`sample_rows` prepares together: few enough to stay in a core's cache."""


class _Cells(NamedTuple):
    """What is known of the cells before the places are; one entry for each of a query's S = heads levels points."""

    last: Float[Tensor, "S 2"]
    """The last x, y that has a neighbour to its right and below."""
    gap: Float[Tensor, "S 2"]
    """The distance to that neighbour: 1, or infinite in a level of one column or row."""
    width: Float[Tensor, "S"]
    start: Int[Tensor, "S"]
    """The row of the head's first cell of the level."""
    corners: Int[Tensor, "heads 4 S_per_head"]
    """From a sample's first row to its four."""


def sample_rows(
    value: Float[Tensor, "B L heads d"],
    sizes: Sizes,
    places: Float[Tensor, "B Q heads levels points 2"],
    weights: Float[Tensor, "B Q heads levels points"],
) -> Float[Tensor, "B Q C"]:
    """:func:`sample_levels` as one weighted sum of rows of a table, four for each sample; without gradients.

    A row of the table is what one head finds in one cell, so the table is ``value`` as it lies in memory.
    """
    queries, heads = places.shape[1:3]
    cells = _cells(sizes, places)
    step = max(1, SAMPLES_AT_ONCE // len(cells.start))
    out = value.new_empty(len(value), queries, heads, value.shape[-1])
    for clip, table in enumerate(value.flatten(1, 2)):
        for i in range(0, queries, step):
            part = slice(i, i + step)
            rows, shares = _rows(cells, places[clip, part].flatten(1, 3), weights[clip, part].flatten(2))
            mixed = F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares.to(table.dtype))
            out[clip, part] = mixed.unflatten(0, (-1, heads))
    return out.flatten(2)


def _cells(sizes: Sizes, places: Float[Tensor, "B Q heads levels points 2"]) -> _Cells:
    heads, levels, points = places.shape[2:5]
    extent = _extents(sizes, places)
    starts = list(accumulate((height * width for height, width in sizes), initial=0))[:-1]
    several = extent > 1
    right, below = several[:, 0].float(), several[:, 1] * extent[:, 0]
    corners = heads * torch.stack((torch.zeros_like(right), right, below, right + below))

    def spread(x: Float[Tensor, "levels *rest"]) -> Float[Tensor, "S *rest"]:
        """One entry for each sample of a query."""
        return x[None, :, None].expand(heads, levels, points, *x.shape[1:]).flatten(0, 2)

    head = torch.arange(heads, device=places.device)[:, None].expand(-1, levels * points).flatten()
    return _Cells(
        last=spread((extent - 2).clamp(min=0)),
        gap=spread(torch.where(several, 1.0, math.inf)),
        width=spread(extent[:, 0]),
        start=(heads * spread(extent.new_tensor(starts)) + head).int(),
        corners=corners[:, :, None].expand(heads, 4, levels, points).flatten(2).int(),
    )


def _rows(
    cells: _Cells, places: Float[Tensor, "n S 2"], weights: Float[Tensor, "n heads S_per_head"]
) -> tuple[Int[Tensor, "bags rows"], Float[Tensor, "bags rows"]]:
    """Which rows each query and head adds up, and with which shares.

    Counted from the clamped cell ``low``, a neighbour's bilinear share is 1 - |distance|, or 0 where that is negative:
    this also gives the zeros outside.
    """
    low = torch.clamp(places.floor(), torch.zeros_like(cells.last), cells.last)
    distance = places - low
    near = distance.abs().neg_().add_(1).clamp_(min=0)
    far = distance.sub_(cells.gap).abs_().neg_().add_(1).clamp_(min=0)
    x, y = (
        torch.stack((near[..., axis].view_as(weights), far[..., axis].view_as(weights)), dim=2) for axis in range(2)
    )
    shares = (y * weights[:, :, None])[:, :, :, None] * x[:, :, None]
    cell = torch.addcmul(low[..., 0], low[..., 1], cells.width).int()
    first = cell.mul_(weights.shape[1]).add_(cells.start).clamp_(min=0)  # what is not a number has no cell
    rows = first.view_as(weights)[:, :, None] + cells.corners
    return rows.flatten(2).flatten(0, 1), shares.flatten(2).flatten(0, 1)


def _extents(sizes: Sizes, like: Float[Tensor, "*any"]) -> Float[Tensor, "levels 2"]:
    """Width and height of each level."""
    return like.new_tensor([(width, height) for height, width in sizes])


def cell_centres(sizes: Sizes, like: Tensor) -> Float[Tensor, "L 2"]:
    """The centre (x, y in 0 ... 1) of every cell of every level, in memory order."""
    centres = []
    for height, width in sizes:
        y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        centres.append(torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), dim=-1).flatten(0, 1))
    return torch.cat(centres)
