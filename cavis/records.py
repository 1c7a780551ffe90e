"""The nouns of the project.

One legend for every shape in the code: ``B`` clips in a batch, ``T`` frames, ``Q`` queries, ``N`` annotated objects,
``C`` channels, ``K`` foreground classes (``K1`` = K + 1, the last one is "no object"), ``H W`` the image,
``h w`` the stride-4 grid of the masks.

Tensors live in the records of the model; results (:class:`Track`, :class:`VideoResult`) hold numpy arrays and
run-length masks only, so that they outlive the model and travel between processes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """The annotated objects of one clip; row ``n`` is the same object in every frame."""

    labels: Int[Tensor, "N"]
    """Class index, 0 ... K-1."""
    ids: Int[Tensor, "N"]
    """Identity, unique within the clip."""
    masks: Bool[Tensor, "N T H W"]
    """Visible pixels; all false where the object is absent."""
    present: Bool[Tensor, "N T"]
    """Whether the object is annotated in the frame."""
    unknown: Int[Tensor, "_"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """Labels whose objects may be in the clip without being annotated; none where the annotations are complete."""


@dataclass(frozen=True)
class Clip:
    """A few frames of one video with what is annotated in them."""

    frames: UInt8[Tensor, "T 3 H W"]
    """RGB, 0 ... 255."""
    targets: Targets
    still: bool = False
    """Whether all frames are the same picture."""


@dataclass(frozen=True)
class ClipBatch:
    """Clips stacked for a training step; smaller ones are padded right and below, their masks with them."""

    frames: UInt8[Tensor, "B T 3 H W"]
    targets: tuple[Targets, ...]


@dataclass(frozen=True)
class LayerPrediction:
    """What the class and mask heads read from the output of one layer."""

    class_logits: Float[Tensor, "B T Q K1"]
    mask_logits: Float[Tensor, "B T Q h w"]


@dataclass(frozen=True)
class FramePrediction:
    """What the segmenter sees in each frame, on its own (Eq. 5, 6, 7); slots are not linked over time."""

    class_logits: Float[Tensor, "B T Q K1"]
    mask_logits: Float[Tensor, "B T Q h w"]
    queries: Float[Tensor, "B T Q C"]
    """Output of the last decoder layer, before the final norm."""
    core: Float[Tensor, "B T Q C"]
    """Core instance features Q̂ (Eq. 5): the queries after the final norm."""
    context: Float[Tensor, "B T Q C"]
    """Instance surrounding features Q̃ (Eq. 6)."""
    context_embedding: Float[Tensor, "B T Q C"]
    """Context-aware instance features Q = MLP(Q̂, Q̃) (Eq. 7)."""
    context_aware: Float[Tensor, "B T Q D"]
    """What association compares: [Q̂ ; Q] (D = 2C), or Q̂ alone (D = C) in a model without context."""
    mask_features: Float[Tensor, "B T C h w"]
    """Stride-4 feature map F (Eq. 5)."""
    auxiliary: tuple[LayerPrediction, ...] = ()
    """The same heads on the earlier layers, first layer first; filled in training only."""


@dataclass(frozen=True)
class TrackerState:
    """All the tracker remembers between two frames (Sec. 4.1.2), however long the video is."""

    tracks: Float[Tensor, "B Q C"]
    """Output of the last block, before the final norm: one row per track."""
    context: Float[Tensor, "B Q C"]
    """Context carried along, in track order: Q aligned, or Q̃ aligned (switch ``tracker_context``)."""
    reference: Float[Tensor, "B Q D"]
    """The previous frame's association features in track order."""


