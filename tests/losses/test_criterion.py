from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from nano import batch_of, empty, hide, nano_model, squares

from cavis.config import OURS, RELEASED, LossConfig, Reading
from cavis.losses.contrastive import contrast
from cavis.losses.criterion import (
    InstanceLoss,
    RefinerCriterion,
    SegmenterCriterion,
    TrackerCriterion,
    context_instances,
    prototype_instances,
)
from cavis.losses.matching import match_frames, on_grid
from cavis.records import LayerPrediction

CONFIG = LossConfig(points=64)


@pytest.fixture(scope="module")
def model():
    return nano_model()


def predict(model, *clips):
    batch = batch_of(*clips)
    return model.segmenter(batch.frames), batch.targets


def seeded():
    return torch.Generator().manual_seed(3)


def total(terms):
    return torch.stack(list(terms.values())).sum()


def test_the_class_loss_equals_the_weighted_mean_query_by_query():
    logits = torch.randn(1, 2, 4, 4, generator=seeded())
    clip = hide(squares(frames=2), (1, 1))
    layer = LayerPrediction(logits, torch.randn(1, 2, 4, 16, 24, generator=seeded()))
    objects = on_grid((clip.targets,), layer.mask_logits)
    matches = match_frames(layer, objects, CONFIG, seeded())
    terms = InstanceLoss(CONFIG, 3)(layer, objects, matches, seeded())
    loss, weight = 0.0, 0.0
    for t in range(2):
        wanted = {matches[0][t, n].item(): clip.targets.labels[n].item() for n in range(3)}
        for q in range(4):
            label = wanted.get(q, 3)
            share = 1.0 if label < 3 else 0.1
            loss = loss - share * F.log_softmax(logits[0, t, q], dim=-1)[label]
            weight += share
    torch.testing.assert_close(terms["class"], 2 * loss / weight)


def test_perfect_predictions_cost_almost_nothing():
    clip = squares()
    truth = F.interpolate(clip.targets.masks.float().transpose(0, 1), size=(32, 48), mode="area")
    masks = F.interpolate(100 * (2 * F.pad(truth, (0, 0, 0, 0, 0, 2)) - 1), size=(16, 24), mode="area")
    logits = torch.full((1, 3, 5, 4), -50.0)
    for n, label in enumerate(clip.targets.labels):
        logits[0, :, n, label] = 50
    logits[0, :, 3:, 3] = 50
    layer = LayerPrediction(logits, masks[None])
    objects = on_grid((clip.targets,), layer.mask_logits)
    matches = match_frames(layer, objects, CONFIG, seeded())
    assert matches[0].tolist() == [[0, 1, 2]] * 3
    good = InstanceLoss(CONFIG, 3)(layer, objects, matches, seeded())
    wrong = InstanceLoss(CONFIG, 3)(layer, objects, (matches[0].flip(1),), seeded())
    assert good["class"] < 1e-3
    for name in ("mask", "dice"):
        assert good[name] < 0.3 * wrong[name]


def test_a_clip_without_objects_gives_a_finite_loss_and_gradients_everywhere():
    model = nano_model().train()
    for clips in ([empty(squares())], [empty(squares()), squares(1)]):
        model.zero_grad()
        frames, targets = predict(model, *clips)
        tracks, _ = model.track(frames)
        for reading in (OURS, RELEASED, Reading(prototypes="predicted", tracker_contrast=True)):
            terms = SegmenterCriterion(CONFIG, reading, 3)(frames, targets, seeded())
            terms |= {f"t_{k}": v for k, v in TrackerCriterion(CONFIG, reading, 3)(tracks, targets, seeded()).items()}
            assert torch.isfinite(total(terms))
            total(terms).backward(retain_graph=True)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_a_lone_object_has_no_contrast(model):
    frames, targets = predict(model, squares(objects=1))
    terms = SegmenterCriterion(CONFIG, OURS, 3)(frames, targets, seeded())
    assert terms["context"] == terms["prototype"] == terms["context_cosine"] == 0
    assert terms["class"] > 0


def test_terms_of_weight_zero_are_left_out(model):
    frames, targets = predict(model, squares())
    full = SegmenterCriterion(CONFIG, OURS, 3)(frames, targets, seeded())
    assert {"context", "context_cosine", "prototype", "prototype_cosine"} <= full.keys()
    for name in ("context", "prototype"):
        config = replace(CONFIG, **{f"{name}_weight": 0.0})
        terms = SegmenterCriterion(config, OURS, 3)(frames, targets, seeded())
        assert terms.keys() == {key for key in full if not key.startswith(name)}
        for key, value in terms.items():
            assert torch.equal(value, full[key])
    terms = SegmenterCriterion(CONFIG, Reading(cosine_aux_weight=0.0), 3)(frames, targets, seeded())
    assert terms.keys() == {key for key in full if not key.endswith("cosine")}
    tracked = nano_model().train().track(frames)[0]
    reading = Reading(tracker_contrast=True)
    names = TrackerCriterion(CONFIG, reading, 3)(tracked, targets, seeded()).keys()
    without = TrackerCriterion(replace(CONFIG, tracker_contrast_weight=0.0), reading, 3)(tracked, targets, seeded())
    assert names - without.keys() == {"track", "track_cosine"}


def test_terms_grow_with_their_weights(model):
    frames, targets = predict(model, squares())
    single = SegmenterCriterion(CONFIG, OURS, 3)(frames, targets, seeded())
    weights = {"context_weight": 6.0, "prototype_weight": 1.0}
    scaled = SegmenterCriterion(replace(CONFIG, **weights), OURS, 3)(frames, targets, seeded())
    torch.testing.assert_close(scaled["context"], 3 * single["context"])
    torch.testing.assert_close(scaled["prototype"], single["prototype"] / 2)
    torch.testing.assert_close(scaled["context_cosine"], single["context_cosine"])


