"""How close is equal: features relative to their scale, logits absolutely."""

import torch


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, relative: float = 1e-4) -> None:
    """Features and embeddings: within 1e-4 of the largest value."""
    assert ours.shape == theirs.shape
    difference, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    assert difference <= relative * max(scale, 1e-6), (difference, scale)


def assert_logits(ours: torch.Tensor, theirs: torch.Tensor, most: float = 1e-3) -> None:
    """Class and mask logits: within 1e-3."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= most