@dataclass(frozen=True)
class ClipPrediction:
    """Predictions whose slot ``q`` is one track over all frames."""

    class_logits: Float[Tensor, "B T Q K1"]
    mask_logits: Float[Tensor, "B T Q h w"]
    embeddings: Float[Tensor, "B T Q C"]
    """Track features after the final norm."""
    core: Float[Tensor, "B T Q C"]
    """The segmenter's core features in track order."""
    context_aware: Float[Tensor, "B T Q D"]
    """The segmenter's association features in track order."""
    order: Int[Tensor, "B T Q"]
    """``order[b, t, q]``: which slot of the segmenter track ``q`` starts from in frame ``t``."""
    references: Float[Tensor, "B R Q C"] | None = None
    """The queries that met frames 1 ... T-1 (R = T-1); training only."""
    auxiliary: tuple[LayerPrediction, ...] = ()


@dataclass(frozen=True)
class Rle:
    """A run-length mask in COCO's compressed form (column-major runs, packed)."""

    height: int
    width: int
    counts: bytes


@dataclass(frozen=True, repr=False)
class Track:
    """One instance through a video."""

    id: int
    """Stays with the instance from its first frame to its last; unique within the result."""
    class_scores: Float[np.ndarray, "K"]
    """Probability of each class, from the class logits averaged over the video; times what the model's rules make of
    its masks (:class:`cavis.config.InferenceConfig`: ``score``, ``doubt``)."""
    masks: tuple[Rle | None, ...]
    """One entry a frame; None where the instance is not visible."""
    boxes: Float[np.ndarray, "T 4"]
    """x, y, width, height in pixels; zeros where not visible."""
    core: Float[np.ndarray, "T C"]
    """Core embedding of each frame."""
    context_aware: Float[np.ndarray, "T D"]
    """Context-aware embedding of each frame."""

    def __repr__(self) -> str:
        frames = f"{int(self.visible.sum())} of {len(self.masks)} frames"
        return f"Track(id={self.id}, label={self.label}, score={self.score:.2f}, visible in {frames})"

    @property
    def label(self) -> int:
        """The most probable class, 0 ... K-1."""
        return int(self.class_scores.argmax())

    @property
    def score(self) -> float:
        """That of the most probable class, 0 ... 1."""
        return float(self.class_scores.max())

    @property
    def visible(self) -> Bool[np.ndarray, "T"]:
        """In which frames the instance has a mask."""
        return np.array([mask is not None for mask in self.masks], dtype=bool)


@dataclass(frozen=True, repr=False)
class VideoResult:
    """Every instance of one video, tracked."""

    tracks: tuple[Track, ...]
    """Highest score first."""
    height: int
    width: int
    timestamps: Float[np.ndarray, "T"]
    """Seconds from the start of the video."""
    categories: tuple[str, ...]
    model: str
    """Name of the model that ran."""
    notes: tuple[str, ...] = field(default=())
    """What the reader should know, in sentences (frames lost, frames trimmed, ...)."""

    def __repr__(self) -> str:
        size = f"{len(self)} frames of {self.width} x {self.height}"
        return f"VideoResult({len(self.tracks)} tracks in {size}, model={self.model!r})"

    def __len__(self) -> int:
        return len(self.timestamps)

    def category(self, track: Track) -> str:
        """The name of the track's most probable class."""
        return self.categories[track.label]

    def filter(
        self, min_score: float = 0.0, top_k: int | None = None, categories: Collection[str] | None = None
    ) -> "VideoResult":
        """Keep the tracks that score at least ``min_score`` (0 ... 1), at most the best ``top_k``.

        ``categories``: by name, those whose tracks are kept; None: all.
        """
        kept = [
            track
            for track in self.tracks
            if track.score >= min_score and (categories is None or self.category(track) in categories)
        ]
        return replace(self, tracks=tuple(kept[:top_k]))

    def predictions(self, top_k: int) -> Iterator[tuple[Track, int, float]]:
        """The ``top_k`` best (track, label, score) triples; one track may appear under several labels."""
        triples = [
            (track, label, float(score)) for track in self.tracks for label, score in enumerate(track.class_scores)
        ]
        yield from sorted(triples, key=lambda triple: -triple[2])[:top_k]
