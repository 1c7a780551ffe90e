"""Association, tracker and refiner against the released ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_sets import bundled, cases, golden, golden_model, sets
from referee import Referee, calls_of, links_of
from settled import as_released
from tolerances import assert_close, assert_logits

from cavis.model import association, tracker
from cavis.model.association import invert, match
from cavis.records import ClipPrediction, FramePrediction

UNITS = sets("in.frame_embeds")
WHOLE = sets("tracker.match_last_frame")
TRACKED = [name for name in WHOLE if name not in UNITS]
LINKED = sets("minvis_match_indices")
WINDOW = 3
"""Frames that the released code segments together, where a set does not say."""
REFINED = [name for name in sets("refiner.pred_logits") if name not in UNITS]


def segmented(stored) -> FramePrediction:
    """A unit set's inputs: what the segmenter would have said."""
    embeddings = stored["in.frame_embeds"].permute(0, 2, 3, 1)
    queries = stored["in.frame_embeds_no_norm"].permute(0, 2, 3, 1)
    hidden = queries.shape[-1]
    features = stored["in.mask_features"]
    shape = (*queries.shape[:3], *features.shape[-2:])
    return FramePrediction(
        class_logits=queries.new_zeros(*queries.shape[:3], stored.preset.model.num_classes + 1),
        mask_logits=queries.new_zeros(shape),
        queries=queries,
        core=embeddings[..., :hidden],
        context=torch.zeros_like(queries),
        context_embedding=embeddings[..., hidden:],
        context_aware=embeddings,
        mask_features=features,
    )


def window_of(frames: FramePrediction, start: int, size: int) -> FramePrediction:
    cut = {name: value[:, start : start + size] for name, value in vars(frames).items() if name != "auxiliary"}
    return FramePrediction(**cut)


def track(model, frames: FramePrediction, size: int):
    """Window by window, as the released code runs it; the pieces put together again, and the state after each."""
    state, pieces, states = None, [], []
    for start in range(0, frames.queries.shape[1], size):
        prediction, state = model.track(window_of(frames, start, size), state)
        pieces.append(prediction)
        states.append(state)
    fields = ("class_logits", "mask_logits", "embeddings", "core", "context_aware", "order")
    whole = {name: torch.cat([getattr(piece, name) for piece in pieces], dim=1) for name in fields}
    return ClipPrediction(**whole), states


def frames_of(stored, model):
    """What a set's tracker sees: stored inputs, or what the segmenter makes of the pixels."""
    if "in.frame_embeds" in stored:
        return segmented(stored), stored.info["windows_of"]
    with as_released(stored, model):
        frames = model.segmenter(stored["frames_u8"].permute(0, 3, 1, 2)[None])
    return frames, int(stored["window_size"][0]) if "window_size" in stored else WINDOW


@torch.no_grad()
@pytest.mark.parametrize("name", cases(UNITS + TRACKED))
def test_tracks_are_the_same(name, monkeypatch):
    stored, model = golden(name), golden_model(name)
    referee = Referee(calls_of(stored))
    frames, size = frames_of(stored, model)
    monkeypatch.setattr(tracker, "match", referee)
    prediction, states = track(model, frames, size)
    assert referee.calls == len(referee.stored)
    assert_logits(prediction.class_logits, stored["tracker.pred_logits"])
    assert_logits(prediction.mask_logits, stored["tracker.pred_masks"].transpose(1, 2))
    assert_close(prediction.embeddings, stored["tracker.pred_embds"].permute(0, 2, 3, 1))
    assert prediction.order[0, 1:].tolist() == stored["tracker.match_last_frame"][1:].tolist()
    for window, state in enumerate(states):
        fused = torch.cat((state.tracks, state.context), dim=-1)[0]
        assert_close(fused, carried(stored, window))


def carried(stored, window: int) -> torch.Tensor:
    """The released tracker's memory after a window, [Q 2C]."""
    if "tracker.last_ctx_aware_query_per_window" in stored:
        return stored["tracker.last_ctx_aware_query_per_window"][window]
    return stored[f"tracker.last_ctx_aware_query_after_window{window}"][:, 0]


