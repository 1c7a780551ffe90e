"""Panoptic task (VPS): every pixel of a video belongs to one segment, or to none.

The confident slots compete for each pixel; a slot that keeps too little of its own mask against the others, over the
whole video, is dropped, and its pixels stay void. Dropping never hands pixels on, so the frames are visited only once:
what each slot wins is encoded and areas are counted, and the rule is applied at the end.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from cavis import rle
from cavis.inference.postprocess import Contest, Sizes, mask_probabilities, parts_of
from cavis.inference.second_pass import FirstPass, make_track
from cavis.records import Rle, Track, VideoResult

VOID = 0
"""The id of pixels that belong to no segment."""


@dataclass(frozen=True)
class Segment:
    """One thing, or all stuff of one class, through a video."""

    track: Track
    """Its masks, boxes, embeddings and class scores; ``track.id`` counts from 1."""
    isthing: bool
    slot: int
    """The query it comes from; of stuff that several queries make up, the first one (scores and embeddings too)."""


@dataclass(frozen=True)
class PanopticResult:
    """A video divided among segments."""

    segments: tuple[Segment, ...]
    """By id."""
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

    def id_map(self, t: int) -> Int32[np.ndarray, "H W"]:
        """The segment of each pixel of frame ``t``; 0 where there is none."""
        ids = np.full((self.height, self.width), VOID, dtype=np.int32)
        for segment in self.segments:
            mask = segment.track.masks[t]
            if mask is not None:
                ids[rle.decode(mask)] = segment.track.id
        return ids

    def id_maps(self) -> Iterator[Int32[np.ndarray, "H W"]]:
        """The segments' ids, frame by frame."""
        return (self.id_map(t) for t in range(len(self)))

    def as_video(self) -> VideoResult:
        """The same with each segment as a track, best first: for drawing and tables."""
        tracks = sorted((segment.track for segment in self.segments), key=lambda track: -track.score)
        size, about = (self.height, self.width), (self.categories, self.model, self.notes)
        return VideoResult(tuple(tracks), *size, self.timestamps, *about)


class FrameShares(NamedTuple):
    """How the slots share one frame."""

    owner: Int[np.ndarray, "H W"]
    """Which of the slots wins the pixel, 0 ... N-1."""
    solid: Bool[np.ndarray, "H W"]
    """Whether the pixel belongs to its owner's own mask (probability at least 0.5)."""
    whole: Int[np.ndarray, "N"]
    """Pixels of each slot's own mask, won or not."""


def panoptic(first: FirstPass, min_score: float, min_visible_share: float, frames: Iterable[int]) -> PanopticResult:
    """Divide a video among the slots whose best class is more probable than ``min_score``.

    A slot must win at least the share ``min_visible_share`` of its own mask. ``frames`` are the numbers of all frames,
    in order; who hands them out can watch and stop the work.
    """
    slots = confident_slots(first.probabilities, min_score)
    scores = torch.from_numpy(first.probabilities[slots].max(axis=1))
    won, whole, solid = np.zeros((3, len(slots)), dtype=np.int64)
    masks, features = [], []
    for t in frames:
        if slots:
            shares = divide(torch.from_numpy(first.kept.masks(t, slots)), scores, first.sizes)
            won += np.bincount(shares.owner.ravel(), minlength=len(slots))
            whole += shares.whole
            solid += np.bincount(shares.owner[shares.solid], minlength=len(slots))
            masks.append(_encode(shares, len(slots)))
        features.append(first.kept.features(t, slots))
    stacked, hidden = np.stack(features), first.about.config.hidden
    candidates = [
        _Candidate(
            slot, make_track(0, first.probabilities[slot, :-1], [row[i] for row in masks], stacked[:, i], hidden)
        )
        for i, slot in enumerate(slots)
        if solid[i] > 0 and won[i] / whole[i] >= min_visible_share
    ]
    config = first.about.config
    segments = tuple(_number(candidates, things=config.num_classes - config.stuff))
    size, about = first.sizes.frame, (config.categories, first.about.name, first.notes)
    return PanopticResult(segments, *size, first.timestamps, *about)


def confident_slots(probabilities: Float[np.ndarray, "Q K1"], min_score: float) -> list[int]:
    """The slots whose most probable class is a class, and more probable than ``min_score``."""
    no_object = probabilities.shape[1] - 1
    chosen = (probabilities.argmax(axis=1) != no_object) & (probabilities.max(axis=1) > min_score)
    return np.flatnonzero(chosen).tolist()


def divide(logits: Float[Tensor, "N h w"], scores: Float[Tensor, "N"], sizes: Sizes) -> FrameShares:
    """Give each pixel of a frame to the slot of the highest score times probability (the first one of equals)."""
    contest = Contest(sizes.frame)
    solid = torch.zeros(sizes.frame, dtype=torch.bool)
    whole = []
    for part in parts_of(len(logits), sizes.frame):
        for number, probability in enumerate(mask_probabilities(logits[part], sizes), start=part.start):
            own = probability >= 0.5
            whole.append(int(own.count_nonzero()))
            solid = torch.where(contest.enter(scores[number] * probability, number), own, solid)
    return FrameShares(contest.winner.numpy(), solid.numpy(), np.array(whole))


class _Candidate(NamedTuple):
    slot: int
    track: Track


def _encode(shares: FrameShares, count: int) -> list[Rle | None]:
    """What each slot wins of its own mask; None for nothing."""
    present = np.bincount(shares.owner[shares.solid], minlength=count)
    return [rle.encode((shares.owner == i) & shares.solid) if present[i] else None for i in range(count)]


def _number(candidates: list[_Candidate], things: int) -> Iterator[Segment]:
    """Give ids in slot order: one to every thing, one to all stuff of a class."""
    groups: dict[tuple[int, int | None], list[_Candidate]] = {}
    for slot, track in candidates:
        isthing = track.label < things
        groups.setdefault((track.label, slot if isthing else None), []).append(_Candidate(slot, track))
    for number, group in enumerate(groups.values(), start=1):
        first = group[0]
        track = replace(first.track, id=number) if len(group) == 1 else _merge(number, [one.track for one in group])
        yield Segment(track, first.track.label < things, first.slot)


def _merge(number: int, tracks: Sequence[Track]) -> Track:
    """Several tracks as one; embeddings and scores are those of the first."""
    first = tracks[0]
    masks = [_union([mask for mask in row if mask is not None]) for row in zip(*(t.masks for t in tracks), strict=True)]
    features = np.concatenate((first.core, first.context_aware), axis=1)
    return make_track(number, first.class_scores, masks, features, first.core.shape[1])


def _union(masks: Sequence[Rle]) -> Rle | None:
    if len(masks) < 2:
        return masks[0] if masks else None
    merged = rle.coco_mask.merge([rle.as_coco(mask) for mask in masks])
    return Rle(masks[0].height, masks[0].width, merged["counts"])
