"""Presets: functions that return frozen dataclasses, one screen each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial

from cavis import categories
from cavis.config import (
    CORRECTED,
    OURS,
    PAPER,
    RELEASED,
    Augmentation,
    Backbone,
    DataRules,
    EfficientNetLite,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    Preset,
    Reading,
    ResNet,
    StageConfig,
    Swin,
    VitAdapter,
)

DEFAULT_MODEL = "lite"
"""For real clips."""
LABORATORY_MODEL = "tiny"
"""For the twins' world, in which the method is studied."""


def tiny() -> Preset:
    """The laboratory's model: small enough to train on a laptop's CPU, from scratch, on the twins' world."""
    return Preset(
        name="tiny",
        model=ModelConfig(
            backbone=ResNet(depths=(2, 2, 2, 2), widths=(32, 64, 128, 256), stem_width=32, layer="basic"),
            categories=categories.TWINS,
            queries=20,
            hidden=96,
            heads=4,
            pixel_decoder_layers=3,
            pixel_decoder_feedforward=256,
            sampling_points=4,
            decoder_layers=6,
            tracker_layers=6,
            refiner_layers=3,
            feedforward=384,
        ),
        loss=LossConfig(points=1024, no_object_weight=1.0),  # 20 queries, not 100: most of them have an object
        segmenter=StageConfig(
            steps=24000,
            decay_at=(14400, 20400),
            decay=0.3,
            clips_per_step=4,
            frames=2,
            frame_range=23,  # the whole clip: nearby frames would teach it to tell objects by where they are
            learning_rate=1.5e-4,
            backbone_factor=1.0,
            warmup=200,
            max_gradient_norm=1.0,
        ),
        tracker=StageConfig(
            steps=3000,
            decay_at=(1800, 2600),
            decay=0.3,
            clips_per_step=2,
            frames=12,
            frame_range=0,
            learning_rate=3e-5,  # it starts silent, as good as its segmenter; at 2e-4 it loses that
            warmup=50,
            max_gradient_norm=1.0,
            silent_start=True,
        ),
        refiner=StageConfig(
            steps=1000,
            decay_at=(800,),
            clips_per_step=2,
            frames=12,
            frame_range=0,
            learning_rate=1e-4,
            warmup=50,
            max_gradient_norm=1.0,
            silent_start=True,
        ),
        inference=InferenceConfig(short_side=160, max_side=256, window=4, score="class_and_mask"),
        world="I have only ever seen the twins' world: small shaded cut-outs of twenty kinds of things.",
    )


def tiny_sibling(name: str) -> Preset:
    """``tiny`` as a method has it: the three differ in losses and context alone (Figure 4 of the paper).

    ``tiny_minvis`` learns no identity at all; ``tiny_ctvis`` contrasts the core features (Eq. 4); neither has context.
    ``tiny_cavis`` is ``tiny`` by another name, for one that is trained as long as its siblings.
    """
    preset = replace(tiny(), name=name)
    if name == "tiny_cavis":
        return preset
    loss = replace(preset.loss, prototype_weight=0.0)
    return replace(
        preset,
        model=replace(preset.model, reading=replace(OURS, context="none")),
        loss=replace(loss, context_weight=0.0) if name == "tiny_minvis" else loss,
    )


def lite() -> Preset:
    """For a laptop's CPU and real clips: people, cats, cars, bicycles, motorcycles, and objects of any other kind."""
    segmenter = StageConfig(
        steps=12000,
        decay_at=(6000, 10000),
        decay=0.3,
        clips_per_step=4,
        frames=2,
        frame_range=4,
        learning_rate=2e-4,
        backbone_factor=0.2,
        warmup=100,
        max_gradient_norm=1.0,
        augmentation=LITE_AUGMENTATION,
    )
    return Preset(
        name="lite",
        model=ModelConfig(
            backbone=EfficientNetLite(frozen_levels=2),
            categories=categories.LITE,
            queries=30,
            hidden=128,
            heads=4,
            pixel_decoder_layers=3,
            pixel_decoder_feedforward=256,
            decoder_layers=6,
            tracker_layers=5,
            feedforward=512,
            mean=(127.0, 127.0, 127.0),
            deviation=(128.0, 128.0, 128.0),
            reading=replace(OURS, association="balanced"),
        ),
        loss=LossConfig(points=2048, no_object_weight=0.2),  # 30 queries, not 100: more of them have an object
        segmenter=segmenter,
        tracker=replace(
            segmenter,
            steps=1900,
            decay_at=(1140, 1615),
            clips_per_step=4,
            frames=8,
            frame_range=0,
            learning_rate=3e-4,  # it starts silent, as tiny's does; 377 steps at 3e-5 changed nothing
            ema_decay=0.996,
            warmup=100,
            silent_start=True,
        ),
        inference=InferenceConfig(
            short_side=256,
            max_side=456,
            window=4,
            top_k=30,
            score="class_and_mask",
            doubt=10,
            max_overlap=0.7,
            min_seen=0.2,
        ),
        pretrained="efficientnet-lite2",
        world="I outline people, cats and cars that are large in the picture, bicycles and motorcycles by half; "
        "what is small I often miss, and anything else I find is just an object to me.",
    )