def matched(model, *clips, **reading):
    frames, targets = predict(model, *clips)
    layer = LayerPrediction(frames.class_logits, frames.mask_logits)
    objects = on_grid(targets, frames.mask_logits)
    matches = match_frames(layer, objects, CONFIG, seeded(), match_absent=Reading(**reading).match_absent)
    return frames, objects, matches


def test_context_instances_are_the_features_of_matched_queries(model):
    frames, objects, matches = matched(model, hide(squares(0), (1, 2)), squares(1))
    found = context_instances(frames, objects, matches, absent_identity=False)
    expected = [(b, t, n) for b in range(2) for t in range(3) for n in range(3) if (b, t, n) != (0, 2, 1)]
    assert len(found.identity) == len(expected)
    for row, (b, t, n) in enumerate(expected):
        torch.testing.assert_close(found.features[row], frames.context_embedding[b, t, matches[b][t, n]])
        assert (found.clip[row], found.frame[row]) == (b, t)
    assert len(found.identity.unique()) == 6


def test_absent_objects_are_one_identity_more_if_so_read(model):
    clip = hide(squares(0), (0, 0), (1, 2), (2, 2))
    frames, objects, matches = matched(model, clip, match_absent=True)
    left_out = context_instances(frames, objects, matches, absent_identity=False)
    taken_in = context_instances(frames, objects, matches, absent_identity=True)
    assert (len(left_out.identity), len(taken_in.identity)) == (6, 9)
    identities, counts = taken_in.identity.unique(return_counts=True)
    assert counts.tolist() == [2, 2, 2, 3]
    assert identities[-1] == 3


def test_prototypes_are_mean_pixels_of_true_or_predicted_masks(model):
    frames, objects, matches = matched(model, hide(squares(0), (1, 2)))
    true = prototype_instances(frames, objects, matches, predicted=False)
    assert len(true.identity) == 8
    weights = F.interpolate(objects[0].masks[:1], size=(16, 24), mode="bilinear")[0, 0]
    mean = (frames.mask_features[0, 0] * weights).sum(dim=(1, 2)) / weights.sum()
    torch.testing.assert_close(true.features[0], mean)
    predicted = prototype_instances(frames, objects, matches, predicted=True)
    for row in range(len(predicted.identity)):
        t, n = predicted.frame[row], predicted.identity[row]
        chosen = frames.mask_logits[0, t, matches[0][t, n]] > 0
        torch.testing.assert_close(predicted.features[row], frames.mask_features[0, t][:, chosen].mean(dim=1))


@pytest.mark.parametrize("predicted", [False, True])
def test_contrast_of_a_batch_is_the_mean_over_all_identities(model, predicted):
    clips = squares(0), squares(1)
    frames, objects, matches = matched(model, *clips)
    together = contrast(prototype_instances(frames, objects, matches, predicted))
    alone = []
    for b in range(2):
        part = type(frames)(**{k: v[b : b + 1] for k, v in vars(frames).items() if k != "auxiliary"})
        alone.append(contrast(prototype_instances(part, objects[b : b + 1], matches[b : b + 1], predicted)))
    torch.testing.assert_close(together.loss, (alone[0].loss + alone[1].loss) / 2)
    torch.testing.assert_close(together.cosine, (alone[0].cosine + alone[1].cosine) / 2)


def test_a_guide_decides_the_matching_of_every_block():
    model = nano_model().train()
    frames, targets = predict(model, squares())
    tracks, _ = model.track(frames)
    shuffled = replace(
        tracks, class_logits=tracks.class_logits.flip(2), mask_logits=tracks.mask_logits.flip(2), auxiliary=()
    )
    criterion = TrackerCriterion(CONFIG, OURS, 3)
    own, same, other = (criterion(tracks, targets, seeded(), guide=guide) for guide in (None, tracks, shuffled))
    torch.testing.assert_close(own["class"], same["class"])
    assert other["class"] != own["class"]
    assert other["class_0"] != same["class_0"]


def test_the_track_term_is_there_only_if_so_read_and_never_for_one_frame():
    model = nano_model().train()
    for count, reading, present in ((3, True, True), (3, False, False), (1, True, False)):
        frames, targets = predict(model, squares(frames=count))
        criterion = TrackerCriterion(CONFIG, Reading(tracker_contrast=reading), 3)
        assert ("track" in criterion(model.track(frames)[0], targets, seeded())) is present


@pytest.mark.parametrize("stage", ["segmenter", "tracker", "refiner"])
def test_a_criterion_is_the_same_under_half_precision(stage):
    """Sums over 12544 points of sure logits are beyond what fp16 holds, and so are those of features over a map."""
    model, config = nano_model(stage="refiner").train(), LossConfig(points=12544)
    frames, targets = predict(model, squares())
    frames = replace(frames, mask_logits=30 * frames.mask_logits.sign(), mask_features=500 * frames.mask_features)
    criterion, made = SegmenterCriterion(config, RELEASED, 3), frames
    if stage != "segmenter":
        made = model.track(frames)[0] if stage == "tracker" else model.refiner.predict(model.track(frames)[0], frames)
        made = replace(made, mask_logits=30 * made.mask_logits.sign())
        reading = replace(RELEASED, tracker_contrast=True)
        criterion = TrackerCriterion(config, reading, 3) if stage == "tracker" else RefinerCriterion(config, 3)
    with torch.no_grad():
        whole = criterion(made, targets, seeded())
        with torch.autocast("cpu", dtype=torch.float16):
            half = criterion(made, targets, seeded())
    assert all(value.isfinite() for value in whole.values())
    for name, value in half.items():
        assert value.dtype == torch.float32
        assert value.equal(whole[name]), name
