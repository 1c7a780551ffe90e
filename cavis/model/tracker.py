"""The context-aware instance tracker T (Sec. 4.1.2): last frame's tracks look for themselves in this frame.

What is remembered is a value, :class:`cavis.records.TrackerState`: ``None`` starts a video, and passing the returned
state back continues it, so that a video cut into windows gives the same tracks as the video in one piece.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cavis.config import Association, Reading
from cavis.model.association import invert, linked_by, match, remember, sees, take
from cavis.model.layers import CrossAttention, FeedForward, Heads, KeyValue, Mlp, SelfAttention, init_transformer
from cavis.records import ClipPrediction, FramePrediction, LayerPrediction, TrackerState


class TrackerBlock(nn.Module):
    """Context-aware cross-attention (Eq. 9), self-attention, feed-forward; post-norm."""

    def __init__(self, hidden: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.cross = CrossAttention(hidden, heads)
        self.self_attention = SelfAttention(hidden, heads)
        self.feedforward = FeedForward(hidden, feedforward)

    def project(self, key: Float[Tensor, "B T Q C"], value: Float[Tensor, "B T Q C"]) -> KeyValue:
        """Keys and values of all frames of a window at once; they do not depend on the recurrence."""
        return self.cross.attention.project(key, value)

    def forward(
        self, x: Float[Tensor, "B Q C"], query: Float[Tensor, "B Q C"], memory: KeyValue
    ) -> Float[Tensor, "B Q C"]:
        """Attn(Q*_{t-1}, Q_t, Q̂_t) added to ``x``, then the rest of the block."""
        return self.feedforward(self.self_attention(self.cross(x, query, memory)))


class Frame(NamedTuple):
    """One frame as the recurrence meets it."""

    core: Float[Tensor, "B Q C"]
    queries: Float[Tensor, "B Q C"]
    context: Float[Tensor, "B Q C"]
    reference: Float[Tensor, "B Q D"]
    memory: list[KeyValue]
    """Keys and values of each block; they do not depend on the recurrence."""


class Step(NamedTuple):
    """What one frame leaves behind."""

    outputs: list[Float[Tensor, "B Q C"]]
    """Output of each block, before the final norm."""
    start: Int[Tensor, "B Q"]
    """Which slot of the segmenter each track started from."""
    end: Int[Tensor, "B Q"]
    """Which slot of the segmenter each track turned out to be."""
    query: Float[Tensor, "B Q C"]


class Tracker(nn.Module):
    """Six blocks that carry tracks from frame to frame, with class and mask heads of their own.

    ``reading`` chooses between the paper's and the released code's versions of Eq. 9 and 10.
    """

    def __init__(
        self, *, hidden: int, heads: int, layers: int, feedforward: int, num_classes: int, reading: Reading
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TrackerBlock(hidden, heads, feedforward) for _ in range(layers))
        self.heads = Heads(hidden, num_classes)
        self.association: Association = reading.association
        self.alignment = reading.alignment
        self.query = reading.tracker_query
        self.context = reading.tracker_context
        self.start = reading.tracker_start
        self.memory = reading.reference_memory
        needs_fusion = self.query == "context_aware" and self.context == "embedding"
        self.fusion = nn.Linear(2 * hidden, hidden) if needs_fusion else None
        init_transformer(self.blocks)

    def forward(
        self, frames: FramePrediction, state: TrackerState | None = None, *, context_mlp: Mlp | None = None
    ) -> tuple[ClipPrediction, TrackerState]:
        """Track through a window of frames.

        ``state`` is None in a video's first window. ``context_mlp`` is the segmenter's (Eq. 7), needed where Eq. 10 is
        read as written (``tracker_context="surroundings"``).
        """
        carried = frames.context_embedding if self.context == "embedding" else frames.context
        keys = self.fuse(frames.core, carried, context_mlp)
        memory = [block.project(keys, frames.queries) for block in cast("Iterable[TrackerBlock]", self.blocks)]
        references = linked_by(frames, self.association)
        steps: list[Step] = []
        for t in range(frames.queries.shape[1]):
            frame = Frame(
                frames.core[:, t],
                frames.queries[:, t],
                carried[:, t],
                references[:, t],
                [pair.at(t) for pair in memory],
            )
            step, state = self._step(frame, state, context_mlp)
            steps.append(step)
        assert state is not None
        return self._predict(steps, frames), state

    def fuse(
        self, core: Float[Tensor, "*batch Q C"], context: Float[Tensor, "*batch Q C"], context_mlp: Mlp | None
    ) -> Float[Tensor, "*batch Q C"]:
        """Q* of Eq. 9: tracks joined with their context, as one query each."""
        if self.query == "core":
            return core
        fusion = self.fusion if self.fusion is not None else context_mlp
        if fusion is None:
            raise ValueError("expected the segmenter's context MLP for tracker_context='surroundings', got none")
        return fusion(torch.cat((core, context), dim=-1))

    def _step(self, frame: Frame, state: TrackerState | None, context_mlp: Mlp | None) -> tuple[Step, TrackerState]:
        """One frame. In the first frame of a video the tracks ask for themselves, anew in every block."""
        if state is None:
            start = torch.arange(frame.core.shape[1], device=frame.core.device).expand(frame.core.shape[0], -1)
            query = self.fuse(frame.core, frame.context, context_mlp)
        else:
            start = self._aligned(match(state.reference, frame.reference))
            query = self.fuse(state.tracks, state.context, context_mlp)
        x = take(frame.core, start)
        outputs: list[Float[Tensor, "B Q C"]] = []
        for block, memory in zip(self.blocks, frame.memory, strict=True):
            asking = query if state is not None else self.fuse(x, frame.context, context_mlp)
            x = block(x, asking, memory)
            outputs.append(x)
        end = match(x, frame.queries)  # σ_H of Eq. 10
        context = frame.context if self.alignment == "none" else take(frame.context, self._aligned(end))
        found = start if self.start == "linked" else self._aligned(end)
        reference = take(frame.reference, found)
        if state is not None:
            reference = remember(state.reference, reference, self.memory)
            if self.start == "seen":
                visible = sees(self.heads.classify(self.heads.norm(x.detach())))
                reference = torch.where(visible, reference, state.reference)
        return Step(outputs, start, end, query), TrackerState(tracks=x, context=context, reference=reference)

    def _aligned(self, order: Int[Tensor, "B Q"]) -> Int[Tensor, "B Q"]:
        return invert(order) if self.alignment == "inverted" else order

    def _predict(self, steps: list[Step], frames: FramePrediction) -> ClipPrediction:
        """Class and mask heads; on every block in training, on the last one otherwise."""
        slots = torch.stack([step.outputs[-1] for step in steps], dim=1)
        embeddings = self.heads.norm(slots)
        end = [step.end for step in steps]

        def follow(x: Float[Tensor, "B T Q C"]) -> Float[Tensor, "B T Q C"]:
            return torch.stack([take(x[:, t], order) for t, order in enumerate(end)], dim=1)

        return ClipPrediction(
            class_logits=self.heads.classify(embeddings),
            mask_logits=self.heads.masks(embeddings, frames.mask_features),
            embeddings=embeddings,
            core=follow(frames.core),
            context_aware=follow(frames.context_aware),
            order=torch.stack([step.start for step in steps], dim=1),
            references=torch.stack([step.query for step in steps[1:]], dim=1) if len(steps) > 1 else None,
            auxiliary=self._auxiliary(steps, frames) if self.training else (),
        )

    def _auxiliary(self, steps: list[Step], frames: FramePrediction) -> tuple[LayerPrediction, ...]:
        layers = len(self.blocks) - 1
        return tuple(
            self.heads.predict(torch.stack([step.outputs[i] for step in steps], dim=1), frames.mask_features)
            for i in range(layers)
        )
