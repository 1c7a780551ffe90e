"""Activation checkpointing: what layers compute is not kept for the gradient but computed again.

Gradients, weights and statistics stay the same; memory is traded for the time of about one more forward pass.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.models.resnet.modeling_resnet import ResNetEmbeddings, ResNetStage
from transformers.models.swin.modeling_swin import SwinLayer

from cavis.model.backbones.vit_adapter import SpatialPrior
from cavis.model.pixel_decoder import EncoderLayer
from cavis.model.query_decoder import DecoderLayer

BLOCKS = (ResNetEmbeddings, ResNetStage, SwinLayer, SpatialPrior, EncoderLayer, DecoderLayer)
"""What is computed again as one piece. The extractors of the ViT-Adapter always are, as in the released code."""


def recompute_activations(model: nn.Module) -> None:
    """Let every block of a model keep its inputs only while it learns; parameters and their names stay as they are."""
    for module in model.modules():
        if isinstance(module, BLOCKS) and "forward" not in vars(module):
            module.forward = partial(_recomputed, module)


def _recomputed(block: nn.Module, *inputs: Any, **named: Any) -> Any:
    """What the block's own ``forward`` returns."""
    forward = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block), **named)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first computation, and around the second one."""
    return nullcontext(), _untracked(block)


@contextmanager
def _untracked(block: nn.Module) -> Iterator[None]:
    """Batch norms take in a batch once: they have done so in the first computation.

    They go on to read their statistics, so that both computations save the same tensors, but move them by nothing.
    """
    norms = [norm for norm in block.modules() if isinstance(norm, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, steps) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, steps
