"""Tracking measures for tracks with masks: HOTA (Luiten et al., 2021), IDF1 (Ristani et al., 2016), identity switches.

Average precision asks for whole tracks; these measures look at every frame, and tell finding an object (detection)
from staying with it (association). Numbers are those of TrackEval.

Legend: T frames, G annotated and D predicted tracks of one video and category, A overlap thresholds of HOTA.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from cavis.evaluation.average_precision import GroundTruthTrack, PredictedTrack
from cavis.evaluation.masks import TrackMasks, frame_intersections

ALPHAS: Float[np.ndarray, "A"] = np.arange(0.05, 0.99, 0.05)
"""Overlaps from which HOTA counts a match; its numbers are means over them."""
THRESHOLD = 0.5
"""Overlap from which IDF1 and the identity switches count a match."""
_EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class TrackingCounts:
    """What was found in any number of videos; counts of several videos are added with ``+``."""

    found: Int[np.ndarray, "A"]
    """HOTA's true positives: masks of objects that a prediction matches."""
    missed: Int[np.ndarray, "A"]
    spurious: Int[np.ndarray, "A"]
    association: Float[np.ndarray, "A"]
    """Sum over the matches of the IoU of the two tracks, counted in matched frames."""
    association_recall: Float[np.ndarray, "A"]
    association_precision: Float[np.ndarray, "A"]
    overlap: Float[np.ndarray, "A"]
    """Sum of the IoU of the matched masks."""
    same_identity: int = 0
    """IDF1's true positives: frames in which the one prediction paired with an object in the whole video matches it."""
    truth_masks: int = 0
    predicted_masks: int = 0
    identity_switches: int = 0

    @classmethod
    def nothing(cls) -> "TrackingCounts":
        """Before the first video."""
        found, missed, spurious = np.zeros((3, len(ALPHAS)), dtype=np.int64)
        association, recall, precision, overlap = np.zeros((4, len(ALPHAS)))
        return cls(found, missed, spurious, association, recall, precision, overlap)

    def __add__(self, other: "TrackingCounts") -> "TrackingCounts":
        return TrackingCounts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


class TrackingScores(NamedTuple):
    """Fractions 0 ... 1 (and a number of switches); those of HOTA are means over its 19 thresholds."""

    hota: float
    """Geometric mean of detection and association, threshold by threshold."""
    deta: float
    """Detection accuracy: matches over all annotated and predicted masks."""
    assa: float
    """Association accuracy: how much the tracks of two matched masks have in common, mean over the matches."""
    loca: float
    """Mean IoU of matched masks; 1 without any match."""
    assre: float
    """Association recall: how much of the object's track the prediction covers."""
    asspr: float
    """Association precision: how much of the prediction's track belongs to the object."""
    idf1: float
    idp: float
    """Identity precision."""
    idr: float
    """Identity recall."""
    identity_switches: int
    """How often an object is matched by another prediction than the last time."""


class CategoryTracking(NamedTuple):
    """The scores of one category."""

    id: int
    name: str
    objects: int
    """Annotated tracks (crowds do not count)."""
    predictions: int
    """Predicted tracks above the threshold."""
    scores: TrackingScores


@dataclass(frozen=True)
class TrackingMetrics:
    """How well objects are followed."""

    combined: TrackingScores
    """All categories counted together: every mask has the same weight."""
    class_averaged: TrackingScores
    """Mean over the categories that are annotated or predicted (switches: their sum); all 0 if none is."""
    per_category: tuple[CategoryTracking, ...]

    @property
    def objects(self) -> int:
        """Annotated tracks; without any the scores are 0, as in TrackEval, and say nothing."""
        return sum(row.objects for row in self.per_category)


def tracking_metrics(
    ground_truth: Sequence[GroundTruthTrack],
    predictions: Sequence[PredictedTrack],
    categories: Mapping[int, str] | None = None,
    min_score: float = 0.5,
) -> TrackingMetrics:
    """Compare predicted with annotated tracks, each category on its own.

    Predictions enter that score at least ``min_score`` (0 ... 1): unlike average precision, these measures know no
    ranking. ``categories`` maps the data set's category ids to names; None: the ids found in the ground truth.
    Predictions of other categories are left out. Crowds are no objects; a predicted mask more than half of which lies
    on crowds of its category, and which reaches no object, is left out. A ValueError where the masks of a video differ
    in number or size.
    """
    if categories is None:
        categories = {track.category_id: str(track.category_id) for track in ground_truth}
    kept = [track for track in predictions if track.score >= min_score]
    rows = []
    for id_ in sorted(categories):
        truths = [track for track in ground_truth if track.category_id == id_]
        found = [track for track in kept if track.category_id == id_]
        counts = sum((_video_counts(*cell) for cell in by_video(truths, found)), start=TrackingCounts.nothing())
        objects = sum(not track.iscrowd for track in truths)
        rows.append((CategoryTracking(id_, categories[id_], objects, len(found), scores(counts)), counts))
    counted = [row.scores for row, counts in rows if counts.truth_masks + counts.predicted_masks]
    return TrackingMetrics(
        combined=scores(sum((counts for _, counts in rows), start=TrackingCounts.nothing())),
        class_averaged=_average(counted),
        per_category=tuple(row for row, _ in rows),
    )


