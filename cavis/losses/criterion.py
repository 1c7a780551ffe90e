"""The objectives: L_S of Eq. 12 for the segmenter, L_T of Eq. 13 for the tracker, L_Inst alone for the refiner."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cavis.config import LossConfig, Reading
from cavis.losses.contrastive import Contrast, Instances, contrast, prototypes, track_contrast
from cavis.losses.mask_losses import dice, mask_cross_entropy
from cavis.losses.matching import GridTargets, Matches, match_first_appearance, match_frames, on_grid, where_seen
from cavis.losses.partial_labels import on_annotated, without_unknown
from cavis.losses.point_sampling import Draws, of_clips, sample_at, uncertain_points
from cavis.losses.totals import Total, alone
from cavis.records import ClipPrediction, FramePrediction, LayerPrediction, Targets

Terms = dict[str, Tensor]
"""Named, weighted loss terms; their sum is the objective, or this process's share of it."""

ABSENT = -1
"""The id of whatever is not there, as data sets have it."""


class InstanceLoss:
    """L_Inst of Eq. 2 on one layer: class, mask and dice terms of matched queries."""

    def __init__(self, config: LossConfig, num_classes: int, total: Total = alone) -> None:
        self.config = config
        self.num_classes = num_classes
        self.total = total

    def __call__(
        self,
        layer: LayerPrediction,
        objects: tuple[GridTargets, ...],
        matches: Matches,
        generator: Draws = None,
    ) -> Terms:
        """The three weighted terms; masks are averaged over all matched pairs, queries by class weight."""
        logits, truth, pairs = self._matched_masks(layer, objects, matches)
        config, count = self.config, self.total(logits.new_tensor(float(len(logits)))).clamp(min=1)
        with torch.no_grad():
            points = uncertain_points(
                logits,
                config.points,
                oversample=config.oversample,
                importance=config.importance,
                generator=of_clips(generator, pairs),
            )
            wanted = sample_at(truth, points)[:, 0]
        predicted = sample_at(logits, points)[:, 0]
        return {
            "class": config.class_weight * self._class_loss(layer, objects, matches),
            "mask": config.mask_weight * mask_cross_entropy(predicted, wanted).sum() / count,
            "dice": config.dice_weight * dice(predicted, wanted).sum() / count,
        }

    def _class_loss(self, layer: LayerPrediction, objects: tuple[GridTargets, ...], matches: Matches) -> Tensor:
        """Cross-entropy over all queries; unmatched ones are "no object", which weighs less."""
        logits = layer.class_logits.float()
        wanted = torch.full(logits.shape[:3], self.num_classes, device=logits.device)
        for b, (clip, query_of) in enumerate(zip(objects, matches, strict=True)):
            frame, row = (query_of >= 0).nonzero(as_tuple=True)
            wanted[b, frame, query_of[frame, row]] = clip.labels[row]
        unknown = [clip.unknown for clip in objects]
        if any(map(len, unknown)):
            pairs = zip(layer.mask_logits.float(), objects, strict=True)
            known = torch.stack([on_annotated(masks, clip.masks) for masks, clip in pairs])
            logits = without_unknown(logits, wanted, unknown, known)
        weights = logits.new_ones(self.num_classes + 1)
        weights[-1] = self.config.no_object_weight
        loss = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), weight=weights, reduction="sum")
        return loss / self.total(weights[wanted].sum())

    def _matched_masks(
        self, layer: LayerPrediction, objects: tuple[GridTargets, ...], matches: Matches
    ) -> tuple[Float[Tensor, "M 1 h w"], Float[Tensor, "M 1 H2 W2"], list[int]]:
        """Predicted logits and true masks of every matched pair, clip after clip, and how many a clip has."""
        predicted, truth = [], []
        for b, (clip, query_of) in enumerate(zip(objects, matches, strict=True)):
            frame, row = (query_of >= 0).nonzero(as_tuple=True)
            predicted.append(layer.mask_logits[b, frame, query_of[frame, row]])
            truth.append(clip.masks[frame, row])
        pairs = [len(masks) for masks in truth]
        return torch.cat(predicted).float()[:, None], torch.cat(truth)[:, None], pairs


