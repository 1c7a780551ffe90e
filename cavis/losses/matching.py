"""Which query answers for which object: frame by frame (Eq. 1), or by first appearance (Eq. 13)."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cavis.config import LossConfig
from cavis.losses.mask_losses import pairwise_dice, pairwise_mask_cross_entropy
from cavis.losses.point_sampling import Draws, of_clip, sample_at, uniform_points
from cavis.records import LayerPrediction, Targets

UNMATCHED = -1
TAKEN = 1e6
"""Cost of a query that already answers for an object."""

Matches = tuple[Int[Tensor, "T _"], ...]
"""For each clip: the query of every object in every frame, or UNMATCHED."""


class GridTargets(NamedTuple):
    """A clip's targets beside its predictions: masks as numbers, on the full-size image of the stride-4 grid."""

    labels: Int[Tensor, "N"]
    masks: Float[Tensor, "T N H2 W2"]
    present: Bool[Tensor, "T N"]
    ids: Int[Tensor, "N"]
    unknown: Int[Tensor, "_"]
    """Labels whose objects may be there without being annotated."""


def on_grid(targets: tuple[Targets, ...], mask_logits: Float[Tensor, "B T Q h w"]) -> tuple[GridTargets, ...]:
    """Bring targets to the device of the predictions, and to their extent by padding right and below."""
    height, width = 4 * mask_logits.shape[-2], 4 * mask_logits.shape[-1]
    device = mask_logits.device

    def prepare(clip: Targets) -> GridTargets:
        masks = clip.masks.to(device).transpose(0, 1).float()
        padded = F.pad(masks, (0, width - masks.shape[-1], 0, height - masks.shape[-2]))
        known = (clip.labels.to(device), padded, clip.present.to(device).T, clip.ids.to(device))
        return GridTargets(*known, clip.unknown.to(device))

    return tuple(prepare(clip) for clip in targets)


@torch.no_grad()
def matching_costs(
    layer: LayerPrediction, targets: tuple[GridTargets, ...], config: LossConfig, generator: Draws
) -> list[Float[np.ndarray, "T Q _"]]:
    """L_Match of Eq. 1 between all queries and all objects, for each clip.

    The points are random and shared by all masks of a frame.
    """
    costs = []
    for b, clip in enumerate(targets):
        logits = layer.mask_logits[b].float()
        points = uniform_points(len(logits), config.points, logits, of_clip(generator, b))
        predicted = sample_at(logits, points)
        truth = sample_at(clip.masks, points)
        probability = layer.class_logits[b].float().softmax(dim=-1)[..., clip.labels]
        cost = (
            -config.class_weight * probability
            + config.mask_weight * pairwise_mask_cross_entropy(predicted, truth)
            + config.dice_weight * pairwise_dice(predicted, truth)
        )
        costs.append(np.nan_to_num(cost.cpu().numpy(), nan=TAKEN))
    return costs


def match_frames(
    layer: LayerPrediction,
    targets: tuple[GridTargets, ...],
    config: LossConfig,
    generator: Draws = None,
    *,
    match_absent: bool = False,
) -> Matches:
    """σ̂^t of Eq. 1: the best assignment in each frame on its own."""
    matches = []
    for cost, clip in zip(matching_costs(layer, targets, config, generator), targets, strict=True):
        frames, _, objects = cost.shape
        query_of = np.full((frames, objects), UNMATCHED)
        present = clip.present.cpu().numpy()
        for t in range(frames):
            wanted = np.arange(objects) if match_absent else np.flatnonzero(present[t])
            queries, columns = linear_sum_assignment(cost[t][:, wanted])
            query_of[t, wanted[columns]] = queries
        matches.append(torch.from_numpy(query_of).to(layer.mask_logits.device))
    return tuple(matches)


def match_first_appearance(
    layer: LayerPrediction,
    targets: tuple[GridTargets, ...],
    config: LossConfig,
    generator: Draws = None,
) -> Matches:
    """σ̂_con of Eq. 13: each object is matched in the frame f(k) it first appears in, and keeps its query."""
    matches = []
    for cost, clip in zip(matching_costs(layer, targets, config, generator), targets, strict=True):
        frames, queries, objects = cost.shape
        present = clip.present.cpu().numpy()
        first = np.where(present.any(axis=0), present.argmax(axis=0), UNMATCHED)
        query_of = np.full(objects, UNMATCHED)
        taken = np.zeros(queries, dtype=bool)
        for t in range(frames):
            wanted = np.flatnonzero(first == t)
            chosen, columns = linear_sum_assignment(np.where(taken[:, None], TAKEN, cost[t][:, wanted]))
            free = ~taken[chosen]  # with more objects than queries some stay unmatched
            query_of[wanted[columns[free]]] = chosen[free]
            taken[chosen] = True
        matches.append(torch.from_numpy(np.tile(query_of, (frames, 1))).to(layer.mask_logits.device))
    return tuple(matches)


def where_seen(matches: Matches, targets: tuple[GridTargets, ...]) -> Matches:
    """The same matches without those of objects in frames in which they are absent."""
    pairs = zip(matches, targets, strict=True)
    return tuple(torch.where(clip.present, query_of, UNMATCHED) for query_of, clip in pairs)
