import pytest
import torch
import torch.nn.functional as F
from nano import images, nano_model

from cavis.config import ResNet
from cavis.model.layers import Attention
from cavis.model.position import sine_position


@pytest.fixture(scope="module")
def segmenter():
    return nano_model(stage="segmenter").segmenter


def test_attention_masks_from_resized_features_equal_resized_masks(segmenter):
    heads = segmenter.query_decoder.heads
    torch.manual_seed(0)
    core, features = torch.randn(2, 8, 32), torch.randn(2, 32, 16, 24)
    for size in ((2, 3), (4, 6), (8, 12)):
        small = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
        full = F.interpolate(heads.masks(core, features), size=size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(heads.masks(core, small), full, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_query_with_an_empty_mask_may_look_everywhere(segmenter):
    decoder = segmenter.query_decoder
    features = segmenter.pixel_decoder(segmenter.backbone(segmenter.normalise(images()[0])))
    level = decoder._level(2, features)
    x = decoder.query_feature.weight.expand(4, -1, -1)
    embedding = decoder.heads.mask_head(decoder.heads.norm(x))
    against = level._replace(mask_features=-embedding[:, 3, :, None, None].expand_as(level.mask_features))
    assert (decoder.heads.masks(decoder.heads.norm(x), against.mask_features)[:, 3] < 0).all()
    assert not decoder._blocked(x, against)[:, 3].any()
    torch.manual_seed(0)
    mixed = level._replace(mask_features=torch.randn_like(level.mask_features))
    logits = decoder.heads.masks(decoder.heads.norm(x), mixed.mask_features).flatten(2)
    assert torch.equal(decoder._blocked(x, mixed), logits < 0)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 70), (33, 64), (31, 40)])
def test_images_of_any_size_are_padded_right_and_below(segmenter, height, width):
    picture = images(1, 1, height, width)
    padded = (-(-height // 32) * 32, -(-width // 32) * 32)
    prediction = segmenter(picture)
    assert prediction.mask_logits.shape[-2:] == (padded[0] // 4, padded[1] // 4)
    normal = segmenter.normalise(picture[0])
    assert normal.shape[-2:] == padded
    assert (normal[..., height:, :] == 0).all()
    assert (normal[..., width:] == 0).all()
    mean_colour = torch.tensor((123.675, 116.28, 103.53)).view(1, 1, 3, 1, 1)
    by_hand = mean_colour.repeat(1, 1, 1, *padded)
    by_hand[..., :height, :width] = picture.float()
    torch.testing.assert_close(segmenter(by_hand).class_logits, prediction.class_logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_frames_and_clips_do_not_see_each_other(segmenter):
    pictures = images(2, 3)
    together = segmenter(pictures)
    for b in range(2):
        for t in range(3):
            alone = segmenter(pictures[b : b + 1, t : t + 1])
            for name in ("class_logits", "mask_logits", "context_aware", "context"):
                part = getattr(together, name)[b : b + 1, t : t + 1]
                torch.testing.assert_close(part, getattr(alone, name), atol=1e-4, rtol=1e-4)


def test_earlier_layers_are_predicted_in_training_only(segmenter):
    with torch.no_grad():
        assert segmenter(images()).auxiliary == ()
        training = nano_model(stage="segmenter").segmenter.train()
        assert len(training(images()).auxiliary) == 2  # before the first layer, and after each but the last


@torch.no_grad()
def test_the_context_embedding_is_the_mlp_of_core_and_context(segmenter):
    prediction = segmenter(images())
    both = torch.cat((prediction.core, prediction.context), dim=-1)
    torch.testing.assert_close(segmenter.context_mlp(both), prediction.context_embedding)
    assert torch.equal(prediction.context_aware, torch.cat((prediction.core, prediction.context_embedding), dim=-1))


@torch.no_grad()
def test_without_context_the_core_features_stand_alone():
    model = nano_model(stage="segmenter", context="none")
    prediction = model.segmenter(images())
    assert torch.equal(prediction.context_aware, prediction.core)
    assert model.segmenter.context_mlp is None


def test_the_position_encoding_tells_all_cells_apart():
    encoding = sine_position(6, 9, 32, like=torch.zeros(()))
    assert encoding.shape == (54, 32)
    distance = torch.cdist(encoding, encoding) + torch.eye(54)
    assert distance.min() > 0.05
    rows = encoding.unflatten(0, (6, 9))
    assert torch.equal(rows[:, 0, :16], rows[:, 5, :16])  # y in the first half
    assert torch.equal(rows[0, :, 16:], rows[3, :, 16:])  # x in the second


def test_attention_equals_the_written_out_softmax():
    torch.manual_seed(0)
    attention = Attention(8, 2)
    query, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    blocked = torch.rand(2, 3, 5) < 0.4
    blocked[..., 0] = False
    q, k, v = attention.query(query), attention.key(memory), attention.value(memory)
    outs = []
    for head in (slice(0, 4), slice(4, 8)):
        logits = q[..., head] @ k[..., head].transpose(1, 2) / 2
        outs.append(logits.masked_fill(blocked, -torch.inf).softmax(dim=-1) @ v[..., head])
    expected = attention.out(torch.cat(outs, dim=-1))
    torch.testing.assert_close(attention(query, attention.project(memory, memory), blocked), expected)


def test_a_hidden_size_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="expected a hidden size that 3 heads divide, got 8"):
        Attention(8, 3)


@torch.no_grad()
@pytest.mark.parametrize("layer", ["basic", "bottleneck"])
def test_backbone_maps_have_the_strides_4_8_16_32(layer):
    from cavis.model.backbones import ResNetMaps

    maps = ResNetMaps(ResNet(depths=(1, 1, 1, 1), widths=(8, 16, 32, 64), stem_width=8, layer=layer))(
        torch.zeros(1, 3, 64, 96)
    )
    assert [tuple(x.shape[1:]) for x in maps] == [(8, 16, 24), (16, 8, 12), (32, 4, 6), (64, 2, 3)]
