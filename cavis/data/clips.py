"""Which frames of a video become a training clip, and how clips become a batch."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from cavis.config import CORRECTED, DataRules
from cavis.records import Clip, ClipBatch


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
        return [min(start + i, length - 1) for i in range(frames)]
    reference = int(rng.integers(0, length))
    first, last = max(0, reference - frame_range), min(length - 1, reference + frame_range)
    near = [t for t in range(first, last + 1) if t != reference] or [reference]
    others = rng.choice(near, frames - 1, replace=len(near) < frames - 1)
    return sorted([reference, *others.tolist()])


def apply_rules(clip: Clip, rules: DataRules, num_classes: int) -> Clip:
    """Treat the annotations as ``rules`` say; with the corrected rules the clip stays as it is."""
    targets = clip.targets
    if rules.labels_of_last_frame:
        absent = ~targets.present[:, -1]
        targets = replace(targets, labels=targets.labels.masked_fill(absent, num_classes))
    if rules.always_present:
        targets = replace(targets, present=torch.ones_like(targets.present))
    return replace(clip, targets=targets)


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Stack clips of one size; a ValueError names the sizes that differ."""
    sizes = {tuple(clip.frames.shape) for clip in clips}
    if len(sizes) > 1:
        raise ValueError(f"expected clips of one length and size in a batch, got {sorted(sizes)}")
    return ClipBatch(torch.stack([clip.frames for clip in clips]), tuple(clip.targets for clip in clips))
