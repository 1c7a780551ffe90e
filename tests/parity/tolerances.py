"""How close is equal: features relative to their scale, logits absolutely."""

import torch

RELATIVE = 1e-4
LOGITS = 1e-3


def is_close(ours: torch.Tensor, theirs: torch.Tensor, scale: float) -> bool:
    """Whether features of this scale (their largest value) are equal."""
    return _difference(ours, theirs) <= RELATIVE * max(scale, 1e-6)


def logits_are_close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether class or mask logits are equal."""
    return _difference(ours, theirs) <= LOGITS


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Features and embeddings: within 1e-4 of the largest value."""
    scale = theirs.abs().max().item()
    assert is_close(ours, theirs, scale), (_difference(ours, theirs), scale)


def assert_logits(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Class and mask logits: within 1e-3."""
    assert logits_are_close(ours, theirs), _difference(ours, theirs)


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest; not a number where one of the two is not, which is close to nothing."""
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


def assert_numbers(ours: dict[str, float], theirs: dict[str, float], relative: float) -> None:
    """Named numbers, each within a share of its own size: losses 1e-4, norms of gradients 1e-2."""
    assert ours.keys() == theirs.keys()
    wrong = {name: (ours[name], wanted) for name, wanted in theirs.items() if differs(ours[name], wanted, relative)}
    assert wrong == {}


def differs(ours: float, theirs: float, relative: float) -> bool:
    """Whether two numbers are apart; what is not a number is apart from all."""
    return not abs(ours - theirs) <= relative * abs(theirs)
