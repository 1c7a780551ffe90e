"""The context filter taken apart: Eq. 6 step by step, and what its size and kind do to twins (Table 3 b, d).

A :class:`ClipView` is what a segmenter saw of a clip of the twins' world, put into the order of the true objects.
Everything else here starts from it, so filters are compared on the same features and the same masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cavis.checkpoints.hub import ReadyModel
from cavis.data.clips import PADDING
from cavis.data.synthetic import CATEGORIES, TwinsClip
from cavis.losses.contrastive import Instances, contrast
from cavis.model.context import ContextKind, ContextPooling, box_mean, inner_boundary
from cavis.model.layers import Mlp

SEEN = 0.5
"""Overlap from which a slot's mask counts as that of an object."""
_LAPLACIAN = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]])


@dataclass(frozen=True)
class ClipView:
    """What the segmenter saw of a clip; axis N has the true objects, rows of unseen ones are empty."""

    pictures: UInt8[np.ndarray, "T H W 3"]
    """As the network sees them: padded right and below, 4 pixels for each one of h and w."""
    features: Float[Tensor, "T C h w"]
    """The mask features F, at stride 4."""
    masks: Bool[Tensor, "T N h w"]
    """Predicted masks, M > 0."""
    core: Float[Tensor, "T N C"]
    """Core features Q̂ of the same slots."""
    seen: Bool[np.ndarray, "T N"]
    """Whether a slot's mask overlaps the object by at least :data:`SEEN`."""
    names: tuple[str, ...]
    """Such as ``dog 0`` and its twin ``dog 1``; ``cat 4 (with dog 0)`` is a companion."""
    twin_of: Int[np.ndarray, "N"]
    """Index of each object's twin, -1 where it has none."""
    companion_of: Int[np.ndarray, "N"]
    """Index of the object that each one goes along with, -1 where it goes alone."""

    @property
    def twins(self) -> list[tuple[int, int]]:
        """The pairs of twins, each once."""
        return [(n, int(other)) for n, other in enumerate(self.twin_of) if other > n]


@dataclass(frozen=True)
class ContextSteps:
    """Eq. 6 on one frame, step by step, as arrays."""

    mask: Bool[np.ndarray, "h w"]
    laplacian: Int[np.ndarray, "h w"]
    """Lap(M): 8 at a pixel that stands alone, down to -8 beside the mask, 0 where all neighbours are alike."""
    boundary: Bool[np.ndarray, "h w"]
    """Lap(M) > 0."""
    features: Float[np.ndarray, "C h w"]
    """F."""
    blurred: Float[np.ndarray, "C h w"]
    """Avg(F)."""
    pooled: Float[np.ndarray, "N C"]
    """Q̃ of every object of the frame; zeros where it is not seen."""


@dataclass(frozen=True)
class FilterScore:
    """How well a context tells twins apart; means over all clips, frames and pairs of twins."""

    kind: str
    size: int
    twins_alike: float
    """Cosine of the contexts of two twins in one frame, wherever both are seen."""
    companions_alike: float
    """The same of an object and its companion."""
    others_alike: float
    """The same of two objects that are neither."""
    self_alike: float
    """Cosine of a twin's context with its own, ``gap`` of the view's frames later."""
    right: Float[np.ndarray, "clips"]
    """Share of the pairs, clip by clip, whose nearer continuation is the right one; NaN where none can be told."""

    @property
    def mean_right(self) -> float:
        """The mean over the clips; 0.5 is guessing, NaN if there is nothing to tell."""
        return _mean(list(self.right))