def scores(counts: TrackingCounts) -> TrackingScores:
    """The measures from what has been counted."""
    deta = counts.found / np.maximum(counts.found + counts.missed + counts.spurious, 1)
    assa = counts.association / np.maximum(counts.found, 1)
    loca = np.where(counts.found > 0, counts.overlap / np.maximum(counts.found, 1), 1.0)
    same, both = counts.same_identity, counts.truth_masks + counts.predicted_masks
    return TrackingScores(
        hota=float(np.sqrt(deta * assa).mean()),
        deta=float(deta.mean()),
        assa=float(assa.mean()),
        loca=float(loca.mean()),
        assre=float((counts.association_recall / np.maximum(counts.found, 1)).mean()),
        asspr=float((counts.association_precision / np.maximum(counts.found, 1)).mean()),
        idf1=2 * same / max(both, 1),
        idp=same / max(counts.predicted_masks, 1),
        idr=same / max(counts.truth_masks, 1),
        identity_switches=counts.identity_switches,
    )


def count_tracking(
    similarity: Float[np.ndarray, "T G D"], truth: Bool[np.ndarray, "T G"], predicted: Bool[np.ndarray, "T D"]
) -> TrackingCounts:
    """Count one video and category.

    ``similarity``: IoU of every pair of masks, 0 ... 1; ``truth`` and ``predicted``: in which frames a track has one.
    """
    counts = TrackingCounts.nothing()
    truth_lengths, predicted_lengths = truth.sum(0), predicted.sum(0)
    missed, spurious = int(truth_lengths.sum()), int(predicted_lengths.sum())
    if missed and spurious:
        matches = _hota_matches(similarity, truth, predicted)
        counts = _hota_counts(matches, truth_lengths, predicted_lengths)
    return TrackingCounts(
        found=counts.found,
        missed=missed - counts.found,
        spurious=spurious - counts.found,
        association=counts.association,
        association_recall=counts.association_recall,
        association_precision=counts.association_precision,
        overlap=counts.overlap,
        same_identity=_same_identity(similarity, truth, predicted),
        truth_masks=missed,
        predicted_masks=spurious,
        identity_switches=_identity_switches(similarity, truth, predicted),
    )


class _Matches(NamedTuple):
    """Pairs of masks that HOTA's assignment puts together, whatever their overlap."""

    truth: Int[np.ndarray, "n"]
    predicted: Int[np.ndarray, "n"]
    overlap: Float[np.ndarray, "n"]


def _hota_matches(
    similarity: Float[np.ndarray, "T G D"], truth: Bool[np.ndarray, "T G"], predicted: Bool[np.ndarray, "T D"]
) -> _Matches:
    """In each frame the pairs of the largest total overlap, weighted by how well the two tracks fit on the whole."""
    either = similarity.sum(1, keepdims=True) + similarity.sum(2, keepdims=True) - similarity
    together = np.divide(similarity, either, out=np.zeros_like(similarity), where=either > _EPSILON).sum(0)
    lengths = truth.sum(0)[:, None] + predicted.sum(0)
    alignment = together / np.maximum(lengths - together, _EPSILON)
    rows, columns, overlaps = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for t in np.flatnonzero(truth.any(1) & predicted.any(1)):
        g, d = np.flatnonzero(truth[t]), np.flatnonzero(predicted[t])
        overlap = similarity[t][np.ix_(g, d)]
        row, column = linear_sum_assignment(alignment[np.ix_(g, d)] * overlap, maximize=True)
        rows.append(g[row])
        columns.append(d[column])
        overlaps.append(overlap[row, column])
    return _Matches(np.concatenate(rows), np.concatenate(columns), np.concatenate(overlaps))


