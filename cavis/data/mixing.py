"""Sources of training clips made of others: pseudo-clips of pictures, mixtures, and partly labelled sources."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from cavis.categories import CategoryMap
from cavis.data.annotated import AnnotatedVideos
from cavis.data.loaders import ClipSource, FrameChoice
from cavis.records import Clip


class PicturesSource:
    """Pseudo-clips: one picture, repeated as often as a clip has frames. Rotation makes them move (see Augmentation).

    ``dataset`` may be images or videos; of a video any frame may be the picture. Those without a single object
    (crowds do not count) are left out; a ValueError if none is left.
    """

    def __init__(self, dataset: AnnotatedVideos) -> None:
        self.dataset = dataset
        self.kept = tuple(index for index in range(len(dataset)) if dataset.objects(index))
        if not self.kept:
            raise ValueError(f"expected at least one picture with an annotated object, got none among {len(dataset)}")

    def draw(self, rng: np.random.Generator, choose: FrameChoice) -> Clip:
        """One of the pictures, as a clip."""
        index = self.kept[int(rng.integers(len(self.kept)))]
        frame = int(rng.integers(self.dataset.length(index)))
        return repeat(self.dataset.clip(index, [frame]), len(choose(1, rng)))


def repeat(clip: Clip, frames: int) -> Clip:
    """A clip of one frame, shown ``frames`` times (nothing is copied)."""
    targets = clip.targets
    return Clip(
        frames=clip.frames.expand(frames, -1, -1, -1),
        targets=replace(
            targets,
            masks=targets.masks.expand(-1, frames, -1, -1),
            present=targets.present.expand(-1, frames),
        ),
        still=True,
    )


class MixedSource:
    """Every clip comes from one of several sources, drawn independently with probabilities as ``weights``.

    The released mixture of pictures and videos is 1 : 1. Labels must mean the same in all sources.
    """

    def __init__(self, sources: Sequence[ClipSource], weights: Sequence[float] | None = None) -> None:
        weights = [1.0] * len(sources) if weights is None else list(weights)
        if not sources or len(weights) != len(sources):
            raise ValueError(f"expected one weight for each of the sources, got {len(weights)} for {len(sources)}")
        if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError(f"expected weights of at least 0 that are not all 0, got {weights}")
        self.sources = tuple(sources)
        self.shares = np.array(weights) / sum(weights)

    def draw(self, rng: np.random.Generator, choose: FrameChoice) -> Clip:
        """A clip of one of the sources."""
        return self.sources[int(rng.choice(len(self.sources), p=self.shares))].draw(rng, choose)


class Relabelled:
    """A source whose objects get the labels of another data set; a ValueError if a category has no counterpart."""

    def __init__(self, source: ClipSource, names: Sequence[str], mapping: CategoryMap) -> None:
        labels = [mapping.label(name) for name in names]
        kept = [label for label in labels if label is not None]
        if len(kept) < len(labels):
            raise ValueError(f"expected a counterpart for each of {', '.join(names)}; got none for some")
        self.source = source
        self.labels = torch.tensor(kept, dtype=torch.int64)

    def draw(self, rng: np.random.Generator, choose: FrameChoice) -> Clip:
        """A clip of the source under other labels."""
        clip = self.source.draw(rng, choose)
        return replace(clip, targets=replace(clip.targets, labels=self.labels[clip.targets.labels]))


class PartlyLabelled:
    """A source in which objects of some classes only are annotated; others may be seen all the same.

    ``known``: the labels that are annotated wherever they occur. The others go with every clip as
    ``Targets.unknown``, so that the class loss does not take such objects for background.
    """

    def __init__(self, source: ClipSource, known: Iterable[int], num_classes: int) -> None:
        known, labels = set(known), set(range(num_classes))
        if not known <= labels:
            raise ValueError(f"expected known labels of 0 ... {num_classes - 1}, got {sorted(known)}")
        self.source = source
        self.unknown = torch.tensor(sorted(labels - known), dtype=torch.int64)

    def draw(self, rng: np.random.Generator, choose: FrameChoice) -> Clip:
        """A clip of the source that says what it does not know."""
        clip = self.source.draw(rng, choose)
        unknown = torch.cat((clip.targets.unknown, self.unknown)).unique()
        return replace(clip, targets=replace(clip.targets, unknown=unknown))
