"""Which frames of a video become a training clip, and how clips become a batch."""

from collections.abc import Sequence

import numpy as np
import torch

from cavis.records import Clip, ClipBatch


def draw_frames(length: int, frames: int, frame_range: int, rng: np.random.Generator) -> list[int]:
    """Choose the frames of a training clip, in order (SPEC 7.2, without its quirks).

    ``frame_range`` 0: consecutive frames from a random start, the last start included. Otherwise a random reference
    frame and others within +- ``frame_range`` of it, distinct where the video is long enough. A video shorter than the
    clip gives repeated frames.
    """
    if length < 1:
        raise ValueError(f"expected a video with at least one frame, got {length}")
    if frame_range == 0:
        start = int(rng.integers(0, max(length - frames, 0) + 1))
        return [min(start + i, length - 1) for i in range(frames)]
    reference = int(rng.integers(0, length))
    near = [
        t for t in range(max(0, reference - frame_range), min(length, reference + frame_range + 1)) if t != reference
    ]
    others = (
        rng.choice(near, frames - 1, replace=len(near) < frames - 1).tolist() if near else [reference] * (frames - 1)
    )
    return sorted([reference, *others])


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Stack clips of one size; a ValueError names the sizes that differ."""
    sizes = {tuple(clip.frames.shape) for clip in clips}
    if len(sizes) > 1:
        raise ValueError(f"expected clips of one length and size in a batch, got {sorted(sizes)}")
    return ClipBatch(torch.stack([clip.frames for clip in clips]), tuple(clip.targets for clip in clips))