@torch.no_grad()
def view_clip(ready: ReadyModel, world: TwinsClip, times: Sequence[int]) -> ClipView:
    """Run the segmenter over frames of a clip and find the slot that shows each object best, frame by frame."""
    rendered = [world.render(t) for t in times]
    pictures = np.stack([picture for picture, _ in rendered])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)[None].to(ready.device)
    frames = ready.model.segmenter(images)
    predicted = (frames.mask_logits[0] > 0).cpu()
    true = torch.from_numpy(np.stack([masks for _, masks in rendered]))
    height, width = (4 * side for side in predicted.shape[-2:])
    margin = (0, width - true.shape[-1], 0, height - true.shape[-2])
    coarse = F.avg_pool2d(F.pad(true.float(), margin), 4) > 0.5
    slots, seen = zip(*(_slots(m, truth) for m, truth in zip(predicted, coarse, strict=True)), strict=True)
    seen = np.stack(seen)
    chosen = [mask[slot] for mask, slot in zip(predicted, slots, strict=True)]
    masks = torch.stack(chosen) & torch.from_numpy(seen)[..., None, None]
    core = torch.stack([core[slot] for core, slot in zip(frames.core[0].cpu(), slots, strict=True)])
    canvas = np.full((len(pictures), height, width, 3), PADDING, dtype=np.uint8)
    canvas[:, : pictures.shape[1], : pictures.shape[2]] = pictures
    return ClipView(
        canvas, frames.mask_features[0].cpu(), masks, core, seen, _names(world), world.twin_of, world.companion_of
    )


def filter_steps(
    view: ClipView, t: int, instance: int, kind: ContextKind, size: int, learned: ContextPooling | None = None
) -> ContextSteps:
    """Eq. 6 for one object of one frame, every step as the equation has it; ``learned`` is used for ``learnable``."""
    mask = view.masks[t, instance]
    laplacian = F.conv2d(mask.float()[None, None], _LAPLACIAN[None, None], padding=1)[0, 0]
    return ContextSteps(
        mask=mask.numpy(),
        laplacian=laplacian.numpy().astype(np.int64),
        boundary=inner_boundary(mask[None, None])[0, 0].numpy(),
        features=view.features[t].numpy(),
        blurred=_blur(view.features[t : t + 1], kind, size, learned)[0].numpy(),
        pooled=contexts(view, kind, size, learned)[t].numpy(),
    )


@torch.no_grad()
def contexts(
    view: ClipView, kind: ContextKind, size: int, learned: ContextPooling | None = None
) -> Float[Tensor, "T N C"]:
    """Q̃ of every object in every frame, as the model computes it."""
    pooling = learned if kind == "learnable" and learned else ContextPooling(view.features.shape[1], kind, size)
    return pooling(view.masks.float() - 0.5, view.features)


