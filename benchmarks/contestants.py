"""Who is measured: our predictor, the plain path with the same weights, and transformers' Mask2Former."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, get_args

import torch
from torch import nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from benchmarks import reference
from benchmarks.setting import Setting, ready_model
from cavis.config import ModelConfig
from cavis.inference.offline import OfflinePredictor
from cavis.inference.online import OnlinePredictor, windows
from cavis.inference.postprocess import to_network
from cavis.inference.second_pass import RgbFrame
from cavis.model.backbones import ResNetMaps, build_backbone
from cavis.model.cavis import Cavis

Who = Literal["ours", "reference", "our_segmenter", "transformers_segmenter", "offline"]
"""The first two track a clip from its frames to its run-length masks. The last two only segment it, a yardstick for the
part that both have (transformers' Mask2Former has random weights of its own, and no context branch). The last one has a
refiner on top: only its memory is looked at, for it keeps the embeddings of the whole clip."""
CONTESTANTS: tuple[Who, ...] = get_args(Who)
TIMED: tuple[Who, ...] = tuple(who for who in CONTESTANTS if who != "offline")

Run = Callable[[Iterable[RgbFrame]], object]


def contestant(who: Who, setting: Setting, model: Cavis) -> Run:
    """What one of them does with the frames of a clip."""
    if who == "ours":
        return OnlinePredictor(ready_model(model, setting)).run
    if who == "offline":
        return OfflinePredictor(ready_model(model, setting)).run
    if who == "reference":
        return partial(reference.run, model, sizes=setting.sizes, top_k=setting.top_k)
    segmenter = model.segmenter
    if who == "our_segmenter":
        return partial(segment_clip, lambda images: segmenter(images[None]))
    theirs = mask2former(setting.model)
    return partial(segment_clip, lambda images: theirs(segmenter.normalise(images)))


@torch.inference_mode()
def segment_clip(segment: Callable[[torch.Tensor], object], frames: Iterable[RgbFrame]) -> None:
    """Segment a clip in windows, keeping nothing."""
    for window in windows(frames, reference.WINDOW):
        segment(torch.stack([to_network(frame, frame.shape[:2]) for frame in window]))


def mask2former(config: ModelConfig) -> nn.Module:
    """transformers' Mask2Former in the sizes of our segmenter; its weights are random."""
    backbone = build_backbone(config.backbone)
    if not isinstance(backbone, ResNetMaps):
        raise ValueError(f"expected a model with a ResNet to compare with, got {type(config.backbone).__name__}")
    theirs = Mask2FormerConfig(
        backbone_config=backbone.network.config,
        feature_size=config.hidden,
        mask_feature_size=config.hidden,
        hidden_dim=config.hidden,
        encoder_feedforward_dim=config.pixel_decoder_feedforward,
        dim_feedforward=config.feedforward,
        encoder_layers=config.pixel_decoder_layers,
        decoder_layers=config.decoder_layers + 1,  # transformers counts the prediction before the first layer
        num_attention_heads=config.heads,
        num_queries=config.queries,
    )
    theirs.num_labels = config.num_classes
    return Mask2FormerForUniversalSegmentation(theirs).eval()
