"""The processes that share a training run, through accelerate: on any number of devices and machines.

Each has some clips of a step. It computes its share of the loss, in which all that is divided by is counted over the
whole step (:mod:`cavis.losses.totals`), and the gradients of the shares are added up: the gradient of the step in one
process. DistributedDataParallel is left out on purpose. It averages, it wants one module whose forward pass makes all
that is learned from, and a stage is more than that: it reads frozen parts without a graph, and its losses call parts
of the model. What is given up is that gradients travel while others are still being computed.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather_object, reduce
from torch import Tensor, nn

from cavis.data.clips import enlarge
from cavis.evaluation.shards import Share
from cavis.records import ClipBatch


@dataclass(frozen=True)
class Processes:
    """All processes of a run, seen from one of them. What one of them asks, all have to ask."""

    share: Share = field(default_factory=Share)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """This process's own."""

    @property
    def alone(self) -> bool:
        """Whether there is only this one."""
        return self.share.processes == 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.share.rank == 0

    def slots(self, clips: int) -> range:
        """Which clips of a step are this process's; a ValueError where they cannot be shared equally."""
        if clips % self.share.processes:
            raise ValueError(
                f"expected a number of clips a step that {self.share.processes} processes share equally, got {clips}"
            )
        return self.share.of(clips)

    def total(self, part: Tensor) -> Tensor:
        """The sum of what all processes have; gradients do not pass."""
        return part if self.alone else cast("Tensor", reduce(part, "sum"))

    def largest(self, *values: int) -> list[int]:
        """The largest of what all processes have, for each value."""
        if self.alone:
            return list(values)
        return cast("Tensor", reduce(torch.tensor(values, device=self.device), "max")).tolist()

    def any(self, flag: bool) -> bool:
        """Whether it is so in one process at least."""
        return self.largest(int(flag)) == [1]

    def wait(self) -> None:
        """Go on when all are here."""
        self.largest(0)

    def of_one_size(self, batch: ClipBatch) -> ClipBatch:
        """The process's clips, padded as they would be in one batch with those of all others."""
        height, width = batch.frames.shape[-2:]
        return enlarge(batch, *self.largest(height, width))

    def whole(self, batch: ClipBatch) -> ClipBatch:
        """The batch of the step, slot by slot, of the clips that each process has; all are of one size."""
        if self.alone:
            return batch
        parts: list[ClipBatch] = gather_object([batch])
        frames = torch.stack([part.frames for part in parts], dim=1).flatten(0, 1)
        targets = zip(*(part.targets for part in parts), strict=True)
        return ClipBatch(frames, tuple(clip for clips in targets for clip in clips))

    def start_alike(self, model: nn.Module) -> None:
        """Give every process the weights of the main one."""
        if not self.alone:
            broadcast(list(model.state_dict().values()))  # in place

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all gradients; a parameter that has none anywhere stays without."""
        if self.alone:
            return
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        own = [torch.zeros_like(one) if one.grad is None else one.grad for one in learning]
        there = own[0].new_tensor([float(one.grad is not None) for one in learning])
        # as one vector, for a message a parameter would mostly wait
        together = self.total(torch.cat([*(gradient.flatten() for gradient in own), there]))
        *summed, there = together.split([*(one.numel() for one in learning), len(learning)])
        for one, gradient, seen in zip(learning, summed, there.tolist(), strict=True):
            one.grad = gradient.view_as(one) if seen else None


def join(device: str) -> Processes:
    """All processes that torchrun or accelerate launch have started, each on its own ``device`` of this kind.

    A ValueError for a kind of device that processes cannot exchange numbers on.
    """
    said = Share.from_environment(os.environ)
    if said.processes == 1:
        return Processes()
    state = PartialState(cpu=torch.device(device).type == "cpu")
    if state.num_processes != said.processes:
        raise ValueError(f"expected the devices cpu or cuda for {said.processes} processes, got {device}")
    return Processes(Share(state.process_index, state.num_processes), torch.device(state.device or device))


def leave() -> None:
    """Say goodbye to the other processes, if there are any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
