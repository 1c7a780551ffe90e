"""Counted arithmetic: torch's counter, which on a CPU knows neither fused attention nor sampling, taught both."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

aten = torch.ops.aten
Shape = Sequence[int]


def count_flops(work: Callable[[], object]) -> dict[str, int]:
    """Floating-point operations of ``work`` by kind of operation; a multiplication with its addition counts as two.

    Counted are products of matrices, convolutions, attention and sampling. As in torch's own counter, what goes element
    by element is not, nor are norms, softmax, pooling and resizing.
    """
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with _no_fast_path(), counter:
        work()
    counts = counter.get_flop_counts().get("Global", {})
    return {str(operation).removeprefix("aten."): int(flops) for operation, flops in counts.items()}


def attention_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Scores and their sum, both products over B, H, L, S and D: 4 B H L S D."""
    return sdpa_flop_count(query, key, value)


def grid_sample_flops(features: Shape, grid: Shape, *_: Any, **__: Any) -> int:
    """Four weighted neighbours for each channel of each place."""
    return 8 * features[0] * features[1] * _size(grid[1:-1])


def embedding_bag_flops(table: Shape, rows: Shape, *_: Any, **__: Any) -> int:
    """One weighted row of the table for each index."""
    return 2 * _size(rows) * table[1]


FORMULAS: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    aten.grid_sampler_2d: grid_sample_flops,
    aten._embedding_bag_forward_only: embedding_bag_flops,
    aten._embedding_bag: embedding_bag_flops,
}
"""What torch's counter lacks."""


def _size(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Transformer layers one operation after the other: what is fused into one cannot be counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
