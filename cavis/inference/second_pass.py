"""What a first pass hands over, and the second pass of the instance task.

A first pass (that of a predictor) runs the network over the video and ends with a :class:`FirstPass`: the class
probabilities of every slot over the whole video, and something that can give the masks of any slots in any frame. A
second pass makes results of them, frame by frame: :func:`instances` here,
:func:`cavis.inference.panoptic.panoptic`, :func:`cavis.inference.semantic.semantic`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cavis import rle
from cavis.checkpoints.files import ModelFile
from cavis.config import InferenceConfig
from cavis.inference.postprocess import Sizes, best_slots, instance_masks
from cavis.inference.ranking import Ranking
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


def instances(first: FirstPass, rule: InferenceConfig, frames: Iterable[int]) -> VideoResult:
    """Instance task: of the slots in the ``top_k`` most probable (slot, class) pairs those shown, best score first.

    Of ``rule`` count ``top_k``, ``score``, ``doubt`` and ``max_overlap``. ``frames`` are the numbers of all frames, in
    order; who hands them out can watch and stop the work.
    """
    probabilities = first.probabilities[:, :-1]
    slots = best_slots(probabilities, rule.top_k)
    ranking = Ranking(rule, first.sizes)
    masks, features = [], []
    for t in frames:
        logits = torch.from_numpy(first.kept.masks(t, slots))
        ranking.add(logits[None])
        masks.append(encode_masks(logits, first.sizes))
        features.append(first.kept.features(t, slots))
    stacked = np.stack(features)
    hidden = first.about.config.hidden
    tracks = (
        make_track(slots[i], scores, [row[i] for row in masks], stacked[:, i], hidden)
        for i, scores in ranking.choose(range(len(slots)), probabilities[slots]).items()
    )
    return video_result(first.about, tracks, first.sizes.frame, first.timestamps, first.notes)


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
