"""Frozen dataclasses: what a preset is made of. All plain values, so that a checkpoint can carry them as JSON."""

from dataclasses import dataclass, field
from typing import Literal, get_args, get_type_hints

Stage = Literal["segmenter", "tracker", "refiner"]
"""The training stages, and what the model after each of them has: every stage adds one part."""
STAGES: tuple[Stage, ...] = get_args(Stage)

Task = Literal["instance", "panoptic", "semantic"]
"""What is made of the predictions (VIS, VPS, VSS)."""
Association = Literal["joined", "balanced"]
"""How the two halves of [Q̂ ; Q] are weighed; see :class:`Reading`."""
Score = Literal["class", "class_and_mask"]
"""What a track is scored by; see :class:`InferenceConfig`."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The named choices where the paper, the released code and good sense differ; see ``docs/deviations.md``.

    :data:`OURS` is what is trained here; :data:`PAPER` and :data:`RELEASED` are the two other readings.
    """

    context: Literal["per_channel", "channel_sum", "learnable", "none"] = "per_channel"
    """Avg(F) of Eq. 6: a box mean of each channel; the released code's one box mean of the channel sum;
    a learnable depth-wise filter (Table 3 d); or no context at all."""
    context_filter_size: int = 9
    """Side of the context filter in stride-4 pixels, odd (Table 3 b)."""
    context_mlp_last_relu: bool = False
    """Whether the third layer of Eq. 7's MLP is followed by a ReLU too, as the paper's text has it."""
    tracker_query: Literal["context_aware", "core"] = "context_aware"
    """What queries the tracker's cross-attention (Table 3 e)."""
    tracker_context: Literal["embedding", "surroundings"] = "embedding"
    """What Eq. 10 aligns and carries: Q (fused by a linear layer), or Q̃ (fused by the MLP of Eq. 7, as written)."""
    tracker_start: Literal["seen", "tracked", "linked"] = "seen"
    """Which slot a track's residual starts from: the one most alike to the slot the track itself turned out to be when
    it last saw its object; when last asked, in the frame before; or, as released, to the one the segmenter's slots were
    linked to, whatever the tracker said."""
    association: Association = "joined"
    """How [Q̂ ; Q], by which frames are linked, is compared: as the two are; or each brought to length one, so that two
    frames are alike by both halves alike. Q̂ leaves a layer norm and is some five times as long as Q in what is trained
    here, so that joined as they are Q has a twentieth of the similarity."""
    reference_memory: float = 0.0
    """How much of the mean of what a track looked like stays in what it is looked for by when it is seen again, at
    least 0 and below 1; 0 is the last sight alone, as released. Features are compared by direction, and so averaged."""
    hidden: Literal["counted", "left_out"] = "counted"
    """What holds of a track where its object is not seen. Counted: the tracker learns its class there, with an empty
    mask, and all frames decide the class of the track. Left out: it learns "no object" there; and where it says
    so (:attr:`InferenceConfig.min_seen`), the track has no mask, and the frame does not count for its class."""
    alignment: Literal["true", "inverted", "none"] = "true"
    """How Eq. 10's permutation is applied: to the right slots; inverted, as released; or the context is left in the
    segmenter's order (Table 3 f)."""
    prototypes: Literal["ground_truth", "predicted"] = "ground_truth"
    """Whose masks make the prototypes of Eq. 11."""
    self_positive: bool = False
    """Whether an anchor of Eq. 4 is one of its own positives."""
    cosine_aux_weight: float = 2.0
    """Weight of the released code's auxiliary cosine regression beside each contrastive term; 0 in the paper."""
    guided_matching: bool = True
    """Whether targets are matched on the predictions of the stage before in the first half of training: the tracker's
    on the segmenter's, the refiner's on the tracker's."""
    tracker_contrast: bool = False
    """Whether the tracker's queries get a contrastive loss (released for YouTube-VIS only)."""
    match_absent: bool = False
    """Whether an object absent in a frame is matched there all the same, to an empty mask of its class (stage 1)."""
    absent_identity: bool = False
    """Whether queries matched to absent objects form one more identity in L_CTX, as released."""
    contrast_across_clips: bool = False
    """Whether L_CTX contrasts the clips of a batch with each other too, equal ids being one identity, as released.
    The one term that depends on how many processes share a step: each contrasts the clips that it has."""

    def __post_init__(self) -> None:
        for name, choice in get_type_hints(Reading).items():
            value, allowed = getattr(self, name), get_args(choice)
            if allowed and value not in allowed:
                raise ValueError(f"expected {name} out of {', '.join(allowed)}; got {value!r}")
        if self.context == "none" and self.tracker_context == "surroundings":
            raise ValueError("expected a context for tracker_context='surroundings', got context='none'")
        if self.context_filter_size < 1 or self.context_filter_size % 2 == 0:
            raise ValueError(f"expected an odd context_filter_size of at least 1, got {self.context_filter_size}")
        if not 0 <= self.reference_memory < 1:
            raise ValueError(f"expected a reference_memory of at least 0 and below 1, got {self.reference_memory}")


