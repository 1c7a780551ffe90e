"""Hugging Face's Mask2Former on Swin, from its own files: imported, and equal."""

from dataclasses import replace

import pytest
import torch
from nano import images, nano_preset
from safetensors.torch import load_file
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from cavis import presets
from cavis.checkpoints.hub import load_model
from cavis.checkpoints.importing import import_checkpoint
from cavis.config import OURS, Swin


@pytest.fixture(scope="module")
def theirs():
    swin = SwinConfig(
        embed_dim=12,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 3, 6],
        window_size=5,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=2,
        decoder_layers=4,  # transformers counts the prediction before the first layer: these are three layers
        num_attention_heads=4,
        num_queries=8,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(config).eval()
    for name, value in model.named_parameters():  # zeros and faint weights would hide what they are multiplied by
        if value.dim() == 1:
            value.data += 0.1 * torch.randn_like(value)
        elif "relative_position" in name:
            torch.nn.init.normal_(value, std=0.5)
        elif "embed" not in name and "queries" not in name:
            torch.nn.init.xavier_uniform_(value, gain=1.5)
    return model


@pytest.fixture
def preset(monkeypatch):
    base = nano_preset()
    model = replace(
        base.model,
        backbone=Swin(width=12, depths=(2, 2, 2, 2), heads=(1, 2, 3, 6), window=5),
        pixel_decoder_layers=2,
        decoder_layers=3,
        sampling_points=4,
        reading=replace(OURS, context="none"),
    )
    preset = replace(base, name="nano_swin", model=model)
    monkeypatch.setitem(presets.PRESETS, "nano_swin", lambda: preset)
    return preset


@torch.no_grad()
def test_the_hub_s_files_give_the_same_classes_and_masks(theirs, preset, tmp_path):
    theirs.save_pretrained(tmp_path / "theirs")
    source = tmp_path / "theirs" / "model.safetensors"
    report = import_checkpoint(source, "nano_swin", "segmenter", tmp_path / "ours.safetensors")
    assert report.plan.missing == report.plan.unexplained == ()
    segmenter = load_model(str(tmp_path / "ours.safetensors"), "cpu").model.segmenter
    video = images(1, 2, 96, 128)
    ours, reference = segmenter(video), theirs(segmenter.normalise(video[0]))
    torch.testing.assert_close(ours.class_logits[0], reference.class_queries_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.mask_logits[0], reference.masks_queries_logits, atol=1e-3, rtol=1e-4)


def test_files_carry_the_names_of_earlier_versions(theirs, tmp_path):
    """What the hub holds was written by transformers 4; version 5 still writes those names, so they are tested here."""
    theirs.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.self.query.weight" in names
    assert not any(".q_proj." in name and "encoder.encoder" in name for name in names)


@torch.no_grad()
def test_the_current_names_of_transformers_are_known_too(theirs, preset, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    report = import_checkpoint(tmp_path / "theirs.pth", "nano_swin", "segmenter", tmp_path / "ours.safetensors")
    assert report.plan.missing == report.plan.unexplained == ()
