"""Batch norm whose statistics are those of a step, however many processes share its clips."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cavis.losses.totals import Total


class SharedBatchNorm(nn.BatchNorm2d):
    """Takes the place of a batch norm that learns, with its weights and statistics.

    All processes have equally many numbers of a channel. Written out, because torch's own (``SyncBatchNorm``) runs on
    GPUs alone: so students' CPUs compute the same, and so do the tests.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm2d, total: Total, processes: int) -> None:
        assert norm.momentum is not None
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.momentum: float = norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        self.load_state_dict(norm.state_dict())
        self.to(norm.weight.device).train(norm.training)
        self.total = total
        self.processes = processes

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """In training, norm with the mean and the variance of the whole step."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        mean = self._mean(x)
        centred = x - mean[:, None, None]
        variance = self._mean(centred.square())
        self._remember(mean.detach(), variance.detach(), self.processes * x[:, 0].numel())
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _mean(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "C"]:
        own = x.mean(dim=(0, 2, 3))
        mean = _Sum.apply(own, self.total)
        assert isinstance(mean, Tensor)
        return mean / self.processes

    def _remember(self, mean: Float[Tensor, "C"], variance: Float[Tensor, "C"], count: int) -> None:
        """Move the statistics of evaluation towards those of the step, as torch does."""
        if self.num_batches_tracked is not None:  # None while activations are computed again
            self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class _Sum(torch.autograd.Function):
    """The sum over all processes. What a number adds to the losses of the others comes back to it."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, total: Total) -> Tensor:
        ctx.total = total
        return total(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.total(gradients[0].contiguous()), None


def share_norms(network: nn.Module, total: Total, processes: int) -> None:
    """Replace every batch norm of ``network`` by a :class:`SharedBatchNorm`; nothing to do for one process."""
    if processes == 1:
        return
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SharedBatchNorm(child, total, processes))
