"""Which frames of a video become a training clip, and how clips become a batch."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cavis.config import CORRECTED, DataRules
from cavis.records import Clip, ClipBatch

PADDING = (124, 116, 104)
"""The mean colour of ImageNet, in whole numbers: for most networks less than 0.01 deviations off zero (lite: 0.2)."""


def draw_frames(
    length: int, frames: int, frame_range: int, rng: np.random.Generator, rules: DataRules = CORRECTED
) -> list[int]:
    """Choose the frames of a training clip, in order.

    ``frame_range`` 0: consecutive frames from a random start. Otherwise a random reference frame and others within
    +- ``frame_range`` of it, distinct where the video is long enough. A video shorter than the clip repeats frames.
    """
    if length < 1:
        raise ValueError(f"expected a video with at least one frame, got {length}")
    if frame_range == 0:
        starts = max(length - frames, 0) + (0 if rules.skip_last_start and length > frames else 1)
        start = int(rng.integers(0, starts))
        if rules.shuffled_repeats and length < frames:
            return [*range(length), *rng.choice(length, frames - length).tolist()]
        return [min(start + i, length - 1) for i in range(frames)]
    reference = int(rng.integers(0, length))
    first, last = max(0, reference - frame_range), min(length - 1, reference + frame_range)
    near = [t for t in range(first, last + 1) if t != reference] or [reference]
    others = rng.choice(near, frames - 1, replace=rules.repeated_neighbours or len(near) < frames - 1)
    return sorted([reference, *others.tolist()])


def apply_rules(clip: Clip, rules: DataRules, num_classes: int) -> Clip:
    """Treat the annotations as ``rules`` say; with the corrected rules the clip stays as it is."""
    return mark_present(relabel(clip, rules, num_classes), rules)


def relabel(clip: Clip, rules: DataRules, num_classes: int) -> Clip:
    """Label objects as ``rules`` say, by what is annotated: before augmentation moves objects out of sight."""
    if not rules.labels_of_last_frame:
        return clip
    targets = clip.targets
    labels = targets.labels.masked_fill(~targets.present[:, -1], num_classes)
    return replace(clip, targets=replace(targets, labels=labels))


def mark_present(clip: Clip, rules: DataRules) -> Clip:
    """Count objects as present as ``rules`` say: after augmentation, for all objects that it left in sight."""
    if not rules.always_present:
        return clip
    targets = clip.targets
    return replace(clip, targets=replace(targets, present=torch.ones_like(targets.present)))


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Stack clips, the smaller ones padded right and below to the largest height and width.

    Frames are padded with the mean colour, which the model turns into nearly the zeros it pads with itself;
    masks with false, so that padding counts as background like the rest of the picture. A ValueError names lengths
    that differ.
    """
    lengths = {len(clip.frames) for clip in clips}
    if len(lengths) > 1:
        raise ValueError(f"expected clips of one length in a batch, got {sorted(lengths)} frames")
    height, width = (max(clip.frames.shape[axis] for clip in clips) for axis in (-2, -1))
    padded = [_pad(clip, height, width) for clip in clips]
    return ClipBatch(torch.stack([clip.frames for clip in padded]), tuple(clip.targets for clip in padded))


def enlarge(batch: ClipBatch, height: int, width: int) -> ClipBatch:
    """The batch as it would be beside a clip of this size; see :func:`collate`."""
    if batch.frames.shape[-2:] == (height, width):
        return batch
    clips = (Clip(frames, targets) for frames, targets in zip(batch.frames, batch.targets, strict=True))
    return collate([_pad(clip, height, width) for clip in clips])


def _pad(clip: Clip, height: int, width: int) -> Clip:
    """The clip on a larger canvas; one that has the size already stays as it is."""
    old_height, old_width = clip.frames.shape[-2:]
    if (old_height, old_width) == (height, width):
        return clip
    colour = clip.frames.new_tensor(PADDING)[:, None, None]
    frames: Tensor = colour.expand(len(clip.frames), 3, height, width).clone()
    frames[..., :old_height, :old_width] = clip.frames
    masks = F.pad(clip.targets.masks, (0, width - old_width, 0, height - old_height))
    return replace(clip, frames=frames, targets=replace(clip.targets, masks=masks))