@torch.no_grad()
@pytest.mark.parametrize("name", cases(UNITS + TRACKED))
def test_the_queries_and_the_earlier_blocks_are_the_same(name, monkeypatch):
    stored, model = golden(name), golden_model(name)
    frames, _ = frames_of(stored, model)
    monkeypatch.setattr(tracker, "match", Referee(calls_of(stored)))
    monkeypatch.setattr(model.tracker, "training", True)  # for the auxiliary predictions; nothing else asks
    prediction, _ = model.track(frames)
    assert_close(prediction.references, stored["tracker.pred_references"].permute(0, 2, 3, 1))
    for i, layer in enumerate(prediction.auxiliary):
        if f"tracker.aux{i}.pred_logits" in stored:
            assert_logits(layer.class_logits, stored[f"tracker.aux{i}.pred_logits"])
        if f"tracker.aux{i}.pred_masks__slice" in stored:
            expected = stored[f"tracker.aux{i}.pred_masks__slice"].transpose(1, 2)
            assert_logits(layer.mask_logits[..., ::4, ::4], expected)


@torch.no_grad()
@pytest.mark.parametrize("name", cases(LINKED))
def test_frames_are_linked_in_the_same_way(name, monkeypatch):
    stored, model = golden(name), golden_model(name)
    referee = Referee(links_of(stored))
    frames, _ = frames_of(stored, model)
    monkeypatch.setattr(association, "match", referee)
    prediction, _ = model.track(frames)
    assert referee.calls == len(referee.stored)
    assert_logits(prediction.class_logits.mean(dim=1)[0], stored["post.video_logits"])


@torch.no_grad()
@pytest.mark.parametrize("name", cases(sets("match.in_ref")))
def test_the_bare_matchers_are_the_same(name):
    stored = golden(name)
    order = match(stored["match.in_ref"][None], stored["match.in_cur"][None])
    assert invert(order)[0].tolist() == stored["match.CAVIS_Tracker.match_embds(ref,cur)"].tolist()
    assert order[0].tolist() == stored["match.MinVIS.match_from_embds(tgt=ref,cur)"].tolist()


@torch.no_grad()
@pytest.mark.parametrize("name", cases(sets("refiner_eval.pred_logits") + REFINED))
def test_refined_tracks_are_the_same(name):
    stored, model = golden(name), golden_model(name)
    kind = "refiner_eval" if "refiner_eval.pred_logits" in stored else "refiner"
    embeddings = stored["tracker.pred_embds"].permute(0, 2, 3, 1)
    frames, _ = frames_of(stored, model)
    refined = model.refiner(embeddings, frames.queries)
    assert_logits(refined.class_logits, stored[f"{kind}.pred_logits"])
    assert_close(refined.embeddings, stored[f"{kind}.pred_embds"].permute(0, 2, 3, 1))
    masks = model.refiner.masks(refined.embeddings, frames.mask_features)
    assert_logits(masks, stored[f"{kind}.pred_masks"].transpose(1, 2))


@torch.no_grad()
@pytest.mark.parametrize("name", cases(sets("refiner_train.pred_logits")))
def test_every_layer_of_the_refiner_is_the_same(name):
    stored = golden(name)
    refiner = golden(name).model().refiner.train()
    refined = refiner(stored["tracker.pred_embds"].permute(0, 2, 3, 1), segmented(stored).queries)
    assert_logits(refined.class_logits, stored["refiner_train.pred_logits"])
    assert_close(refined.embeddings, stored["refiner_train.pred_embds"].permute(0, 2, 3, 1))
    masks = refiner.masks(refined.embeddings, stored["in.mask_features"])[..., ::2, ::2]
    assert_logits(masks, stored["refiner_train.pred_masks__slice"].transpose(1, 2))
    assert len(refined.auxiliary) == len(refiner.blocks) - 1
    for i, layer in enumerate(refined.auxiliary):
        assert_logits(layer.class_logits, stored[f"refiner_train.aux{i}.pred_logits"])


@torch.no_grad()
def test_the_right_permutation_makes_another_model():
    """The released reading inverts Eq. 10; on the strongly shuffled slots of our set the two are far apart."""
    stored = bundled("tracker_unit")
    released = stored.model()
    reading = replace(stored.preset.model.reading, alignment="true")
    config = replace(stored.preset.model, reading=reading)
    from cavis.model import build_model

    ours = build_model(config, "tracker").tracker.eval()
    ours.load_state_dict(released.tracker.state_dict())
    right, _ = ours(segmented(stored))
    wrong, _ = released.tracker(segmented(stored))
    true_object = stored["in.true_object_of_slot"].numpy()

    def kept(prediction) -> float:
        objects = np.stack([true_object[t][order] for t, order in enumerate(prediction.order[0].numpy())])
        return float((objects[1:] == objects[:-1]).mean())

    assert kept(right) == 1.0
    assert kept(wrong) < 0.5
