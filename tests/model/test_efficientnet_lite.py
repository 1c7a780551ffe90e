"""The backbone of lite, against its authors' weights in somebody else's network."""

from importlib.resources import files

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from nano import nano_model
from PIL import Image

from cavis.checkpoints import imagenet
from cavis.checkpoints.configs import model_config_from_json, model_config_to_json
from cavis.checkpoints.files import CheckpointError
from cavis.config import EfficientNetLite
from cavis.model.backbones import build_backbone, fold_norms
from cavis.presets import lite, tiny
from cavis.training.start import fresh_model


@pytest.fixture(scope="module")
def file():
    return imagenet.read_file()


@pytest.fixture(scope="module")
def maps():
    network = build_backbone(EfficientNetLite())
    network.load_state_dict(imagenet.efficientnet_lite2())
    return network.eval().requires_grad_(False)


def picture(name, height, width):
    """A cut-out on grey, red, green and blue in 0 ... 255."""
    cutout = Image.open(str(files("cavis") / "assets" / "cutouts" / f"{name}.webp")).resize((width, height))
    ground = Image.new("RGBA", cutout.size, (140, 150, 145, 255))
    ground.alpha_composite(cutout.convert("RGBA"))
    return torch.from_numpy(np.array(ground.convert("RGB"))).permute(2, 0, 1)[None]


def classified(last, file):
    """The file's own classifier on a last map."""
    norm = [file[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    x = F.batch_norm(F.conv2d(last, file["_conv_head.weight"]), *norm, eps=1e-3)
    return F.linear(F.relu6(x).mean(dim=(2, 3)), file["_fc.weight"], file["_fc.bias"])


@pytest.mark.parametrize("size", [(256, 256), (224, 320), (260, 300)])
def test_what_is_seen_in_a_picture_is_what_another_implementation_sees(maps, file, size):
    other = EfficientNet.from_name("efficientnet-lite2", image_size=size)
    other.load_state_dict(file)
    other.eval().requires_grad_(False)
    for name in ("cat_1", "person_2"):
        images = (picture(name, *size).float() - 127) / 128
        ours, theirs = classified(maps(images)[-1], file), other(images)
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
        assert ours.topk(5).indices.equal(theirs.topk(5).indices)


def test_every_weight_but_the_classifier_is_used(maps, file):
    mine = {key: imagenet.our_name(key) for key in file}
    left = {key.split(".")[0] for key, ours in mine.items() if ours is None and "num_batches" not in key}
    assert left == {"_conv_head", "_bn1", "_fc"}
    assert {name for name in mine.values() if name} == maps.state_dict().keys()


def test_the_maps_have_the_strides_of_a_pyramid(maps):
    shapes = [tuple(x.shape) for x in maps(torch.zeros(2, 3, 64, 96))]
    assert shapes == [(2, c, 64 // s, 96 // s) for c, s in zip(maps.channels, (4, 8, 16, 32), strict=True)]


def test_folded_norms_change_nothing(maps):
    folded = build_backbone(EfficientNetLite())
    folded.load_state_dict(maps.state_dict())
    fold_norms(folded.eval())
    assert not any("running" in key for key in folded.state_dict())
    images = (picture("cat_2", 64, 96).float() - 127) / 128
    with torch.no_grad():
        for plain, quick in zip(maps(images), folded(images), strict=True):
            torch.testing.assert_close(quick, plain, atol=1e-4, rtol=1e-4)


def test_frozen_levels_learn_nothing_and_the_others_do():
    network = build_backbone(EfficientNetLite(frozen_levels=2))
    network.load_state_dict(imagenet.efficientnet_lite2())
    sum(x.mean() for x in network(torch.rand(1, 3, 64, 64))).backward()
    learning = {name.rpartition(".")[0] for name, one in network.named_parameters() if one.grad is not None}
    assert learning
    assert all(int(name.split(".")[1]) >= 2 for name in learning if name.startswith("levels."))
    assert not any(name.startswith("stem") for name in learning)
    assert not any("running" in name for name, _ in network.named_parameters())  # statistics stay as they are


def test_lite_begins_with_these_weights_and_sees_colours_as_they_were_trained():
    model = fresh_model(lite(), "tracker", seed=0)
    assert sum(one.numel() for one in model.parameters()) < 12e6
    for key, value in imagenet.efficientnet_lite2().items():
        assert model.segmenter.backbone.state_dict()[key].equal(value), key
    colours = picture("cat_1", 64, 64)
    torch.testing.assert_close(model.segmenter.normalise(colours), (colours.float() - 127) / 128)


def test_configurations_from_before_there_were_colours_keep_the_usual_ones():
    old = model_config_to_json(tiny().model)
    del old["mean"], old["deviation"]
    assert model_config_from_json(old) == tiny().model
    new = model_config_from_json(model_config_to_json(lite().model))
    assert new == lite().model
    usual = nano_model(stage="segmenter").segmenter
    assert usual.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert usual.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(imagenet, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(CheckpointError, match="expected the package no-such-package-of-weights"):
        fresh_model(lite(), "segmenter", seed=0)
