"""What a first pass hands over, and the second pass of the instance task.

A first pass (that of a predictor) runs the network over the video and ends with a :class:`FirstPass`: the class
probabilities of every slot over the whole video, and something that can give the masks of any slots in any frame. A
second pass makes results of them, frame by frame: :func:`instances` here,
:func:`cavis.inference.panoptic.panoptic`, :func:`cavis.inference.semantic.semantic`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cavis import rle
from cavis.checkpoints.files import ModelFile
from cavis.config import Score
from cavis.inference.postprocess import Sizes, best_slots, instance_masks
from cavis.records import Rle, Track, VideoResult

RgbFrame = UInt8[np.ndarray, "H W 3"]


class FrameMasks(Protocol):
    """What the second pass can ask about a frame: masks and features of some slots, kept or computed anew."""

    @property
    def frames(self) -> int:
        """How many frames there are."""
        ...

    def masks(self, t: int, slots: list[int]) -> Float[np.ndarray, "N h w"]:
        """Stride-4 mask logits of some slots in frame ``t``, over the padded input of the network."""
        ...

    def features(self, t: int, slots: list[int]) -> Float[np.ndarray, "N D"]:
        """Features of some slots in frame ``t``: core embedding (``hidden`` channels), then context-aware embedding."""
        ...


@dataclass(frozen=True)
class FirstPass:
    """All the second pass needs; whole-video class probabilities, and masks frame by frame."""

    about: ModelFile
    probabilities: Float[np.ndarray, "Q K1"]
    """Of each slot over the whole video, 0 ... 1; the last column is "no object". Rows need not sum to 1."""
    kept: FrameMasks
    """Where the masks are."""
    sizes: Sizes
    timestamps: Float[np.ndarray, "T"]
    """Seconds."""
    frame: RgbFrame
    """The last frame, to show meanwhile."""
    notes: tuple[str, ...] = ()


def instances(
    first: FirstPass, top_k: int, score: Score, frames: Iterable[int], max_overlap: float = 1.0
) -> VideoResult:
    """Instance task: the slots that have a part in the ``top_k`` most probable (slot, class) pairs, best score first.

    ``score`` and ``max_overlap`` are those of :class:`cavis.config.InferenceConfig`. ``frames`` are the numbers of all
    frames, in order; who hands them out can watch and stop the work.
    """
    probabilities = first.probabilities[:, :-1]
    slots = best_slots(probabilities, top_k)
    mask_scores = MaskScores(first.sizes, compared=max_overlap < 1)
    masks, features = [], []
    for t in frames:
        logits = torch.from_numpy(first.kept.masks(t, slots))
        mask_scores.add(logits[None])
        masks.append(encode_masks(logits, first.sizes))
        features.append(first.kept.features(t, slots))
    stacked = np.stack(features)
    hidden = first.about.config.hidden
    factors = mask_scores.values if score == "class_and_mask" else np.ones(len(slots))
    shown = [i for i in range(len(slots)) if factors[i] > 0]  # by a score that counts masks no track is without one
    if max_overlap < 1:
        best = factors * probabilities[slots].max(axis=1)
        shown = distinct(shown, best, mask_scores.overlaps, max_overlap)
    tracks = (
        make_track(slots[i], factors[i] * probabilities[slots[i]], [row[i] for row in masks], stacked[:, i], hidden)
        for i in shown
    )
    return video_result(first.about, tracks, first.sizes.frame, first.timestamps, first.notes)


class MaskScores:
    """How sure each slot is of its masks: the mean probability of the pixels inside, over all frames so far.

    As Mask2Former scores the mask of a picture, but on the stride-4 grid and over all frames together. If ``compared``,
    also how much the slots overlap each other.
    """

    def __init__(self, sizes: Sizes, *, compared: bool = False) -> None:
        self._compared = compared
        self._rows, self._columns = (math.ceil(side / 4) for side in sizes.network)  # beyond them is padding
        self._total, self._pixels = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        self._shared = torch.zeros(1, 1, dtype=torch.float64)

    def add(self, logits: Float[Tensor, "T N h w"]) -> None:
        """Take in the masks of a window."""
        seen = logits[..., : self._rows, : self._columns].float()
        inside = seen > 0
        self._total = self._total + (seen.sigmoid() * inside).sum(dim=(0, 2, 3)).cpu()
        self._pixels = self._pixels + inside.sum(dim=(0, 2, 3)).cpu()
        if self._compared:
            cells = inside.flatten(2).float()
            self._shared = self._shared + (cells @ cells.transpose(1, 2)).double().sum(dim=0).cpu()

    @property
    def values(self) -> Float[np.ndarray, "N"]:
        """0.5 ... 1; 0 for slots that have had no mask."""
        return (self._total / self._pixels.clamp(min=1)).numpy().astype(np.float32)

    @property
    def overlaps(self) -> Float[np.ndarray, "N N"]:
        """IoU of every two slots over all frames so far, on the stride-4 grid."""
        either = self._pixels[:, None] + self._pixels - self._shared
        return (self._shared / either.clamp(min=1)).numpy()


def distinct(
    slots: Sequence[int], scores: Float[np.ndarray, "N"], overlaps: Float[np.ndarray, "N N"], most: float
) -> list[int]:
    """Those of some slots that overlap no better one that is kept by more than ``most``; in their order."""
    kept: list[int] = []
    for slot in sorted(slots, key=lambda slot: -scores[slot]):
        if all(overlaps[slot, other] <= most for other in kept):
            kept.append(slot)
    return [slot for slot in slots if slot in kept]


def make_track(
    number: int,
    scores: Float[np.ndarray, "K"],
    masks: Sequence[Rle | None],
    features: Float[np.ndarray, "T D"],
    hidden: int,
) -> Track:
    """A track with its boxes; the first ``hidden`` of the features are the core embedding."""
    boxes = np.array([rle.box(mask) if mask else (0.0, 0.0, 0.0, 0.0) for mask in masks])
    return Track(number, scores, tuple(masks), boxes, features[:, :hidden], features[:, hidden:])


def video_result(
    about: ModelFile,
    tracks: Iterable[Track],
    size: tuple[int, int],
    timestamps: Float[np.ndarray, "T"],
    notes: tuple[str, ...] = (),
) -> VideoResult:
    """The result of a video of ``size`` (height, width), best track first."""
    ordered = tuple(sorted(tracks, key=lambda track: -track.score))
    return VideoResult(ordered, *size, timestamps, about.config.categories, about.name, notes)


def encode_masks(logits: Float[Tensor, "N h w"], sizes: Sizes) -> list[Rle | None]:
    """Full-size run-length masks; None where a mask is empty."""
    masks = instance_masks(logits, sizes).numpy()
    return [rle.encode(mask) if mask.any() else None for mask in masks]