def learn_filter(views: Sequence[ClipView], mlp: Mlp, size: int, steps: int, rate: float = 1e-3) -> ContextPooling:
    """Let the filter alone learn L_CTX (Eq. 8), starting from the box mean; all the rest of the model stays.

    Table 3 d in small: ``steps`` updates by Adam, each on one of the clips in turn.
    """
    pooling = ContextPooling(views[0].features.shape[1], "learnable", size)
    optimizer = torch.optim.Adam(pooling.parameters(), lr=rate)
    for step in range(steps):
        view = views[step % len(views)]
        surroundings = pooling(view.masks.float() - 0.5, view.features)
        frame, row = (torch.from_numpy(axis) for axis in view.seen.nonzero())
        features = mlp(torch.cat((view.core, surroundings), dim=-1))[frame, row]
        loss = contrast(Instances(features, row, frame, torch.zeros_like(frame))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return pooling.requires_grad_(False)


def score_filter(
    views: Sequence[ClipView], kind: ContextKind, size: int, gap: int = 4, learned: ContextPooling | None = None
) -> FilterScore:
    """Measure one filter on clips: how alike twins' contexts are, and an object's context after ``gap`` frames."""
    return _score([contexts(view, kind, size, learned).numpy() for view in views], views, (kind, size), gap)


def score_core(views: Sequence[ClipView], gap: int = 4) -> FilterScore:
    """The same for the core features Q̂: what there is without any context."""
    return _score([view.core.numpy() for view in views], views, ("core features", 0), gap)


def score_place(views: Sequence[ClipView], gap: int = 4) -> FilterScore:
    """The same for nothing but the place: how far one comes without looking at all. Its cosines mean nothing."""
    return _score([centres(view) for view in views], views, ("place alone", 0), gap)


def centres(view: ClipView) -> Float[np.ndarray, "T N 2"]:
    """Row and column of the middle of each mask, in cells of the grid."""
    masks = view.masks.numpy().astype(float)
    height, width = masks.shape[-2:]
    area = np.maximum(masks.sum(axis=(-2, -1)), 1)
    rows, columns = masks.sum(axis=-1) @ np.arange(height), masks.sum(axis=-2) @ np.arange(width)
    return np.stack([rows / area, columns / area], axis=-1)


def _score(
    features: Sequence[Float[np.ndarray, "T N C"]], views: Sequence[ClipView], name: tuple[str, int], gap: int
) -> FilterScore:
    twins: list[float] = []
    companions: list[float] = []
    others: list[float] = []
    stays: list[float] = []
    right: list[float] = []
    for rows, view in zip(features, views, strict=True):
        twins += _alike(rows, view, view.twins)
        companions += _alike(rows, view, _companions(view))
        others += _alike(rows, view, _unrelated(view))
        decided: list[float] = []
        for t in range(len(rows) - gap):
            for a, b in view.twins:
                if not view.seen[[t, t, t + gap, t + gap], [a, b, a, b]].all():
                    continue
                now, later = rows[t, [a, b]], rows[t + gap, [a, b]]
                distance = np.linalg.norm(now[:, None] - later, axis=-1)
                straight, crossed = np.trace(distance), np.trace(distance[::-1])
                decided.append(0.5 if np.isclose(straight, crossed) else float(straight < crossed))
                stays.extend(cosine(*pair) for pair in zip(now, later, strict=True))
        right.append(float(np.mean(decided)) if decided else np.nan)
    return FilterScore(*name, _mean(twins), _mean(companions), _mean(others), _mean(stays), np.array(right))


def _companions(view: ClipView) -> list[tuple[int, int]]:
    return [(n, int(owner)) for n, owner in enumerate(view.companion_of) if owner >= 0]


def _unrelated(view: ClipView) -> list[tuple[int, int]]:
    related = {frozenset(pair) for pair in (*view.twins, *_companions(view))}
    return [pair for pair in combinations(range(len(view.names)), 2) if frozenset(pair) not in related]


def _alike(rows: Float[np.ndarray, "T N C"], view: ClipView, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Cosines of pairs of objects in all frames in which both are seen."""
    return [
        cosine(now[a], now[b])
        for now, seen in zip(rows, view.seen, strict=True)
        for a, b in pairs
        if seen[[a, b]].all()
    ]


def cosine(first: Float[np.ndarray, "C"], second: Float[np.ndarray, "C"]) -> float:
    """Cosine of two vectors; not a number if one of them is zero."""
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length else float("nan")


def _mean(values: list[float]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


@torch.no_grad()
def _blur(
    features: Float[Tensor, "B C h w"], kind: ContextKind, size: int, learned: ContextPooling | None
) -> Float[Tensor, "B C h w"]:
    """F̄ of Eq. 6, for each kind of filter."""
    if kind == "none":
        return torch.zeros_like(features)
    if kind == "channel_sum":
        return box_mean(features.sum(dim=1, keepdim=True), size).expand_as(features)
    if kind == "learnable" and learned is not None:
        return F.conv2d(features, learned.filter, padding=size // 2, groups=features.shape[1])
    return box_mean(features, size)


def _slots(masks: Bool[Tensor, "Q h w"], truth: Bool[Tensor, "N h w"]) -> tuple[Tensor, Bool[np.ndarray, "N"]]:
    """Which slot shows each object, by the best total overlap, and whether it shows it well."""
    left, right = truth.flatten(1).float(), masks.flatten(1).float()
    shared = left @ right.T
    overlap = (shared / (left.sum(1)[:, None] + right.sum(1) - shared).clamp(min=1)).numpy()
    rows, slots = linear_sum_assignment(overlap, maximize=True)
    return torch.from_numpy(slots), overlap[rows, slots] >= SEEN


def _names(world: TwinsClip) -> tuple[str, ...]:
    plain = [f"{CATEGORIES[label].replace('_', ' ')} {n}" for n, label in enumerate(world.labels)]
    owners = world.companion_of
    return tuple(
        f"{name} (with {plain[owner]})" if owner >= 0 else name for name, owner in zip(plain, owners, strict=True)
    )
