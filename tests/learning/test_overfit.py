"""Each stage can learn one clip by heart: the whole chain from pixels through losses and gradients to tracks works."""

from dataclasses import replace

import pytest
import torch
from nano import HEIGHT, WIDTH, batch_of, nano_model, nano_preset, squares

from cavis.inference.postprocess import Sizes, instance_masks
from cavis.losses.matching import match_first_appearance, on_grid
from cavis.records import LayerPrediction
from cavis.training.optimizer import build_optimizer, build_schedule
from cavis.training.stages import STAGES

STEPS = {"segmenter": 150, "tracker": 80}


def learn(stage_name, model, preset, batch):
    """Train on one batch; the loss of every step."""
    stage = STAGES[stage_name](model, preset)
    steps = STEPS[stage_name]
    schedule = replace(
        preset.stage(stage_name),
        steps=steps,
        decay_at=(2 * steps // 3,),
        learning_rate=3e-3,
        backbone_factor=1.0,
        warmup=10,
    )
    optimizer = build_optimizer(stage.learning, schedule)
    rates = build_schedule(optimizer, schedule)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(steps):
        loss = torch.stack(list(stage.terms(batch, step / steps, generator).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.learning.parameters(), 1.0)
        optimizer.step()
        rates.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def tracks_of(model, batch):
    """What the model in inference makes of the clip: intersection over union with each object, and its label."""
    model.eval()
    prediction, _ = model(batch.frames)
    targets = batch.targets[0]
    layer = LayerPrediction(prediction.class_logits, prediction.mask_logits)
    query_of = match_first_appearance(layer, on_grid((targets,), layer.mask_logits), nano_preset().loss)[0][0]
    sizes = Sizes((HEIGHT, WIDTH), (HEIGHT, WIDTH))
    overlaps = []
    for t in range(prediction.mask_logits.shape[1]):
        masks = instance_masks(prediction.mask_logits[0, t, query_of], sizes)
        truth = targets.masks[:, t]
        overlaps.append((masks & truth).sum(dim=(1, 2)) / (masks | truth).sum(dim=(1, 2)))
    labels = prediction.class_logits[0].mean(dim=0)[query_of].argmax(dim=-1)
    return torch.stack(overlaps), labels


@pytest.fixture(scope="module")
def learned():
    """A segmenter that knows one clip by heart: three squares, two of them of one colour."""
    model, preset, batch = nano_model(), nano_preset(), batch_of(squares(1, classes=2))
    losses = learn("segmenter", model, preset, batch)
    return model, preset, batch, losses


def test_the_segmenter_learns_a_clip_by_heart(learned):
    model, _, batch, losses = learned
    assert sum(losses[-10:]) < 0.15 * sum(losses[:10])
    without = nano_model(stage="segmenter")
    without.segmenter.load_state_dict(model.segmenter.state_dict())
    overlaps, labels = tracks_of(without, batch)
    assert overlaps.min() > 0.7
    assert labels.equal(batch.targets[0].labels)


def test_the_context_aware_features_tell_the_instances_apart(learned):
    model, _, batch, _ = learned
    with torch.no_grad():
        frames = model.eval().segmenter(batch.frames)
    layer = LayerPrediction(frames.class_logits, frames.mask_logits)
    features = []
    for t in range(3):  # each frame on its own
        part = LayerPrediction(layer.class_logits[:, t : t + 1], layer.mask_logits[:, t : t + 1])
        targets = replace(
            batch.targets[0], masks=batch.targets[0].masks[:, t : t + 1], present=batch.targets[0].present[:, t : t + 1]
        )
        query_of = match_first_appearance(part, on_grid((targets,), part.mask_logits), nano_preset().loss)[0][0]
        features.append(frames.context_embedding[0, t, query_of])
    similarity = torch.einsum("tnc,smc->tsnm", *[torch.nn.functional.normalize(torch.stack(features), dim=-1)] * 2)
    same = similarity.diagonal(dim1=2, dim2=3)
    other = similarity[..., ~torch.eye(3, dtype=torch.bool)]
    assert same.min() > other.max()


def test_the_tracker_learns_a_clip_by_heart_and_keeps_identities(learned):
    model, preset, batch, _ = learned
    losses = learn("tracker", model, preset, batch)
    assert sum(losses[-10:]) < 0.25 * sum(losses[:10])
    overlaps, labels = tracks_of(model, batch)  # queries are matched in the first frame: a swap later would show
    assert overlaps.min() > 0.7
    assert labels.equal(batch.targets[0].labels)