LITE_AUGMENTATION = Augmentation(
    scale_jitter=(0.8, 1.9),
    window=256,
    flip=0.5,
    rotation=10.0,
    drift=0.25,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    corruption=0.5,
    paste=0.5,
    paste_scale=(0.5, 1.2),
    twin=0.5,
    least_pixels=16,
)
"""Pictures have no motion of their own: they turn, drift and zoom, and objects of other pictures pass before them.

In half of the clips one object has a copy at its side: without, one query took two people who stood together.
"""
R50 = ResNet(norm="frozen")
SWIN_L = Swin()
VIT_L = VitAdapter()


RELEASED_RULES = DataRules(
    labels_of_last_frame=True, skip_last_start=True, shuffled_repeats=True, repeated_neighbours=True
)
VIS_AUGMENTATION = Augmentation(
    crop=0.5,
    crop_short_sides=(400, 500, 600),
    short_sides=(320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640),
    max_side=768,
    flip=0.5,
    rotation=15.0,
)
VIPSEG_AUGMENTATION = Augmentation(short_sides=tuple(range(480, 801, 32)), flip=0.5)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What the released configurations change from one data set to the next."""

    title: str
    names: tuple[str, ...]
    stuff: int = 0
    top_k: int = 10
    short_side: int = 448
    """Of a frame at inference."""
    tracker_contrast: bool = False
    later_steps: int = 160_000
    """Steps of the tracker and the refiner stage; the learning rate drops after seven tenths."""
    rules: DataRules = RELEASED_RULES
    """What the released data code does beside the paper."""
    augmentation: Augmentation = VIS_AUGMENTATION
    refiner_window: int = 0
    """The refiner's clips are cut to a square of this side; 0 leaves them whole."""


DATA_SETS: dict[str, DataSet] = {
    "ytvis19": DataSet(title="YouTube-VIS 2019", names=categories.YTVIS19, tracker_contrast=True),
    "ytvis21": DataSet(title="YouTube-VIS 2021", names=categories.YTVIS21, tracker_contrast=True),
    "ovis": DataSet(title="OVIS", names=categories.OVIS, top_k=20),
    "vipseg": DataSet(
        title="VIPSeg",
        names=categories.VIPSEG,
        stuff=66,
        short_side=720,
        later_steps=40_000,
        rules=replace(RELEASED_RULES, labels_of_last_frame=False, always_present=True),
        augmentation=VIPSEG_AUGMENTATION,
        refiner_window=608,
    ),
}


def as_in_the_paper(data_set: DataSet) -> DataSet:
    """The sizes and steps of Sec. A.2, which are those of every data set, and the corrected rules.

    What the paper does not state (cropping, mirroring, how many predictions are kept) stays as released.
    """
    short_sides, max_side = VIS_AUGMENTATION.short_sides, VIS_AUGMENTATION.max_side
    augmentation = replace(data_set.augmentation, short_sides=short_sides, max_side=max_side)
    return replace(data_set, short_side=448, later_steps=160_000, rules=CORRECTED, augmentation=augmentation)


