"""Which tracks are shown and by what score: their class, and what their masks say of them over all frames."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cavis.config import InferenceConfig
from cavis.inference.postprocess import Sizes


class Ranking:
    """What the masks of some tracks say of them, frame by frame, on the stride-4 grid.

    The rules are ``score``, ``doubt`` and ``max_overlap`` of :class:`cavis.config.InferenceConfig`.
    """

    def __init__(self, rule: InferenceConfig, sizes: Sizes) -> None:
        self._rule = rule
        self._by_masks = rule.score == "class_and_mask"
        self._compared = rule.max_overlap < 1
        self._rows, self._columns = (math.ceil(side / 4) for side in sizes.network)  # beyond them is padding
        self._frames = 0
        self._total, self._pixels, self._seen = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
        self._shared = torch.zeros(1, 1, dtype=torch.float64)

    def add(self, logits: Float[Tensor, "T N h w"]) -> None:
        """Take in the masks of a window; the tracks are the same ones in every window."""
        if not (self._by_masks or self._compared or self._rule.doubt):
            return
        values = logits[..., : self._rows, : self._columns].float()
        inside = values > 0
        self._frames += len(inside)
        self._total = self._total + (values.sigmoid() * inside).sum(dim=(0, 2, 3)).cpu()
        self._pixels = self._pixels + inside.sum(dim=(0, 2, 3)).cpu()
        self._seen = self._seen + inside.flatten(2).any(dim=2).sum(dim=0).cpu()
        if self._compared:
            cells = inside.flatten(2).float()
            self._shared = self._shared + (cells @ cells.mT).cpu().double().sum(dim=0)

    def choose(self, rows: Sequence[int], probabilities: Float[np.ndarray, "N K"]) -> dict[int, Float[np.ndarray, "K"]]:
        """Those of some tracks that are shown, in their order, and their scores for each class.

        By a score that counts masks a track that has had none is not shown.
        """
        factors = np.ones(len(probabilities), dtype=np.float32)
        if self._by_masks:
            factors = factors * self._sureness
        if self._rule.doubt:
            factors = factors * self._presence
        scores = factors[:, None] * probabilities
        rows = [row for row in rows if not self._by_masks or factors[row] > 0]
        if self._compared:
            rows = distinct(rows, scores.max(axis=1), self._overlaps, self._rule.max_overlap)
        return {row: scores[row] for row in rows}

    @property
    def _sureness(self) -> Float[np.ndarray, "N"]:
        """Mean probability of the pixels inside, over all frames together, as Mask2Former scores a picture's masks.

        0.5 ... 1; 0 without a mask.
        """
        return (self._total / self._pixels.clamp(min=1)).numpy().astype(np.float32)

    @property
    def _presence(self) -> Float[np.ndarray, "N"]:
        """How far a track is believed: its n frames with a mask give n / (n + doubt), as a share of what all would."""
        doubt = self._rule.doubt
        whole = self._frames / (self._frames + doubt)
        return (self._seen / (self._seen + doubt) / whole).numpy().astype(np.float32)

    @property
    def _overlaps(self) -> Float[np.ndarray, "N N"]:
        """IoU of every two tracks over all frames."""
        either = self._pixels[:, None] + self._pixels - self._shared
        return (self._shared / either.clamp(min=1)).numpy()


def distinct(
    rows: Sequence[int], scores: Float[np.ndarray, "N"], overlaps: Float[np.ndarray, "N N"], most: float
) -> list[int]:
    """Those of some rows that overlap no better one that is kept by more than ``most``; in their order."""
    kept: list[int] = []
    for row in sorted(rows, key=lambda row: -scores[row]):
        if all(overlaps[row, other] <= most for other in kept):
            kept.append(row)
    return [row for row in rows if row in kept]