OURS = Reading(reference_memory=0.8, hidden="left_out")
PAPER = Reading(
    context_mlp_last_relu=True,
    tracker_context="surroundings",
    tracker_start="tracked",
    prototypes="predicted",
    match_absent=True,
    cosine_aux_weight=0.0,
    guided_matching=False,
)
RELEASED = Reading(
    context="channel_sum",
    tracker_start="linked",
    alignment="inverted",
    self_positive=True,
    match_absent=True,
    absent_identity=True,
    contrast_across_clips=True,
)


@dataclass(frozen=True, kw_only=True)
class DataRules:
    """What the released data code does beside the paper; the defaults are the correct rules."""

    labels_of_last_frame: bool = False
    """Whether an object that is absent in a clip's last frame is labelled "no object" in the whole clip."""
    skip_last_start: bool = False
    """Whether a run of consecutive frames never starts at the last possible place."""
    shuffled_repeats: bool = False
    """Whether a video shorter than a run of consecutive frames is filled up with any of its frames, out of order."""
    repeated_neighbours: bool = False
    """Whether the frames around a reference frame are drawn with replacement, so that one can come twice."""
    always_present: bool = False
    """Whether objects count as present in every frame of a clip, seen or not (released for VIPSeg)."""


CORRECTED = DataRules()


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """A residual network, as transformers builds it; feature maps at strides 4, 8, 16, 32."""

    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    widths: tuple[int, int, int, int] = (256, 512, 1024, 2048)
    stem_width: int = 64
    layer: Literal["basic", "bottleneck"] = "bottleneck"
    norm: Literal["batch", "frozen"] = "batch"
    """Batch norm that learns, or one whose statistics and weights stay as they were loaded."""


@dataclass(frozen=True, kw_only=True)
class Swin:
    """A Swin transformer, as transformers builds it; feature maps at strides 4, 8, 16, 32, each normed."""

    width: int = 192
    """Channels of the first stage; each further stage doubles them."""
    depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    heads: tuple[int, int, int, int] = (6, 12, 24, 48)
    window: int = 12
    drop_path: float = 0.3


@dataclass(frozen=True, kw_only=True)
class VitAdapter:
    """A frozen DINOv2 transformer with patches of 16 pixels, and the adapter that makes four feature maps of it."""

    width: int = 1024
    depth: int = 24
    """Blocks; the adapter looks at the tokens after each quarter of them."""
    heads: int = 16
    adapter_heads: int = 16
    """Heads of the adapter's deformable attention."""


@dataclass(frozen=True, kw_only=True)
class EfficientNetLite:
    """EfficientNet-Lite, in the sizes of Lite2; its batch norms keep the statistics they were loaded with."""

    stem_width: int = 32
    widths: tuple[int, int, int, int, int, int, int] = (16, 24, 48, 88, 120, 208, 352)
    depths: tuple[int, int, int, int, int, int, int] = (1, 3, 3, 4, 4, 5, 1)
    frozen_levels: int = 0
    """The stem and so many of the seven levels learn nothing, which spares the costliest gradients; 0: all learn."""