def released(data: str, backbone: Backbone, reading: Reading = RELEASED, *, suffix: str) -> Preset:
    """A configuration of the paper (Sec. A.2), on ``data``; ``suffix`` ends its name.

    With the released reading the released weights fit, and VIPSeg has the released sizes and steps; with the paper's
    reading it has the paper's. VIPSeg is panoptic.
    """
    data_set = as_in_the_paper(DATA_SETS[data]) if reading is PAPER else DATA_SETS[data]
    panoptic = data_set.stuff > 0
    later = data_set.later_steps
    augmentation = data_set.augmentation
    refiner_augmentation = replace(augmentation, window=data_set.refiner_window, reversal=0.5)
    segmenter = StageConfig(
        steps=40_000, decay_at=(28_000,), clips_per_step=8, frames=3, frame_range=2, augmentation=augmentation
    )
    tracker = replace(segmenter, steps=later, decay_at=(later * 7 // 10,), frames=5, frame_range=0)
    return Preset(
        name=f"{data}_{suffix}",
        model=ModelConfig(
            backbone=backbone,
            categories=data_set.names,
            stuff=data_set.stuff,
            queries=100 if isinstance(backbone, ResNet) else 200,
            reading=replace(reading, tracker_contrast=data_set.tracker_contrast and reading.tracker_contrast),
        ),
        loss=LossConfig(),
        segmenter=segmenter,
        tracker=tracker,
        refiner=replace(tracker, frames=15, augmentation=refiner_augmentation),
        inference=InferenceConfig(
            task="panoptic" if panoptic else "instance",
            short_side=data_set.short_side,
            top_k=data_set.top_k,
        ),
        rules=data_set.rules,
        world=f"I was trained on {data_set.title}: {len(data_set.names)} kinds of things{' and stuff' * panoptic}.",
    )


def minvis(data: str, backbone: Backbone, *, suffix: str) -> Preset:
    """MinVIS trained in the same settings (Table 3 a, i): no context, and no loss knows which objects are the same.

    Neither L_CTX nor L_PCC is there, and with them go the cosine terms that stand beside them; frames are linked by
    core features.
    """
    preset = released(data, backbone, replace(RELEASED, context="none"), suffix=suffix)
    return replace(preset, loss=replace(preset.loss, context_weight=0.0, prototype_weight=0.0))


def mask2former(name: str, backbone: Backbone, queries: int = 100, *, panoptic: bool = False) -> Preset:
    """Mask2Former as trained on COCO: a segmenter without context, for everyday things, whose frames are linked."""
    names = categories.COCO_PANOPTIC if panoptic else categories.COCO
    base = released("ovis", backbone, replace(OURS, context="none", match_absent=True), suffix="coco")
    return replace(
        base,
        name=name,
        model=replace(base.model, categories=names, stuff=len(names) - len(categories.COCO), queries=queries),
        rules=CORRECTED,
        inference=replace(base.inference, task="panoptic" if panoptic else "instance", top_k=20),
        world=f"I was trained on the pictures of COCO: {len(names)} kinds of everyday things"
        f"{' and stuff' * panoptic}. I link frames without a tracker.",
    )


BACKBONES: dict[str, Backbone] = {"r50": R50, "swinl": SWIN_L, "vitl": VIT_L}
ENDINGS: dict[str, Callable[..., Preset]] = {
    "": partial(released, reading=replace(RELEASED, tracker_contrast=True)),
    "_paper": partial(released, reading=PAPER),
    "_minvis": minvis,
}
"""What a preset's name ends with, and what makes it then; contrast is the YouTube-VIS trackers' only."""
SWIN_SIZES: dict[str, tuple[Swin, int]] = {
    "tiny": (Swin(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7), 100),
    "small": (Swin(width=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), window=7), 100),
    "base": (Swin(width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12), 100),
    "large": (SWIN_L, 200),
}
"""The Mask2Former models on the hub: backbone and number of queries."""


def _all_presets() -> dict[str, Callable[[], Preset]]:
    presets: dict[str, Callable[[], Preset]] = {"tiny": tiny, "lite": lite}
    for name in ("tiny_minvis", "tiny_ctvis", "tiny_cavis"):
        presets[name] = partial(tiny_sibling, name)
    for data in DATA_SETS:
        for short, backbone in BACKBONES.items():
            if (data, short) == ("vipseg", "swinl"):
                continue  # the paper has none
            for ending, preset in ENDINGS.items():
                suffix = f"{short}{ending}"
                presets[f"{data}_{suffix}"] = partial(preset, data, backbone, suffix=suffix)
    presets["coco_r50"] = partial(mask2former, "coco_r50", R50)
    presets["coco_swinl"] = partial(mask2former, "coco_swinl", SWIN_L, 200)
    presets["coco_panoptic_r50"] = partial(mask2former, "coco_panoptic_r50", R50, panoptic=True)
    for size, (backbone, queries) in SWIN_SIZES.items():
        name = f"mask2former_swin_{size}_coco"
        presets[name] = partial(mask2former, name, backbone, queries)
    return presets


PRESETS: dict[str, Callable[[], Preset]] = _all_presets()


def get_preset(name: str) -> Preset:
    """A preset by name; a ValueError names the nearest ones."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=3) or ("tiny", "ovis_r50", "ytvis19_swinl", "vipseg_vitl", "coco_r50")
        raise ValueError(f"expected a preset such as {', '.join(near)}; got {name!r}")
    return PRESETS[name]()
