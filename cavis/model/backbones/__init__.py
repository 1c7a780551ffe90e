"""Backbones: images in, four feature maps (strides 4, 8, 16, 32) out; transformers' networks where it has them.

A backbone has ``channels``, the widths of its four maps, and a ``forward`` from normalised images to the maps.
"""

from cavis.config import Backbone, EfficientNetLite, ResNet, Swin
from cavis.model.backbones.efficientnet_lite import EfficientNetLiteMaps
from cavis.model.backbones.folding import fold_norms
from cavis.model.backbones.resnet import ResNetMaps
from cavis.model.backbones.swin import SwinMaps
from cavis.model.backbones.vit_adapter import VitAdapterMaps

__all__ = ["EfficientNetLiteMaps", "ResNetMaps", "SwinMaps", "VitAdapterMaps", "build_backbone", "fold_norms"]


Maps = ResNetMaps | SwinMaps | VitAdapterMaps | EfficientNetLiteMaps


def build_backbone(config: Backbone) -> Maps:
    """The network of a backbone's configuration, untrained."""
    if isinstance(config, ResNet):
        return ResNetMaps(config)
    if isinstance(config, Swin):
        return SwinMaps(config)
    if isinstance(config, EfficientNetLite):
        return EfficientNetLiteMaps(config)
    return VitAdapterMaps(config)