class SegmenterCriterion:
    """L_S = L_VIS + λ_CTX L_CTX + λ_PCC L_PCC (Eq. 12), with the instance loss on every decoder layer."""

    def __init__(self, config: LossConfig, reading: Reading, num_classes: int, total: Total = alone) -> None:
        self.config = config
        self.reading = reading
        self.total = total
        self.instance_loss = InstanceLoss(config, num_classes, total)

    def __call__(self, prediction: FramePrediction, targets: tuple[Targets, ...], generator: Draws = None) -> Terms:
        """All weighted terms; ``class_3`` is the class term of the third auxiliary layer, and so on."""
        with torch.autocast(prediction.mask_logits.device.type, enabled=False):  # sums over many points overflow fp16
            last = LayerPrediction(prediction.class_logits, prediction.mask_logits)
            objects = on_grid(targets, prediction.mask_logits)
            matches = self._match(last, objects, generator)
            terms = self.instance_loss(last, objects, matches, generator)
            for i, layer in enumerate(prediction.auxiliary):
                extra = self.instance_loss(layer, objects, self._match(layer, objects, generator), generator)
                terms |= {f"{name}_{i}": value for name, value in extra.items()}
            return terms | self._contrastive_terms(prediction, objects, matches)

    def _match(self, layer: LayerPrediction, objects: tuple[GridTargets, ...], generator: Draws) -> Matches:
        return match_frames(layer, objects, self.config, generator, match_absent=self.reading.match_absent)

    def _contrastive_terms(
        self, prediction: FramePrediction, objects: tuple[GridTargets, ...], matches: Matches
    ) -> Terms:
        """L_CTX (Eq. 8) on context-aware features, L_PCC (Eq. 11) on pixel prototypes."""
        terms: Terms = {}
        if self.config.context_weight:
            reading = self.reading
            instances = context_instances(
                prediction, objects, matches, reading.absent_identity, across_clips=reading.contrast_across_clips
            )
            term = contrast(instances, self_positive=reading.self_positive, total=self.total)
            terms |= self._weighted("context", self.config.context_weight, term)
        if self.config.prototype_weight:
            instances = prototype_instances(prediction, objects, matches, self.reading.prototypes == "predicted")
            term = contrast(instances, self_positive=self.reading.self_positive, total=self.total)
            terms |= self._weighted("prototype", self.config.prototype_weight, term)
        return terms

    def _weighted(self, name: str, weight: float, term: Contrast) -> Terms:
        terms = {name: weight * term.loss}
        if self.reading.cosine_aux_weight:
            terms[f"{name}_cosine"] = self.reading.cosine_aux_weight * term.cosine
        return terms


class TrackerCriterion:
    """L_T (Eq. 13): the instance loss on every block, objects matched where they first appear."""

    def __init__(self, config: LossConfig, reading: Reading, num_classes: int, total: Total = alone) -> None:
        self.config = config
        self.reading = reading
        self.total = total
        self.instance_loss = InstanceLoss(config, num_classes, total)

    def __call__(
        self,
        prediction: ClipPrediction,
        targets: tuple[Targets, ...],
        generator: Draws = None,
        *,
        guide: ClipPrediction | None = None,
    ) -> Terms:
        """All weighted terms.

        With a ``guide`` (the segmenter's predictions in track order) targets are matched on it, for every block;
        otherwise each block is matched on its own predictions.
        """
        with torch.autocast(prediction.mask_logits.device.type, enabled=False):  # sums over many points overflow fp16
            last = LayerPrediction(prediction.class_logits, prediction.mask_logits)
            objects = on_grid(targets, prediction.mask_logits)
            guided = None
            if guide is not None:
                layer = LayerPrediction(guide.class_logits, guide.mask_logits)
                guided = match_first_appearance(layer, objects, self.config, generator)
            terms: Terms = {}
            for suffix, layer in [("", last), *((f"_{i}", layer) for i, layer in enumerate(prediction.auxiliary))]:
                matches = guided or match_first_appearance(layer, objects, self.config, generator)
                learned = where_seen(matches, objects) if self.reading.hidden == "left_out" else matches
                extra = self.instance_loss(layer, objects, learned, generator)
                terms |= {f"{name}{suffix}": value for name, value in extra.items()}
                if not suffix:
                    terms |= self._track_terms(prediction.references, matches)
            return terms

    def _track_terms(self, references: Float[Tensor, "B R Q C"] | None, matches: Matches) -> Terms:
        """The released tracker's contrastive terms, if so read; a clip of one frame has none."""
        if references is None or not (self.reading.tracker_contrast and self.config.tracker_contrast_weight):
            return {}
        parts = [
            track_contrast(clip.float(), query_of[0][query_of[0] >= 0])
            for clip, query_of in zip(references, matches, strict=True)
        ]
        clips = self.total(references.new_tensor(len(parts), dtype=torch.float32))
        loss, cosine = (torch.stack(values).sum() / clips for values in zip(*parts, strict=True))
        terms = {"track": self.config.tracker_contrast_weight * loss}
        if self.reading.cosine_aux_weight:
            terms["track_cosine"] = self.reading.cosine_aux_weight * cosine
        return terms


