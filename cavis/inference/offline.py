"""Offline inference: a whole video's tracks are refined together before anything is decided.

``OfflinePredictor(load_model("ovis_r50_refiner")).run(open_video("clip.mp4"))``. The tracks' embeddings and the
segmenter's queries of all frames stay in memory (0.2 MB a frame for 100 queries of 256 channels); the mask features,
a hundred times as much, wait on disk, and masks are made of them frame by frame, of the chosen tracks only.
"""

from types import TracebackType
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cavis.checkpoints.hub import ReadyModel
from cavis.inference.online import OnlinePredictor, RunningMean, slot_features
from cavis.inference.postprocess import class_probabilities
from cavis.inference.spill import FeatureSpill
from cavis.model.refiner import Refiner
from cavis.records import ClipPrediction, FramePrediction


class OfflinePredictor(OnlinePredictor):
    """An online predictor whose runs end with the refiner; :meth:`step`, which cannot wait for the end, does not.

    Raises ValueError for a model without a refiner.
    """

    def __init__(self, ready: ReadyModel, *, top_k: int | None = None, window: int | None = None) -> None:
        refiner = ready.model.refiner
        if refiner is None:
            name, stage = ready.about.name, ready.about.stage
            raise ValueError(f"expected a model of the refiner stage, got {name!r} of the {stage} stage")
        super().__init__(ready, top_k=top_k, window=window)
        self.refiner = refiner

    def keeper(self) -> "RefinedMasks":
        """Where a run's frames wait for the refiner and the second pass."""
        return RefinedMasks(self.refiner)


class EmbeddingBlocks:
    """Embeddings of frame after frame, in a few large blocks.

    Small tensors that stay would lie scattered among the large ones that come and go with every window, and memory in
    pieces cannot be given back.
    """

    BLOCK = 64
    """Frames; what is not filled yet takes no memory, for the system gives pages when they are written."""

    def __init__(self) -> None:
        self._blocks: list[Float[Tensor, "N Q C"]] = []
        self._frames = 0

    def add(self, embeddings: Float[Tensor, "T Q C"]) -> None:
        """Keep a copy of the next frames."""
        for frame in embeddings:
            place = self._frames % self.BLOCK
            if place == 0:
                self._blocks.append(frame.new_empty(self.BLOCK, *frame.shape))
            self._blocks[-1][place] = frame
            self._frames += 1

    def take(self) -> Float[Tensor, "T Q C"]:
        """All of them; nothing is kept."""
        whole = torch.cat(self._blocks)[: self._frames] if len(self._blocks) > 1 else self._blocks[0][: self._frames]
        self._blocks, self._frames = [], 0
        return whole


class RefinedMasks:
    """What the refiner needs of a video, and the masks of the refined tracks, made whenever they are asked for.

    First every window is added, then :meth:`probabilities` refines the tracks, then masks can be had in any order.
    """

    def __init__(self, refiner: Refiner) -> None:
        self._refiner = refiner
        self._spill = FeatureSpill()
        self._tracks, self._queries = EmbeddingBlocks(), EmbeddingBlocks()
        self._refined: Float[Tensor, "T Q C"] | None = None

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return self._spill.frames

    def add(self, frames: FramePrediction, tracks: ClipPrediction) -> None:
        """Keep the next window of the video. A SpillError says so if there is no room on the disk."""
        self._tracks.add(tracks.embeddings[0])
        self._queries.add(frames.queries[0])
        for mask_features, features in zip(frames.mask_features[0], slot_features(tracks), strict=True):
            self._spill.write(mask_features.float().cpu().numpy(), features)

    def probabilities(self, mean: RunningMean) -> Float[np.ndarray, "Q K1"]:
        """Refine, and take the larger of the refiner's and the tracker's probabilities."""
        return best_of_both(class_probabilities(self.refine()), mean.probabilities())

    @torch.inference_mode()
    def refine(self) -> Float[Tensor, "Q K1"]:
        """Refine the tracks of the whole video; their class logits."""
        refined = self._refiner(self._tracks.take()[None], self._queries.take()[None])
        self._refined = refined.embeddings[0]
        return refined.class_logits[0, 0]

    @torch.inference_mode()
    def masks(self, t: int, slots: list[int]) -> Float[np.ndarray, "N h w"]:
        """Stride-4 mask logits of some tracks in frame ``t``, over the padded input of the network."""
        if self._refined is None:
            raise RuntimeError("expected refine() before masks(), got no refined tracks")
        features = torch.from_numpy(self._spill.mask_features(t)).to(self._refined)
        return self._refiner.masks(self._refined[t, slots], features).float().cpu().numpy()

    def features(self, t: int, slots: list[int]) -> Float[np.ndarray, "N D"]:
        """Core and context-aware features of some tracks in frame ``t``: the segmenter's, in track order."""
        return self._spill.features(t, slots)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spill.__exit__(kind, error, trace)


def best_of_both(refined: Float[np.ndarray, "Q K1"], tracked: Float[np.ndarray, "Q K1"]) -> Float[np.ndarray, "Q K1"]:
    """The larger of two probabilities for every class; "no object" is the refiner's, so rows may pass 1."""
    return np.concatenate((np.maximum(refined[:, :-1], tracked[:, :-1]), refined[:, -1:]), axis=1)