Backbone = ResNet | Swin | VitAdapter | EfficientNetLite
BACKBONES: dict[str, type[ResNet] | type[Swin] | type[VitAdapter] | type[EfficientNetLite]] = {
    "resnet": ResNet,
    "swin": Swin,
    "vit_adapter": VitAdapter,
    "efficientnet_lite": EfficientNetLite,
}

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides the shapes and the arithmetic of a model."""

    backbone: Backbone = field(default_factory=ResNet)
    categories: tuple[str, ...]
    stuff: int = 0
    """How many of the categories are stuff (sky, road, ...); they are the last ones."""
    queries: int = 100
    hidden: int = 256
    heads: int = 8
    pixel_decoder_layers: int = 6
    pixel_decoder_feedforward: int = 1024
    sampling_points: int = 4
    decoder_layers: int = 9
    tracker_layers: int = 6
    refiner_layers: int = 6
    feedforward: int = 2048
    mean: Triple = (123.675, 116.280, 103.530)
    """What is subtracted from red, green and blue (0 ... 255) before the backbone sees them."""
    deviation: Triple = (58.395, 57.120, 57.375)
    """What they are divided by then."""
    reading: Reading = OURS

    @property
    def num_classes(self) -> int:
        """K, without "no object"."""
        return len(self.categories)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and sampling of Eq. 12 and 13."""

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    context_weight: float = 2.0
    """λ_CTX of Eq. 12."""
    prototype_weight: float = 2.0
    """λ_PCC of Eq. 12."""
    tracker_contrast_weight: float = 2.0
    no_object_weight: float = 0.1
    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75
    """Share of the mask loss's points that are the most uncertain ones."""