class RefinerCriterion:
    """The refiner's objective: the instance loss (Eq. 2) on every block, each clip taken as one picture.

    The paper leaves it to DVIS: the frames of a clip are stacked, so a query answers for one object in the whole clip,
    its mask is compared at points of the whole clip, and it has one class. Objects that are never seen are left out.
    """

    def __init__(self, config: LossConfig, num_classes: int, total: Total = alone) -> None:
        self.config = config
        self.num_classes = num_classes
        self.total = total

    def __call__(
        self,
        prediction: ClipPrediction,
        targets: tuple[Targets, ...],
        generator: Draws = None,
        *,
        guide: ClipPrediction | None = None,
    ) -> Terms:
        """All weighted terms.

        With a ``guide`` (the tracker's predictions) targets are matched on it, for every block; otherwise each block
        is matched on its own predictions.
        """
        with torch.autocast(prediction.mask_logits.device.type, enabled=False):  # sums over many points overflow fp16
            frames = prediction.mask_logits.shape[1]
            config = replace(self.config, points=self.config.points * frames)
            instance_loss = InstanceLoss(config, self.num_classes, self.total)
            last = as_picture(LayerPrediction(prediction.class_logits, prediction.mask_logits))
            objects = tuple(stacked(clip) for clip in on_grid(targets, prediction.mask_logits))
            guided = None
            if guide is not None:
                layer = as_picture(LayerPrediction(guide.class_logits, guide.mask_logits))
                guided = match_frames(layer, objects, config, generator)
            terms: Terms = {}
            auxiliary = [(f"_{i}", as_picture(layer)) for i, layer in enumerate(prediction.auxiliary)]
            for suffix, layer in [("", last), *auxiliary]:
                matches = guided or match_frames(layer, objects, config, generator)
                extra = instance_loss(layer, objects, matches, generator)
                terms |= {f"{name}{suffix}": value for name, value in extra.items()}
            return terms


def as_picture(layer: LayerPrediction) -> LayerPrediction:
    """A clip as one picture, T = 1: its frames stacked from top to bottom, its class logits averaged."""
    masks = layer.mask_logits.transpose(1, 2).flatten(2, 3)
    return LayerPrediction(layer.class_logits.mean(dim=1, keepdim=True), masks[:, None])


def stacked(clip: GridTargets) -> GridTargets:
    """The targets of :func:`as_picture`: the objects that are seen in the clip, all present."""
    seen = clip.present.any(dim=0)
    masks = clip.masks[:, seen].transpose(0, 1).flatten(1, 2)
    return GridTargets(clip.labels[seen], masks[None], seen[seen][None], clip.ids[seen], clip.unknown)


def context_instances(
    prediction: FramePrediction,
    objects: tuple[GridTargets, ...],
    matches: Matches,
    absent_identity: bool,
    *,
    across_clips: bool = False,
) -> Instances:
    """The context-aware features of matched queries, object by object and frame by frame (Eq. 8).

    Queries matched to absent objects are left out, or form one identity more (``absent_identity``). A clip has its own
    identities, or the batch is one clip in which equal ids are one identity (``across_clips``).
    """
    parts = []
    for b, (clip, query_of) in enumerate(zip(objects, matches, strict=True)):
        present = clip.present
        frame, row = ((query_of >= 0) & (present | absent_identity)).nonzero(as_tuple=True)
        features = prediction.context_embedding[b, frame, query_of[frame, row]]
        if across_clips:
            identity = torch.where(present[frame, row], clip.ids[row], ABSENT)
            parts.append((features, identity, frame + b * len(present), 0))
        else:
            identity = torch.where(present[frame, row], row, len(clip.labels))
            parts.append((features, identity, frame, b))
    return _collect(parts)


def prototype_instances(
    prediction: FramePrediction, objects: tuple[GridTargets, ...], matches: Matches, predicted: bool
) -> Instances:
    """The pixel prototypes of every object in every frame (Eq. 11), from true masks or from matched predictions."""
    height, width = prediction.mask_logits.shape[-2:]
    parts = []
    for b, (clip, query_of) in enumerate(zip(objects, matches, strict=True)):
        if predicted:
            chosen = prediction.mask_logits[b].gather(
                1, query_of.clamp(min=0)[..., None, None].expand(-1, -1, height, width)
            )
            weights = ((chosen > 0) & (query_of >= 0)[..., None, None]).float()
        else:
            weights = _shrink(clip.masks, (height, width))
        frame, row = (weights.sum(dim=(-2, -1)) > 0).nonzero(as_tuple=True)
        features = prototypes(prediction.mask_features[b].float(), weights)
        parts.append((features[frame, row], row, frame, b))
    return _collect(parts)


def _shrink(masks: Float[Tensor, "T N H2 W2"], size: tuple[int, int]) -> Float[Tensor, "T N h w"]:
    """Masks on a coarser grid (bilinear); interpolation itself does not accept a clip without objects."""
    if masks.shape[1] == 0:
        return masks.new_zeros(len(masks), 0, *size)
    return F.interpolate(masks, size=size, mode="bilinear", align_corners=False)


def _collect(parts: list[tuple[Float[Tensor, "_ C"], Int[Tensor, "_"], Int[Tensor, "_"], int]]) -> Instances:
    """Join the clips of a batch; identities stay apart."""
    offset = 1 + max((int(identity.max()) for _, identity, _, _ in parts if len(identity)), default=0)
    return Instances(
        features=torch.cat([features.float() for features, _, _, _ in parts]),
        identity=torch.cat([identity + clip * offset for _, identity, _, clip in parts]),
        frame=torch.cat([frame for _, _, frame, _ in parts]),
        clip=torch.cat([torch.full_like(frame, clip) for _, _, frame, clip in parts]),
    )
