"""The plain path and ours: the same numbers from the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import images, nano_config

from benchmarks import reference
from benchmarks.setting import Setting, pictures, random_model, ready_model
from cavis import rle
from cavis.config import RELEASED, Reading
from cavis.inference.online import OnlinePredictor

NANO = Setting(
    model=replace(nano_config(), reading=RELEASED, decoder_layers=4, pixel_decoder_layers=2),
    height=90,
    width=124,
    frames=7,
    repeats=1,
    short=4,
    long=8,
    top_k=6,
)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def model():
    return random_model(NANO.model)


@torch.inference_mode()
def test_segmenters_agree(model):
    video = images(1, 3, 90, 124)
    ours, plain = model.segmenter(video), reference.segment(model.segmenter, video[0])
    torch.testing.assert_close(plain.layers[-1].class_logits, ours.class_logits, **CLOSE)
    torch.testing.assert_close(plain.layers[-1].mask_logits, ours.mask_logits, **CLOSE)
    torch.testing.assert_close(plain.embedding, ours.context_embedding, **CLOSE)
    assert ours.mask_logits.std() > 0.1  # they agree on something
    assert (ours.context.std(dim=2) > 1e-3).any()


@torch.inference_mode()
def test_trackers_agree_over_windows(model):
    state, memory = None, None
    for seed in range(3):
        video = images(1, 2, 90, 124, seed=seed)
        ours, state = model(video, state)
        layers, memory = reference.track(model.tracker, reference.segment(model.segmenter, video[0]), memory)
        torch.testing.assert_close(layers[-1].class_logits, ours.class_logits, **CLOSE)
        torch.testing.assert_close(layers[-1].mask_logits, ours.mask_logits, **CLOSE)
    assert len(layers) == NANO.model.tracker_layers


def test_results_are_the_same(model):
    clip = list(pictures(NANO, NANO.frames))
    ours = list(OnlinePredictor(ready_model(model, NANO)).run(clip).predictions(NANO.top_k))
    plain = reference.run(model, clip, NANO.sizes, NANO.top_k)
    assert [(track.id, label) for track, label, _ in ours] == [(found.slot, found.label) for found in plain]
    np.testing.assert_allclose([score for *_, score in ours], [found.score for found in plain], atol=1e-5)
    different = pixels = 0
    for (track, *_), found in zip(ours, plain, strict=True):
        for one, other in zip(track.masks, found.masks, strict=True):
            one, other = (np.zeros(NANO.sizes.frame, bool) if m is None else rle.decode(m) for m in (one, other))
            different += int((one != other).sum())
            pixels += int(other.sum())
    assert pixels > 1000
    assert different <= 1e-3 * pixels  # ours were stored in half precision meanwhile


@pytest.mark.parametrize(
    ("reading", "expected"),
    [(Reading(), "channel_sum"), (replace(RELEASED, tracker_query="core"), "fusion layer")],
)
def test_another_reading_is_refused(reading, expected):
    other = random_model(replace(NANO.model, reading=reading))
    with pytest.raises(ValueError, match=expected):
        reference.run(other, pictures(NANO, 1), NANO.sizes, NANO.top_k)
