"""Training batches by step number: step s of seed x is the same batch on every run, so that a run can be resumed."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cavis.config import CORRECTED, DataRules, StageConfig
from cavis.data.annotated import AnnotatedVideos
from cavis.data.augmentation import add_twin, augment, draw_paste, draw_steps, draw_twin, paste, seen_in
from cavis.data.clips import collate, draw_frames, mark_present, relabel
from cavis.data.synthetic import TwinsClip, TwinsConfig
from cavis.records import Clip, ClipBatch, Targets

FrameChoice = Callable[[int, np.random.Generator], list[int]]
"""From the length of a video to the frames of a training clip."""


class ClipSource(Protocol):
    """Anything that training clips can be drawn from."""

    def draw(self, rng: np.random.Generator, choose: FrameChoice) -> Clip:
        """A random clip; all its randomness comes from ``rng``."""
        ...


class TwinsSource:
    """The twins' world, rendered while it is needed: no two clips are the same."""

    def __init__(self, config: TwinsConfig | None = None) -> None:
        self.config = config or TwinsConfig()

    def draw(self, rng: np.random.Generator, choose: FrameChoice) -> Clip:
        """A few frames of a new clip."""
        world = TwinsClip(int(rng.integers(2**62)), self.config)
        return world_clip(world, choose(self.config.frames, rng))


class FolderSource:
    """Annotated videos on disk."""

    def __init__(self, dataset: AnnotatedVideos) -> None:
        self.dataset = dataset

    def draw(self, rng: np.random.Generator, choose: FrameChoice) -> Clip:
        """A few frames of one of the videos."""
        index = int(rng.integers(len(self.dataset)))
        return self.dataset.clip(index, choose(self.dataset.length(index), rng))


def world_clip(world: TwinsClip, frames: list[int]) -> Clip:
    """Render frames of a synthetic clip, with the objects seen in at least one of them as targets."""
    rendered = [world.render(t) for t in frames]
    masks = torch.from_numpy(np.stack([masks for _, masks in rendered], axis=1))
    present = masks.flatten(2).any(dim=2)
    seen = present.any(dim=1)
    targets = Targets(
        labels=torch.from_numpy(world.labels)[seen],
        ids=torch.arange(len(seen))[seen],
        masks=masks[seen],
        present=present[seen],
    )
    images = torch.from_numpy(np.stack([image for image, _ in rendered])).permute(0, 3, 1, 2).contiguous()
    return Clip(images, targets)


class StepBatches(Dataset[ClipBatch]):
    """Item s is the batch of step s, a function of the seed and s alone; or the clips in some ``slots`` of it."""

    def __init__(
        self,
        source: ClipSource,
        schedule: StageConfig,
        *,
        seed: int,
        num_classes: int,
        rules: DataRules = CORRECTED,
        slots: Sequence[int] | None = None,
    ) -> None:
        self.source = source
        self.schedule = schedule
        self.seed = seed
        self.num_classes = num_classes
        self.rules = rules
        self.slots = range(schedule.clips_per_step) if slots is None else slots

    def __getitem__(self, step: int) -> ClipBatch:
        return collate([self._clip(step, slot) for slot in self.slots])

    def _clip(self, step: int, slot: int) -> Clip:
        rng, augmentation = np.random.default_rng([self.seed, step, slot]), self.schedule.augmentation
        clip = self._draw(rng)
        if augmentation and augmentation.paste and rng.random() < augmentation.paste:
            other = self._draw(rng)
            clip = paste(clip, other, draw_paste(augmentation, other, rng))
        if augmentation and augmentation.twin and rng.random() < augmentation.twin:
            twin = draw_twin(clip, rng)
            clip = add_twin(clip, twin) if twin else clip
        if augmentation and augmentation.least_pixels > 1:
            clip = replace(clip, targets=seen_in(clip.targets, clip.targets.masks, augmentation.least_pixels))
        return mark_present(clip, self.rules)

    def _draw(self, rng: np.random.Generator) -> Clip:
        """A clip of the source, augmented; without augmentation nothing more is drawn from ``rng``."""
        clip = relabel(self.source.draw(rng, self._choose), self.rules, self.num_classes)
        augmentation = self.schedule.augmentation
        if augmentation is None:
            return clip
        frames, _, height, width = clip.frames.shape
        return augment(clip, draw_steps(augmentation, (height, width), frames, rng, still=clip.still))

    def _choose(self, length: int, rng: np.random.Generator) -> list[int]:
        chosen = draw_frames(length, self.schedule.frames, self.schedule.frame_range, rng, self.rules)
        augmentation = self.schedule.augmentation
        if augmentation and augmentation.reversal and rng.random() < augmentation.reversal:
            return chosen[::-1]
        return chosen


def batches_from(dataset: StepBatches, start: int, steps: int, workers: int = 1) -> Iterator[ClipBatch]:
    """The batches of steps ``start`` ... ``steps - 1``, prepared in the background."""
    order = range(start, steps)
    workers = workers if len(order) else 0
    return iter(
        DataLoader(dataset, batch_size=None, sampler=order, num_workers=workers, worker_init_fn=_leave_interrupts)
    )


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; only the main one decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
