"""AdamW with the released rules: slower backbone, no decay on norms and embeddings; the moving average."""

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from cavis.config import StageConfig

UNDECAYED = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)
UNDECAYED_NAME = "relative_position_bias_table"
"""Swin's, a parameter without a module of its own."""


def build_optimizer(part: nn.Module, schedule: StageConfig) -> AdamW:
    """AdamW over the learning part, each parameter in the group its rules put it in."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for path, module in part.named_modules():
        factor = schedule.backbone_factor if path.split(".")[0] == "backbone" else 1.0
        for name, parameter in module.named_parameters(recurse=False):
            undecayed = isinstance(module, UNDECAYED) or name == UNDECAYED_NAME
            decay = 0.0 if undecayed else schedule.weight_decay
            groups.setdefault((factor, decay), []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "lr": schedule.learning_rate * factor, "weight_decay": decay}
            for (factor, decay), parameters in groups.items()
        ]
    )


def rate_factor(step: int, schedule: StageConfig) -> float:
    """The learning rate's factor at a step: linear warm-up, then a drop at each milestone."""
    warm = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    return warm * schedule.decay ** sum(step >= milestone for milestone in schedule.decay_at)


def build_schedule(optimizer: AdamW, schedule: StageConfig) -> LambdaLR:
    """The learning rate as a function of the step."""
    return LambdaLR(optimizer, lambda step: rate_factor(step, schedule))


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of a model that follows it: the exponential moving average of weights and buffers.

    Until there have been 1 / (1 - decay) steps it is the plain mean of all of them, so that it does not hang on to the
    first one.
    """

    def follow(average: Tensor, now: Tensor, steps: Tensor | int) -> Tensor:
        share = (1 / (torch.as_tensor(steps) + 1)).clamp(min=1 - decay)  # a tensor: nothing waits for a GPU
        return average + (now - average) * share

    return AveragedModel(model, avg_fn=follow, use_buffers=True).requires_grad_(False)