def _hota_counts(
    matches: _Matches, truth_lengths: Int[np.ndarray, "G"], predicted_lengths: Int[np.ndarray, "D"]
) -> TrackingCounts:
    """The matches at each threshold, and how much of their tracks matches at that threshold."""
    counts = TrackingCounts.nothing()
    shape = (len(truth_lengths), len(predicted_lengths))
    lengths = truth_lengths[:, None] + predicted_lengths
    for a, alpha in enumerate(ALPHAS):
        enough = matches.overlap >= alpha - _EPSILON
        table = np.zeros(shape, dtype=np.int64)
        np.add.at(table, (matches.truth[enough], matches.predicted[enough]), 1)
        counts.found[a] = table.sum()
        counts.overlap[a] = matches.overlap[enough].sum()
        counts.association[a] = (table**2 / np.maximum(lengths - table, 1)).sum()
        counts.association_recall[a] = (table**2 / np.maximum(truth_lengths, 1)[:, None]).sum()
        counts.association_precision[a] = (table**2 / np.maximum(predicted_lengths, 1)).sum()
    return counts


def _same_identity(
    similarity: Float[np.ndarray, "T G D"], truth: Bool[np.ndarray, "T G"], predicted: Bool[np.ndarray, "T D"]
) -> int:
    """Matches of the one-to-one pairing of whole tracks that has most of them."""
    together = ((similarity >= THRESHOLD) & truth[:, :, None] & predicted[:, None]).sum(0)
    return int(together[linear_sum_assignment(together, maximize=True)].sum())


def _identity_switches(
    similarity: Float[np.ndarray, "T G D"], truth: Bool[np.ndarray, "T G"], predicted: Bool[np.ndarray, "T D"]
) -> int:
    """How often an object's match changes; a pair of the frame before stays together if it still overlaps enough."""
    switches = 0
    last = np.full(truth.shape[1], -1)  # whom each object was matched with, whenever that was
    before = last.copy()  # the same, in the last frame that had anything to match
    for t in np.flatnonzero(truth.any(1) & predicted.any(1)):
        g, d = np.flatnonzero(truth[t]), np.flatnonzero(predicted[t])
        overlap = similarity[t][np.ix_(g, d)]
        value = np.where(overlap >= THRESHOLD - _EPSILON, overlap + 1000.0 * (before[g][:, None] == d), 0.0)
        row, column = linear_sum_assignment(value, maximize=True)
        matched = value[row, column] > _EPSILON
        g, d = g[row[matched]], d[column[matched]]
        switches += int(((last[g] >= 0) & (last[g] != d)).sum())
        last[g] = d
        before[:] = -1
        before[g] = d
    return switches


def by_video(
    truths: Iterable[GroundTruthTrack], predictions: Iterable[PredictedTrack]
) -> list[tuple[int, list[GroundTruthTrack], list[PredictedTrack]]]:
    """Annotated and predicted tracks of each video that has any, in the order of the ids."""
    videos: dict[int, tuple[list[GroundTruthTrack], list[PredictedTrack]]] = {}
    for truth in truths:
        videos.setdefault(truth.video_id, ([], []))[0].append(truth)
    for prediction in predictions:
        videos.setdefault(prediction.video_id, ([], []))[1].append(prediction)
    return [(video, *videos[video]) for video in sorted(videos)]


def _video_counts(video_id: int, truths: list[GroundTruthTrack], predictions: list[PredictedTrack]) -> TrackingCounts:
    try:
        truth = TrackMasks.measure([track.masks for track in truths])
        predicted = TrackMasks.measure([track.masks for track in predictions])
        shared = frame_intersections(predicted, truth).transpose(2, 1, 0)
    except ValueError as error:
        raise ValueError(f"video {video_id}: {error}") from error
    truth_areas, predicted_areas = truth.areas.T, predicted.areas.T
    frames = max(len(truth_areas), len(predicted_areas))
    if not (len(truths) and len(predictions)):  # whichever is empty does not know the length of the video
        shared = np.zeros((frames, len(truths), len(predictions)), dtype=np.int64)
        truth_areas, predicted_areas = (
            areas.reshape(frames, -1) if areas.size else np.zeros((frames, 0), dtype=np.int64)
            for areas in (truth_areas, predicted_areas)
        )
    either = truth_areas[:, :, None] + predicted_areas[:, None] - shared
    similarity = shared / np.maximum(either, 1)
    crowd = np.array([track.iscrowd for track in truths], dtype=bool)
    reaches = (similarity[:, ~crowd] >= THRESHOLD).any(1)
    excused = ~reaches & (2 * shared[:, crowd].sum(1) > predicted_areas)
    similarity = np.where(excused[:, None], 0.0, similarity)[:, ~crowd]
    return count_tracking(similarity, truth_areas[:, ~crowd] > 0, (predicted_areas > 0) & ~excused)


def _average(rows: Sequence[TrackingScores]) -> TrackingScores:
    if not rows:
        return TrackingScores(*[0.0] * 9, identity_switches=0)
    means = np.mean(rows, axis=0).tolist()
    return TrackingScores(*means[:-1], identity_switches=sum(row.identity_switches for row in rows))
