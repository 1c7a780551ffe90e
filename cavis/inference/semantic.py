"""Semantic task (VSS): the class of every pixel of a video."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from cavis import rle
from cavis.inference.postprocess import Contest, Sizes, parts_of, to_frame, to_input
from cavis.inference.second_pass import FirstPass, make_track
from cavis.records import Rle, Track, VideoResult


@dataclass(frozen=True)
class ClassRegion:
    """The pixels of one class through a video."""

    label: int
    """0 ... K-1."""
    masks: tuple[Rle | None, ...]
    """One entry a frame; None where the class is not seen."""
    share: float
    """How much of the vote of all classes goes to this one, on average over its pixels; 0 ... 1."""


@dataclass(frozen=True)
class SemanticResult:
    """The class of every pixel of a video."""

    regions: tuple[ClassRegion, ...]
    """The classes that are seen, by label; together they cover every frame, and no two overlap."""
    height: int
    width: int
    timestamps: Float[np.ndarray, "T"]
    """Seconds from the start of the video."""
    categories: tuple[str, ...]
    model: str
    """Name of the model that ran."""
    notes: tuple[str, ...] = ()
    """What the reader should know, in sentences."""

    def __len__(self) -> int:
        return len(self.timestamps)

    def class_map(self, t: int) -> Int32[np.ndarray, "H W"]:
        """The class of each pixel of frame ``t``, 0 ... K-1."""
        classes = np.zeros((self.height, self.width), dtype=np.int32)
        for region in self.regions:
            mask = region.masks[t]
            if mask is not None:
                classes[rle.decode(mask)] = region.label
        return classes

    def class_maps(self) -> Iterator[Int32[np.ndarray, "H W"]]:
        """The classes, frame by frame."""
        return (self.class_map(t) for t in range(len(self)))

    def as_video(self) -> VideoResult:
        """The same with each class as a track, best first: for drawing and tables.

        A track's id is 1 more than its class, its score the share of the vote; it has no embeddings.
        """
        tracks = sorted((self._track(region) for region in self.regions), key=lambda track: -track.score)
        size, about = (self.height, self.width), (self.categories, self.model, self.notes)
        return VideoResult(tuple(tracks), *size, self.timestamps, *about)

    def _track(self, region: ClassRegion) -> Track:
        scores = np.zeros(len(self.categories), dtype=np.float32)
        scores[region.label] = region.share
        return make_track(region.label + 1, scores, region.masks, np.zeros((len(self), 0), dtype=np.float32), 0)


class FrameVote(NamedTuple):
    """What the slots say about each pixel of a frame."""

    label: Int[np.ndarray, "H W"]
    """The class with the most votes (the first one of equals)."""
    share: Float[np.ndarray, "H W"]
    """Its share of all votes, 0 ... 1."""


def semantic(first: FirstPass, frames: Iterable[int]) -> SemanticResult:
    """Name the class of every pixel.

    ``frames`` are the numbers of all frames, in order; who hands them out can watch and stop the work.
    """
    scores = torch.from_numpy(first.probabilities[:, :-1])
    slots, classes = list(range(scores.shape[0])), scores.shape[1]
    area, shares = np.zeros((2, classes))
    masks: list[list[Rle | None]] = []
    for t in frames:
        votes = vote(torch.from_numpy(first.kept.masks(t, slots)), scores, first.sizes)
        present = np.bincount(votes.label.ravel(), minlength=classes)
        area += present
        shares += np.bincount(votes.label.ravel(), weights=votes.share.ravel(), minlength=classes)
        masks.append([rle.encode(votes.label == k) if present[k] else None for k in range(classes)])
    regions = tuple(
        ClassRegion(int(k), tuple(row[k] for row in masks), float(shares[k] / area[k])) for k in np.flatnonzero(area)
    )
    about = (first.about.config.categories, first.about.name, first.notes)
    return SemanticResult(regions, *first.sizes.frame, first.timestamps, *about)


def vote(logits: Float[Tensor, "Q h w"], scores: Float[Tensor, "Q K"], sizes: Sizes) -> FrameVote:
    """Every slot votes for its classes, as far as the pixel is in its mask.

    A class has the sum over the slots of class probability times mask probability. The sum is made at the network's
    size and then resized, which is the same as resizing every mask first: both are linear.
    """
    masks = torch.empty(len(logits), *sizes.network)
    for part in parts_of(len(logits), sizes.network):
        masks[part] = to_input(logits[part], sizes).sigmoid_()
    contest = Contest(sizes.frame)
    for part in parts_of(scores.shape[1], sizes.frame):
        votes = to_frame(torch.einsum("qk,qyx->kyx", scores[:, part], masks), sizes)
        for label, values in enumerate(votes, start=part.start):
            contest.enter(values, label)
    cast = to_frame(torch.einsum("q,qyx->yx", scores.sum(dim=1), masks)[None], sizes)[0]
    share = contest.best / cast.clamp(min=torch.finfo(cast.dtype).tiny)
    return FrameVote(contest.winner.numpy(), share.numpy())
