"""The segmenter against the released one: stage by stage, then from pixels."""

import pytest
import torch
from golden_sets import cases, golden, golden_model, sets
from settled import as_released, by_frame, features
from tolerances import assert_close, assert_logits

WHOLE = sets("backbone.res2__slice")
STAGES = [name for name in sets("backbone.res2") if name not in WHOLE]


@pytest.fixture(params=cases(STAGES))
def staged(request):
    return golden(request.param), golden_model(request.param)


@pytest.fixture(params=cases(WHOLE))
def whole(request):
    return golden(request.param), golden_model(request.param)


def maps_of(stored):
    return tuple(stored[f"backbone.res{i}"] for i in (2, 3, 4, 5))


@torch.no_grad()
def test_the_backbone_makes_the_same_maps(staged):
    stored, model = staged
    frames = stored["frames_u8"].permute(0, 3, 1, 2)
    maps = model.segmenter.backbone(model.segmenter.normalise(frames))
    for ours, theirs in zip(maps, maps_of(stored), strict=True):
        assert_close(ours, theirs)


@torch.no_grad()
def test_the_pixel_decoder_makes_the_same_features_of_the_same_maps(staged):
    stored, model = staged
    ours, theirs = model.segmenter.pixel_decoder(maps_of(stored)), features(stored, model.segmenter)
    assert_close(ours.mask_features, theirs.mask_features)
    for level, other in zip(ours.levels, theirs.levels, strict=True):
        assert_close(level, other)


@torch.no_grad()
def test_the_query_decoder_makes_the_same_predictions_of_the_same_features(staged):
    stored, model = staged
    decoder, seen = model.segmenter.query_decoder, features(stored, model.segmenter)
    with as_released(stored, model):
        steps = decoder(seen)
    for i, step in enumerate(steps[:-1]):
        assert_logits(decoder.heads.classify(decoder.heads.norm(step)), stored[f"decoder.aux{i}.pred_logits"][0])
        if f"decoder.aux{i}.pred_masks" in stored:
            masks = decoder.heads.masks(decoder.heads.norm(step), seen.mask_features)
            assert_logits(masks, stored[f"decoder.aux{i}.pred_masks"][0].transpose(0, 1))
    core = decoder.heads.norm(steps[-1])
    assert_logits(decoder.heads.classify(core), stored["decoder.pred_logits"][0])
    assert_close(steps[-1], by_frame(stored["decoder.pred_embds_without_norm"]))
    masks = decoder.heads.masks(core, seen.mask_features)
    assert_logits(masks, stored["decoder.pred_masks"][0].transpose(0, 1))


@torch.no_grad()
def test_context_and_embedding_are_the_same_for_the_same_masks(staged):
    stored, model = staged
    segmenter = model.segmenter
    hidden = golden(stored.name).preset.model.hidden
    masks = stored["decoder.pred_masks"][0].transpose(0, 1)
    context = segmenter.context_pooling(masks, stored["pixel_decoder.mask_features"])
    expected = stored["decoder.context_Qtilde"].transpose(0, 1)
    assert_close(context[..., :1].expand_as(expected), expected)
    core = by_frame(stored["decoder.pred_embds"])[..., :hidden]
    assert_close(segmenter.embed(core, context), by_frame(stored["decoder.pred_reid_embed"]))


@torch.no_grad()
def test_pixels_become_the_same_maps_and_features(whole):
    stored, model = whole
    segmenter = model.segmenter
    normal = segmenter.normalise(stored["frames_u8"].permute(0, 3, 1, 2))
    assert tuple(normal.shape) == tuple(stored["input_padded_shape"].tolist())
    assert_close(normal[:, :, ::4, ::4], stored["input_norm__slice"])
    maps = segmenter.backbone(normal)
    seen = segmenter.pixel_decoder(maps)
    named = {
        f"backbone.res{i + 2}": (x, channel_step(x), step)
        for i, (x, step) in enumerate(zip(maps, (4, 2, 1, 1), strict=True))
    }
    for i, (level, step) in enumerate(zip(seen.levels, (1, 1, 2), strict=True)):
        named[f"pixel_decoder.multi_scale_{i}"] = (level, 8, step)
    named["pixel_decoder.mask_features"] = (seen.mask_features, 8, 2)
    for name, (x, channels, step) in named.items():
        assert tuple(x.shape) == tuple(stored[f"{name}__shape"].tolist())
        assert_close(x[:, ::channels, ::step, ::step], stored[f"{name}__slice"])
        assert_close(x.mean(dim=(2, 3)), stored[f"{name}__mean"])
        assert_close(x.std(dim=(2, 3), unbiased=False), stored[f"{name}__std"])


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", cases(WHOLE))
def test_pixels_become_the_same_instances(name, folded):
    stored = golden(name)
    model = golden_model(name, folded)
    with as_released(stored, model):
        prediction = model.segmenter(stored["frames_u8"].permute(0, 3, 1, 2)[None])
    assert_logits(prediction.class_logits, stored["seg.pred_logits"])
    assert_logits(prediction.mask_logits, stored["seg.pred_masks"].transpose(1, 2))
    assert_close(prediction.core[0], by_frame(stored["seg.inst_embds_Qhat"]))
    assert_close(prediction.queries[0], by_frame(stored["seg.pred_embds_without_norm"]))
    if "seg.ctx_aware_Q" in stored:
        assert_close(prediction.context[0, ..., 0], stored["seg.context_Qtilde__ch0"].T)
        assert_close(prediction.context_embedding[0], by_frame(stored["seg.ctx_aware_Q"]))


@torch.no_grad()
def test_the_heads_read_the_same_from_earlier_layers(whole):
    stored, model = whole
    segmenter = model.segmenter
    seen = features(stored, segmenter)
    with as_released(stored, model):
        steps = segmenter.query_decoder(seen)
    for i, step in enumerate(steps[:-1]):
        if f"seg.aux{i}.pred_logits" not in stored:
            continue
        core = segmenter.query_decoder.heads.norm(step)
        assert_logits(segmenter.query_decoder.heads.classify(core), stored[f"seg.aux{i}.pred_logits"][0])
        if f"seg.aux{i}.pred_masks__slice" in stored:
            masks = segmenter.query_decoder.heads.masks(core, seen.mask_features)[..., ::4, ::4]
            assert_logits(masks, stored[f"seg.aux{i}.pred_masks__slice"][0].transpose(0, 1))


def channel_step(x):
    return max(1, x.shape[1] // 32)