_SHARES = ("reversal", "crop", "flip", "drift", "brightness", "contrast", "saturation", "corruption", "paste", "twin")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training clips are changed at random, in this order; what is not set does nothing.

    Shares are probabilities, 0 ... 1; sides are pixels. Frames of a clip are treated alike, but for ``rotation``,
    ``drift`` and ``corruption``.
    """

    reversal: float = 0.0
    """Share of clips played backwards."""
    crop: float = 0.0
    """Share of clips that are resized to one of ``crop_short_sides``, then cut to a window with sides in
    ``crop_range``, before anything else."""
    crop_short_sides: tuple[int, ...] = ()
    crop_max_side: int = 1333
    crop_range: tuple[int, int] = (384, 600)
    short_sides: tuple[int, ...] = ()
    """One of them becomes the short side, as far as the long one stays within ``max_side``."""
    max_side: int = 1333
    scale_jitter: tuple[float, float] | None = None
    """Instead of ``short_sides``: the clip is fitted into a square of ``window``, times a factor out of this range."""
    window: int = 0
    """The largest side afterwards: a random window of the clip is kept; 0 keeps all of it."""
    flip: float = 0.0
    """Share of clips mirrored left to right."""
    rotation: float = 0.0
    """Still pictures only: each frame is turned by up to this many degrees, steadily more or steadily less."""
    drift: float = 0.0
    """Still pictures only: the frames show a part of the picture, steadily moved and zoomed, whose sides are those of
    the picture less up to this share."""
    brightness: float = 0.0
    """Brightness, contrast and saturation are multiplied by 1 +- up to this much, 0 ... 1."""
    contrast: float = 0.0
    saturation: float = 0.0
    corruption: float = 0.0
    """Share of clips that look as a phone films: dim, blurred, noisy or compressed, or several of these."""
    paste: float = 0.0
    """Share of clips into which objects of another clip are pasted, resized by a factor out of ``paste_scale``."""
    paste_scale: tuple[float, float] = (0.5, 1.5)
    twin: float = 0.0
    """Share of clips in which one object has a copy beside it, mirrored half of the time."""
    least_pixels: int = 1
    """An object of which less is left in a frame, after all of this, counts as absent there."""

    def __post_init__(self) -> None:
        for name in _SHARES:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"expected {name} between 0 and 1, got {value}")
        for name in ("crop_range", "scale_jitter", "paste_scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value[0] <= value[1]:
                raise ValueError(f"expected {name} as a positive range, smallest first, got {value}")
        if self.least_pixels < 1:
            raise ValueError(f"expected least_pixels of 1 or more, got {self.least_pixels}")
        if self.crop and not self.crop_short_sides:
            raise ValueError("expected crop_short_sides to choose from where crop is not 0, got none")
        if self.scale_jitter and (self.short_sides or not self.window):
            raise ValueError("expected scale_jitter with a window and without short_sides")


def require_ema_decay(value: float) -> None:
    """A ValueError for a decay that no moving average has."""
    if not 0 <= value < 1:
        raise ValueError(f"expected an ema_decay of at least 0 and below 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """The schedule of one training stage (Sec. A.2 of the paper)."""

    steps: int
    decay_at: tuple[int, ...]
    clips_per_step: int
    """Of all processes together."""
    frames: int
    """Frames of a training clip."""
    frame_range: int
    """The frames of a clip are drawn within +- this many frames; 0 means consecutive frames."""
    learning_rate: float = 1e-4
    backbone_factor: float = 0.1
    weight_decay: float = 0.05
    max_gradient_norm: float = 0.01
    warmup: int = 0
    """Steps of linear warm-up."""
    decay: float = 0.1
    """Factor on the learning rate at each step of ``decay_at``."""
    ema_decay: float = 0.0
    """Of the exponential moving average (EMA) of the weights that the stage ends with, at least 0 and below 1; 0 is the
    last weights alone."""
    silent_start: bool = False
    """Whether a stage's part starts by saying what the part before it says: with copies of its class and mask heads,
    and with blocks that add nothing yet."""
    augmentation: Augmentation | None = None
    """How clips are changed at random before they are learned from; None leaves them as they are."""

    def __post_init__(self) -> None:
        require_ema_decay(self.ema_decay)


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a trained model is run."""

    task: Task = "instance"
    short_side: int = 448
    max_side: int = 1333
    top_k: int = 10
    """Instance task: the tracks of so many (track, class) pairs are kept, the most probable, before masks count."""
    score: Score = "class"
    """Instance task: what a kept track is scored by. The probability of its class alone, as the released code does for
    videos; or that times the mean probability of its masks' pixels in all frames, as Mask2Former does for pictures."""
    doubt: int = 0
    """Instance task: how many frames it takes until a track is believed by half. With masks in n of T frames its score
    is taken times n / (n + doubt), as a share of T / (T + doubt); 0: what flashes up counts as much as what stays (as
    in the paper)."""
    max_overlap: float = 1.0
    """Instance task: of two tracks that overlap by more than this (IoU over all frames) the one of the lower score is
    dropped, whatever its class (non-maximum suppression); 1 keeps both, as the paper does."""
    min_score: float = 0.8
    """Panoptic task: tracks whose best class is less probable are dropped."""
    min_visible_share: float = 0.8
    """Panoptic task: the share of its own mask that a track must keep against the others, over the whole video."""
    min_seen: float = 0.5
    """Where the reading leaves out what is hidden: a track has a mask in the frames in which it sees some object with a
    probability above this, and those count for its class. What it is looked for by is what it saw when that was more
    likely than not, whatever this is."""
    window: int = 3
    """Frames that pass the segmenter together; results do not depend on it."""

    def __post_init__(self) -> None:
        for name in ("max_overlap", "min_score", "min_visible_share", "min_seen"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"expected {name} between 0 and 1, got {value}")
        if self.doubt < 0:
            raise ValueError(f"expected a doubt of 0 frames or more, got {self.doubt}")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model, its losses and its training, by name."""

    name: str
    model: ModelConfig
    loss: LossConfig
    segmenter: StageConfig
    tracker: StageConfig
    inference: InferenceConfig
    refiner: StageConfig | None = None
    rules: DataRules = CORRECTED
    pretrained: Literal["", "efficientnet-lite2"] = ""
    """What the backbone of a fresh model begins with: nothing, or ImageNet's weights from a Python package."""
    world: str = ""
    """One sentence for visitors: what the model has seen."""

    def stage(self, stage: Stage) -> StageConfig:
        """The schedule of one stage; a ValueError names the stages there are."""
        schedules = {"segmenter": self.segmenter, "tracker": self.tracker, "refiner": self.refiner}
        there = [name for name, schedule in schedules.items() if schedule is not None]
        schedule = schedules.get(stage)
        if schedule is None:
            raise ValueError(f"expected a stage of preset {self.name} out of {', '.join(there)}; got {stage!r}")
        return schedule
