"""Training batches by step number: step s of seed x is the same batch on every run, so that a run can be resumed."""

import signal
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cavis.data.clips import collate, draw_frames
from cavis.data.synthetic import TwinsClip, TwinsConfig
from cavis.data.ytvis_json import YtvisDataset
from cavis.records import Clip, ClipBatch, Targets


class ClipSource(Protocol):
    """Anything that training clips can be drawn from."""

    def draw(self, rng: np.random.Generator, frames: int, frame_range: int) -> Clip:
        """A random clip; all its randomness comes from ``rng``."""
        ...


class TwinsSource:
    """The twins' world, rendered while it is needed: no two clips are the same."""

    def __init__(self, config: TwinsConfig | None = None) -> None:
        self.config = config or TwinsConfig()

    def draw(self, rng: np.random.Generator, frames: int, frame_range: int) -> Clip:
        """A few frames of a new clip."""
        world = TwinsClip(int(rng.integers(2**62)), self.config)
        return world_clip(world, draw_frames(self.config.frames, frames, frame_range, rng))


class FolderSource:
    """Annotated videos on disk."""

    def __init__(self, dataset: YtvisDataset) -> None:
        self.dataset = dataset

    def draw(self, rng: np.random.Generator, frames: int, frame_range: int) -> Clip:
        """A few frames of one of the videos."""
        index = int(rng.integers(len(self.dataset)))
        length = len(self.dataset.videos[index].file_names)
        return self.dataset.clip(index, draw_frames(length, frames, frame_range, rng))


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
    """Item s is the batch of step s, a function of the seed and s alone."""

    def __init__(self, source: ClipSource, *, seed: int, clips: int, frames: int, frame_range: int) -> None:
        self.source = source
        self.seed = seed
        self.clips = clips
        self.frames = frames
        self.frame_range = frame_range

    def __getitem__(self, step: int) -> ClipBatch:
        streams = (np.random.default_rng([self.seed, step, slot]) for slot in range(self.clips))
        return collate([self.source.draw(rng, self.frames, self.frame_range) for rng in streams])


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
