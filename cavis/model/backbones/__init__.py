"""Backbones: images in, four feature maps (strides 4, 8, 16, 32) out. The networks are transformers' own."""

from cavis.model.backbones.resnet import ResNetMaps

__all__ = ["ResNetMaps"]
