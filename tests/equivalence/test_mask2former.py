"""Our segmenter against transformers' Mask2Former with the same weights: two implementations, one network."""

import pytest
import torch
from nano import HEIGHT, WIDTH, images, nano_config
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

LINEAR = ("weight", "bias")


@pytest.fixture(scope="module")
def theirs():
    ours = nano_config()
    backbone = ResNetConfig(
        embedding_size=ours.backbone.stem_width,
        hidden_sizes=list(ours.backbone.widths),
        depths=list(ours.backbone.depths),
        layer_type=ours.backbone.layer,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=2,
        decoder_layers=5,  # transformers counts the prediction before the first layer: these are four layers
        num_attention_heads=4,
        num_queries=8,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(config).eval()
    for name, value in model.named_parameters():  # zeros and faint weights would hide what they are multiplied by
        if value.dim() == 1:
            value.data += 0.1 * torch.randn_like(value)
        elif "embed" not in name and "queries" not in name:
            torch.nn.init.xavier_uniform_(value, gain=1.5)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
    return model


def renamed(prefix_ours, prefix_theirs, names):
    """Rows of the table: our module's name and theirs, for weight and bias."""
    return {
        f"{prefix_ours}.{ours}.{part}": f"{prefix_theirs}.{name}.{part}"
        for ours, name in names.items()
        for part in LINEAR
    }


def table(encoder_layers, decoder_layers):
    """Our names -> their names, but for the backbone and what their attention keeps in one piece."""
    pixel, transformer = "model.pixel_level_module.decoder", "model.transformer_module"
    names = {"pixel_decoder.level_embedding": f"{pixel}.level_embed"}
    for i in range(3):
        names |= renamed(f"pixel_decoder.project.{i}", f"{pixel}.input_projections.{i}", {"0": "0", "1": "1"})
    for i in range(encoder_layers):
        parts = {
            "attention.offsets": "self_attn.sampling_offsets",
            "attention.weights": "self_attn.attention_weights",
            "attention.value": "self_attn.value_proj",
            "attention.out": "self_attn.output_proj",
            "norm": "self_attn_layer_norm",
            "feedforward.expand": "fc1",
            "feedforward.contract": "fc2",
            "feedforward.norm": "final_layer_norm",
        }
        names |= renamed(f"pixel_decoder.encoder.{i}", f"{pixel}.encoder.layers.{i}", parts)
    for ours, name in {"lateral": "adapter_1", "smooth": "layer_1"}.items():
        names |= {f"pixel_decoder.{ours}.0.weight": f"{pixel}.{name}.0.weight"}
        names |= renamed("pixel_decoder", pixel, {f"{ours}.1": f"{name}.1"})
    names |= renamed("pixel_decoder", pixel, {"mask_features": "mask_projection"})
    names |= {
        "query_decoder.query_feature.weight": f"{transformer}.queries_features.weight",
        "query_decoder.query_position.weight": f"{transformer}.queries_embedder.weight",
        "query_decoder.level_embedding.weight": f"{transformer}.level_embed.weight",
    }
    for i in range(decoder_layers):
        parts = {
            "cross.attention.out": "cross_attn.out_proj",
            "cross.norm": "cross_attn_layer_norm",
            "self_attention.attention.query": "self_attn.q_proj",
            "self_attention.attention.key": "self_attn.k_proj",
            "self_attention.attention.value": "self_attn.v_proj",
            "self_attention.attention.out": "self_attn.out_proj",
            "self_attention.norm": "self_attn_layer_norm",
            "feedforward.expand": "fc1",
            "feedforward.contract": "fc2",
            "feedforward.norm": "final_layer_norm",
        }
        names |= renamed(f"query_decoder.layers.{i}", f"{transformer}.decoder.layers.{i}", parts)
    names |= renamed("query_decoder.heads", f"{transformer}.decoder", {"norm": "layernorm"})
    names |= renamed("query_decoder.heads", "", {"class_head": "class_predictor"})
    head = f"{transformer}.decoder.mask_predictor.mask_embedder"
    return names | renamed("query_decoder.heads.mask_head", head, {f"layers.{i}": f"{i}.0" for i in range(3)})


def translate(state, encoder_layers, decoder_layers):
    """Their state dict under our names; queries, keys and values of the cross-attention come apart."""
    names = {ours: name.removeprefix(".") for ours, name in table(encoder_layers, decoder_layers).items()}
    ours = {key: state[name] for key, name in names.items()}
    for i in range(decoder_layers):
        for part in LINEAR:
            stacked = state[f"model.transformer_module.decoder.layers.{i}.cross_attn.in_proj_{part}"]
            for name, piece in zip(("query", "key", "value"), stacked.chunk(3), strict=True):
                ours[f"query_decoder.layers.{i}.cross.attention.{name}.{part}"] = piece
    prefix = "model.pixel_level_module.encoder."
    return ours | {f"backbone.network.{k.removeprefix(prefix)}": v for k, v in state.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def ours(theirs):
    from dataclasses import replace

    from cavis.model import build_segmenter

    torch.manual_seed(1)
    config = replace(nano_config(), pixel_decoder_layers=2, decoder_layers=4, sampling_points=4)
    segmenter = build_segmenter(config).eval()
    missing, unknown = segmenter.load_state_dict(translate(theirs.state_dict(), 2, 4), strict=False)
    assert unknown == []
    assert all(name.startswith("context_mlp.") for name in missing)  # the one part Mask2Former does not have
    return segmenter


@torch.no_grad()
def test_pixel_decoders_agree(ours, theirs):
    normal = ours.normalise(images(1, 2)[0])
    features = ours.pixel_decoder(ours.backbone(normal))
    reference = theirs.model.pixel_level_module(normal)
    for level, other in zip(features.levels, reference.decoder_hidden_states, strict=True):
        torch.testing.assert_close(level, other, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features.mask_features, reference.decoder_last_hidden_state, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (96, 64)])
def test_classes_masks_and_features_agree(ours, theirs, height, width):
    video = images(2, 2, height, width, seed=1)
    prediction = ours(video)
    reference = theirs(ours.normalise(video.flatten(0, 1)), output_hidden_states=True)
    flat = {
        name: getattr(prediction, name).flatten(0, 1) for name in ("class_logits", "mask_logits", "queries", "core")
    }
    queries = reference.transformer_decoder_hidden_states[-1].transpose(0, 1)
    core = theirs.model.transformer_module.decoder.layernorm(queries)
    for name, other in {
        "class_logits": reference.class_queries_logits,
        "mask_logits": reference.masks_queries_logits,
        "queries": queries,
        "core": core,
    }.items():
        torch.testing.assert_close(
            flat[name], other, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert core.std() > 0.5  # they agree on something
    assert reference.class_queries_logits.std() > 0.5
    assert 0.2 < (reference.masks_queries_logits > 0).float().mean() < 0.8
    assert reference.masks_queries_logits.std() > 0.5


def test_no_weight_of_theirs_is_left_out(theirs):
    copied = {name.removeprefix(".") for name in table(2, 4).values()}
    backbone = "model.pixel_level_module.encoder."
    left = {
        name
        for name in theirs.state_dict()
        if name not in copied and not name.startswith(backbone) and "cross_attn.in_proj" not in name
    }
    assert left == {"criterion.empty_weight"}
