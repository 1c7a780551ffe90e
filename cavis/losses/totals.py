"""What losses are divided by, counted over all processes that share a training step."""

from collections.abc import Callable

from torch import Tensor

Total = Callable[[Tensor], Tensor]
"""From the part of a number that belongs to the clips at hand to the number of the whole step.

All processes of a step have to ask equally often and in one order, whatever their clips hold. What is divided by a
total is a share of the step's loss: the shares of all processes add up to it.
"""


def alone(part: Tensor) -> Tensor:
    """The total where the clips at hand are the whole step."""
    return part
