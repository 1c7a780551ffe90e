"""Presets: functions that return frozen dataclasses, one screen each."""

from collections.abc import Callable

from cavis.config import InferenceConfig, LossConfig, ModelConfig, Preset, ResNet, StageConfig

TWINS_CATEGORIES: tuple[str, ...] = (
    *("airplane", "bear", "bird", "boat", "car", "cat", "cow", "dog", "elephant", "fish"),
    *("horse", "monkey", "motorbike", "mouse", "person", "rabbit", "sheep", "tiger", "train", "truck"),
)
"""The classes of the twins' world, named as YouTube-VIS and OVIS name them; the index is the label."""


def tiny() -> Preset:
    """The laboratory's model: small enough to train on a laptop's CPU, from scratch, on the twins' world."""
    return Preset(
        name="tiny",
        model=ModelConfig(
            backbone=ResNet(depths=(2, 2, 2, 2), widths=(32, 64, 128, 256), stem_width=32, layer="basic"),
            categories=TWINS_CATEGORIES,
            queries=20,
            hidden=96,
            heads=4,
            pixel_decoder_layers=3,
            pixel_decoder_feedforward=256,
            sampling_points=4,
            decoder_layers=6,
            tracker_layers=6,
            feedforward=384,
        ),
        loss=LossConfig(points=1024),
        segmenter=StageConfig(
            steps=12000,
            decay_at=(10000,),
            clips_per_step=8,
            frames=2,
            frame_range=4,
            learning_rate=5e-4,
            backbone_factor=1.0,
            warmup=200,
            max_gradient_norm=1.0,
        ),
        tracker=StageConfig(
            steps=2000,
            decay_at=(1600,),
            clips_per_step=4,
            frames=6,
            frame_range=0,
            learning_rate=5e-4,
            warmup=50,
            max_gradient_norm=1.0,
            heads_from_segmenter=True,
        ),
        inference=InferenceConfig(short_side=160, max_side=256, top_k=10, window=4),
        world="I have only ever seen the twins' world: small shaded cut-outs of twenty kinds of things.",
    )


PRESETS: dict[str, Callable[[], Preset]] = {"tiny": tiny}


def get_preset(name: str) -> Preset:
    """A preset by name; a ValueError lists the names there are."""
    if name not in PRESETS:
        raise ValueError(f"expected a preset out of {', '.join(sorted(PRESETS))}; got {name!r}")
    return PRESETS[name]()
