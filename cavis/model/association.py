"""Which slot of this frame continues which slot of the last one: Hungarian matching on cosine similarity."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from cavis.config import Association
from cavis.records import ClipPrediction, FramePrediction, TrackerState


def linked_by(frames: FramePrediction, association: Association) -> Float[Tensor, "B T Q D"]:
    """[Q̂ ; Q], by which frames are linked, or each of the two brought to length one (see `Reading.association`)."""
    both, hidden = frames.context_aware, frames.core.shape[-1]
    if association == "joined" or both.shape[-1] == hidden:
        return both
    halves = both[..., :hidden], both[..., hidden:]
    return torch.cat([F.normalize(half, dim=-1, eps=1e-6) for half in halves], dim=-1)


@torch.no_grad()
def match(reference: Float[Tensor, "B Q D"], current: Float[Tensor, "B Q D"]) -> Int[Tensor, "B Q"]:
    """σ_H of Eq. 10: ``order`` such that ``current[b, order[b]]`` lies on ``reference[b]``, slot by slot."""
    left, right = (F.normalize(x.float(), dim=-1, eps=1e-6) for x in (reference, current))
    with torch.autocast(left.device.type, enabled=False):  # twins differ by less than half precision tells apart
        cost = (1 - left @ right.transpose(1, 2)).cpu().numpy()
    cost = np.nan_to_num(cost, nan=2.0)  # a broken slot is the worst match, not the best
    order = np.stack([linear_sum_assignment(clip)[1] for clip in cost])
    return torch.from_numpy(order).to(current.device)


def invert(order: Int[Tensor, "B Q"]) -> Int[Tensor, "B Q"]:
    """The inverse permutation; the released tracker applies this one (``alignment="inverted"``)."""
    return order.argsort(dim=-1)


def remember(before: Float[Tensor, "B Q D"], now: Float[Tensor, "B Q D"], memory: float) -> Float[Tensor, "B Q D"]:
    """What slots are looked for by in the next frame: a running mean of their directions, or the last sight alone."""
    if memory == 0:
        return now
    return torch.lerp(F.normalize(now, dim=-1), F.normalize(before, dim=-1), memory)


def sees(class_logits: Float[Tensor, "*batch Q K1"], above: float = 0.5) -> Bool[Tensor, "*batch Q 1"]:
    """Which slots see some object with a probability ``above`` that; only those have features worth remembering."""
    return class_logits.float().softmax(dim=-1)[..., -1:] < 1 - above


def take(slots: Float[Tensor, "B Q C"], order: Int[Tensor, "B Q"]) -> Float[Tensor, "B Q C"]:
    """``slots`` in the given order, each clip in its own."""
    return slots.gather(1, order[..., None].expand(-1, -1, slots.shape[-1]))


class FrameLinker(nn.Module):
    """Tracking without a tracker (as in MinVIS): each frame is put into the order of the one before it.

    With ``seen`` a slot whose object is hidden is looked for as it was last seen, with ``memory`` as it looked on
    average (see :class:`cavis.config.Reading`). It has no parameters; the model after the segmenter stage is run with
    it (Table 3 a-d).
    """

    def __init__(self, *, association: Association = "joined", seen: bool = False, memory: float = 0.0) -> None:
        super().__init__()
        self.association: Association = association
        self.seen = seen
        self.memory = memory

    def forward(
        self, frames: FramePrediction, state: TrackerState | None = None
    ) -> tuple[ClipPrediction, TrackerState]:
        """Reorder the slots of a window; ``state`` continues an earlier window."""
        features, orders = linked_by(frames, self.association), []
        for t in range(frames.queries.shape[1]):
            current = features[:, t]
            order = _identity(current) if state is None else match(state.reference, current)
            reference = take(current, order)
            if state is not None:
                reference = remember(state.reference, reference, self.memory)
                if self.seen:
                    visible = sees(take(frames.class_logits[:, t], order))
                    reference = torch.where(visible, reference, state.reference)
            state = TrackerState(
                tracks=take(frames.queries[:, t], order),
                context=take(frames.context_embedding[:, t], order),
                reference=reference,
            )
            orders.append(order)
        assert state is not None
        return reorder(frames, torch.stack(orders, dim=1)), state


def reorder(frames: FramePrediction, order: Int[Tensor, "B T Q"]) -> ClipPrediction:
    """The segmenter's predictions with slot ``order[b, t, q]`` of each frame moved to ``q``."""
    flat = order.flatten(0, 1)

    def move(x: Float[Tensor, "B T Q *rest"]) -> Float[Tensor, "B T Q *rest"]:
        return take(x.flatten(0, 1).flatten(2), flat).view(x.shape)

    core = move(frames.core)
    return ClipPrediction(
        class_logits=move(frames.class_logits),
        mask_logits=move(frames.mask_logits),
        embeddings=core,
        core=core,
        context_aware=move(frames.context_aware),
        order=order,
        auxiliary=tuple(
            replace(layer, class_logits=move(layer.class_logits), mask_logits=move(layer.mask_logits))
            for layer in frames.auxiliary
        ),
    )


def _identity(slots: Float[Tensor, "B Q C"]) -> Int[Tensor, "B Q"]:
    return torch.arange(slots.shape[1], device=slots.device).expand(slots.shape[0], -1)
