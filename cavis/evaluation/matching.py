"""Greedy matching of predicted tracks with annotated ones, for many videos, size ranges and thresholds at once.

Legend: V groups (one video and one category each), D predictions and G annotated tracks of a group (padded),
A size ranges, T IoU thresholds.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

_MOST_CELLS = 4_000_000
"""How many (V A T G) cells one step may touch: groups beyond that are matched in turns."""


@dataclass(frozen=True)
class Groups:
    """What there is to match; predictions are in descending order of their scores, all padding comes last."""

    iou: Float[np.ndarray, "V D G"]
    truth_crowd: Bool[np.ndarray, "V G"]
    truth_ignored: Bool[np.ndarray, "V A G"]
    """True for crowds, for objects outside the size range, and for padding."""
    truth_counts: Int[np.ndarray, "V"]
    predicted_counts: Int[np.ndarray, "V"]
    predicted_outside: Bool[np.ndarray, "V A D"]
    """True for predictions outside the size range."""


@dataclass(frozen=True)
class Matches:
    """What became of every prediction."""

    correct: Bool[np.ndarray, "V A T D"]
    """Matched with an annotated track (which may be an ignored one)."""
    ignored: Bool[np.ndarray, "V A T D"]
    """Counts neither as right nor as wrong."""


def match(groups: Groups, thresholds: Float[np.ndarray, "T"]) -> Matches:
    """Let every prediction, best score first, take the free annotated track it overlaps most.

    It must reach the threshold; of equal overlaps the later track wins; an ignored track is taken only if no other
    qualifies; crowds are never used up. Predictions that match an ignored track are ignored, and so are those that
    match nothing and are themselves outside the size range.
    """
    number, depth, width = groups.iou.shape
    ranges = groups.truth_ignored.shape[1]
    shape = (number, ranges, len(thresholds), depth)
    correct, ignored = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    # Groups with most predictions first, so that those still busy at any step are the first ones.
    order = np.argsort(-groups.predicted_counts, kind="stable")
    step = max(1, _MOST_CELLS // max(1, ranges * len(thresholds) * width))
    for start in range(0, number, step):
        part = order[start : start + step]
        correct[part], ignored[part] = _match_part(groups, part, thresholds)
    return Matches(correct, ignored)


def _match_part(
    groups: Groups, part: Int[np.ndarray, "P"], thresholds: Float[np.ndarray, "T"]
) -> tuple[Bool[np.ndarray, "P A T D"], Bool[np.ndarray, "P A T D"]]:
    iou = groups.iou[part]
    counts = groups.predicted_counts[part]
    truth_ignored = groups.truth_ignored[part]
    depth, width = iou.shape[1:]
    shape = (len(part), truth_ignored.shape[1], len(thresholds))
    correct = np.zeros((*shape, depth), dtype=bool)
    ignored = np.broadcast_to(groups.predicted_outside[part][:, :, None], correct.shape).copy()
    if width == 0 or depth == 0:
        return correct, ignored
    free = np.broadcast_to(
        (np.arange(width) < groups.truth_counts[part][:, None])[:, None, None], (*shape, width)
    ).copy()
    keeps = groups.truth_crowd[part][:, None, None]
    enough = np.minimum(thresholds, 1 - 1e-10)[:, None]
    # Preference as an integer: overlap first, the later track among equals, and any other before an ignored one.
    rank = np.argsort(np.argsort(iou, axis=-1, kind="stable"), axis=-1, kind="stable")
    bonus = width * ~truth_ignored
    tracks = np.arange(width)
    for d in range(int(counts.max(initial=0))):
        busy = int((counts > d).sum())
        preference = (rank[:busy, None, d] + bonus[:busy])[:, :, None]
        candidates = free[:busy] & (iou[:busy, None, None, d] >= enough)
        best = np.where(candidates, preference, -1).argmax(-1)
        found = np.any(candidates, axis=-1)
        taken = (tracks == best[..., None]) & found[..., None]
        free[:busy] &= ~taken | keeps[:busy]
        correct[:busy, ..., d] = found
        met_ignored = (taken & truth_ignored[:busy, :, None]).any(-1)
        ignored[:busy, ..., d] = np.where(found, met_ignored, ignored[:busy, ..., d])
    return correct, ignored
