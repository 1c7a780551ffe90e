"""The plain path: our weights, computed the way the released code computes.

Nothing here is meant to be fast. It is what :mod:`benchmarks.tracking` measures the exact shortcuts against, and what
the tests compare their outputs with: a dense C x C context convolution, deformable attention as one ``grid_sample`` per
level whose samples are stacked, full-resolution masks (and classes) after every decoder layer, attention maps that are
materialised and averaged over the heads, tracker heads on every block, and the masks of the whole clip kept in memory
and resized as a whole.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cavis import rle
from cavis.inference.online import windows
from cavis.inference.postprocess import Sizes, to_network
from cavis.model.association import invert, match, take
from cavis.model.cavis import Cavis
from cavis.model.context import ContextPooling
from cavis.model.deformable_attention import DeformableAttention, cell_centres
from cavis.model.deformable_attention import Sizes as LevelSizes
from cavis.model.layers import Attention, Heads
from cavis.model.pixel_decoder import EncoderLayer, PixelDecoder, PixelFeatures
from cavis.model.position import sine_position
from cavis.model.query_decoder import DecoderLayer, QueryDecoder
from cavis.model.segmenter import Segmenter
from cavis.model.tracker import Tracker, TrackerBlock
from cavis.records import LayerPrediction, Rle

WINDOW = 3
"""Frames that pass the segmenter together."""


class Segmented(NamedTuple):
    """What the segmenter says of a window of frames."""

    layers: list[LayerPrediction]
    """Classes and full-resolution masks of every layer, first layer first."""
    queries: Float[Tensor, "1 T Q C"]
    core: Float[Tensor, "1 T Q C"]
    embedding: Float[Tensor, "1 T Q C"]
    mask_features: Float[Tensor, "1 T C h w"]


class Memory(NamedTuple):
    """What the tracker keeps from one frame to the next."""

    fused: Float[Tensor, "1 Q 2C"]
    """Tracks, and the context that was aligned to them."""
    last: Float[Tensor, "1 Q 2C"]
    """The last frame's association features, in track order."""


class Found(NamedTuple):
    """One of a clip's best (slot, class) pairs."""

    slot: int
    label: int
    score: float
    masks: tuple[Rle | None, ...]


@torch.inference_mode()
def run(model: Cavis, frames: Iterable[np.ndarray], sizes: Sizes, top_k: int) -> list[Found]:
    """Track a clip (RGB uint8 frames): its ``top_k`` best (slot, class) pairs, best first."""
    logits, masks, memory = [], [], None
    for window in windows(frames, WINDOW):
        images = torch.stack([to_network(frame, sizes.network) for frame in window])
        layers, memory = track(_tracker(model), segment(model.segmenter, images), memory)
        logits.append(layers[-1].class_logits[0])
        masks.append(layers[-1].mask_logits[0].transpose(0, 1).float())
    scores = torch.cat(logits).mean(dim=0).softmax(dim=-1)[:, :-1]
    best = scores.flatten().topk(top_k)
    slots = best.indices // scores.shape[1]
    pixels = resize_clip(torch.cat(masks, dim=1)[slots], sizes) > 0
    return [
        Found(int(slot), int(index % scores.shape[1]), float(score), _encode(clip))
        for slot, index, score, clip in zip(slots, best.indices, best.values, pixels.numpy(), strict=True)
    ]


def resize_clip(logits: Float[Tensor, "N T h w"], sizes: Sizes) -> Float[Tensor, "N T H W"]:
    """All masks of a clip: up to the padded input, padding cut off, on to the frame's size."""
    padded = (4 * logits.shape[-2], 4 * logits.shape[-1])
    full = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
    valid = full[..., : sizes.network[0], : sizes.network[1]]
    return F.interpolate(valid, size=sizes.frame, mode="bilinear", align_corners=False)


def segment(segmenter: Segmenter, images: Tensor) -> Segmented:
    """Eq. 5 to 7 for frames [T, 3, H, W] (RGB, 0 ... 255)."""
    maps = segmenter.backbone(segmenter.normalise(images))
    features = refine(segmenter.pixel_decoder, maps)
    steps, layers = decode(segmenter.query_decoder, features)
    core = segmenter.query_decoder.heads.norm(steps[-1])
    context = pool_context(segmenter.context_pooling, layers[-1].mask_logits[0], features.mask_features)
    embedding = segmenter.embed(core, context)
    return Segmented(layers, steps[-1][None], core[None], embedding[None], features.mask_features[None])


def refine(decoder: PixelDecoder, maps: tuple[Float[Tensor, "T _ _ _"], ...]) -> PixelFeatures:
    """The pixel decoder."""
    coarse_first = [project(x) for project, x in zip(decoder.project, maps[:0:-1], strict=True)]
    sizes = tuple((x.shape[-2], x.shape[-1]) for x in coarse_first)
    x = torch.cat([level.flatten(2).transpose(1, 2) for level in coarse_first], dim=1)
    sines = [sine_position(*size, x.shape[-1], like=x) for size in sizes]
    position = torch.cat([sine + embedding for sine, embedding in zip(sines, decoder.level_embedding, strict=True)])
    centres = cell_centres(sizes, like=x)
    for layer in cast("Iterable[EncoderLayer]", decoder.encoder):
        x = layer.feedforward(layer.norm(x + attend_deformably(layer.attention, (x + position, x), centres, sizes)))
    split = x.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
    levels = tuple(level.unflatten(-1, size) for level, size in zip(split, sizes, strict=True))
    fine = decoder.lateral(maps[0])
    fine = fine + F.interpolate(levels[-1], size=fine.shape[-2:], mode="bilinear", align_corners=False)
    return PixelFeatures(levels, decoder.mask_features(decoder.smooth(fine)))


def attend_deformably(
    attention: DeformableAttention, inputs: tuple[Tensor, Tensor], reference: Float[Tensor, "L 2"], sizes: LevelSizes
) -> Float[Tensor, "T L C"]:
    """Deformable attention of a query over a memory (both [T, L, C]): sample every level, stack, multiply, sum."""
    query, memory = inputs
    clips, length, heads = len(query), query.shape[1], attention.heads
    shape = (clips, length, heads, attention.levels, attention.points)
    extent = query.new_tensor([(width, height) for height, width in sizes])
    offsets = attention.offsets(query).view(*shape, 2) / extent[:, None]
    places = reference[:, None, None, None] + offsets
    weights = attention.weights(query).view(clips, length, heads, -1).softmax(dim=-1)
    value = attention.value(memory).unflatten(-1, (heads, -1))
    sampled = []
    for level, size in enumerate(sizes):
        start = sum(height * width for height, width in sizes[:level])
        cells = value[:, start : start + size[0] * size[1]].permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, size)
        grid = (2 * places[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(cells, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    shares = weights.transpose(1, 2).flatten(0, 1)[:, None]
    total = (torch.stack(sampled, dim=-2).flatten(-2) * shares).sum(dim=-1)
    return attention.out(total.view(clips, -1, length).transpose(1, 2))


def decode(
    decoder: QueryDecoder, features: PixelFeatures
) -> tuple[list[Float[Tensor, "T Q C"]], list[LayerPrediction]]:
    """The slots, and their predictions, before the first layer and after each one."""
    levels = [
        level.flatten(2).transpose(1, 2) + embedding
        for level, embedding in zip(features.levels, decoder.level_embedding.weight, strict=True)
    ]
    where = decoder.query_position.weight
    steps = [decoder.query_feature.weight.expand(len(features.mask_features), -1, -1)]
    layers = [_predict(decoder.heads, steps[0], features)]
    for i, layer in enumerate(cast("Iterable[DecoderLayer]", decoder.layers)):
        size, tokens = features.levels[i % len(levels)].shape[-2:], levels[i % len(levels)]
        position = sine_position(size[0], size[1], tokens.shape[-1], like=tokens)
        blocked = blocked_places(layers[-1].mask_logits[0], (size[0], size[1]), layer.cross.attention.heads)
        x, cross, among = steps[-1], layer.cross, layer.self_attention
        x = cross.norm(x + attend(cross.attention, x + where, tokens + position, tokens, blocked))
        x = among.norm(x + attend(among.attention, x + where, x + where, x))
        steps.append(layer.feedforward(x))
        layers.append(_predict(decoder.heads, steps[-1], features))
    return steps, layers


def blocked_places(masks: Float[Tensor, "T Q h w"], size: tuple[int, int], heads: int) -> Bool[Tensor, "_ Q L"]:
    """Full-resolution masks brought to a level's size, one copy for each head; empty rows are opened."""
    small = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
    each = (small.sigmoid().flatten(2)[:, None].repeat(1, heads, 1, 1).flatten(0, 1) < 0.5).detach()
    each[torch.where(each.sum(dim=-1) == each.shape[-1])] = False
    return each


def attend(
    attention: Attention, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None
) -> Float[Tensor, "T Q C"]:
    """Multi-head attention as ``nn.MultiheadAttention`` computes it when nobody says that its maps are not needed."""
    projections = (attention.query, attention.key, attention.value)
    attended, _ = F.multi_head_attention_forward(
        *(x.transpose(0, 1) for x in (query, key, value)),
        embed_dim_to_check=query.shape[-1],
        num_heads=attention.heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([projection.bias for projection in projections]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=attention.out.weight,
        out_proj_bias=attention.out.bias,
        training=False,
        attn_mask=blocked,
        use_separate_proj_weight=True,
        q_proj_weight=attention.query.weight,
        k_proj_weight=attention.key.weight,
        v_proj_weight=attention.value.weight,
    )
    return attended.transpose(0, 1)


def pool_context(
    pooling: ContextPooling, masks: Float[Tensor, "T Q h w"], features: Float[Tensor, "T C h w"]
) -> Float[Tensor, "T Q C"]:
    """Eq. 6 as released: a dense convolution, every weight 1 / size², and a Laplacian for the boundary."""
    if pooling.kind != "channel_sum":
        raise ValueError(f"expected a model with the released context 'channel_sum', got {pooling.kind!r}")
    size = pooling.filter_size
    surroundings = F.conv2d(features, dense_kernel(features.shape[1], size), padding=size // 2)
    laplacian = features.new_full((1, 1, 3, 3), -1.0)
    laplacian[..., 1, 1] = 8
    edge = F.conv2d((masks > 0).float().flatten(0, 1)[:, None], laplacian, padding=1) > 0.5
    edge = edge.float().view_as(masks)
    total = torch.einsum("tqhw,tchw->tqc", edge, surroundings)
    return total / (edge.sum(dim=(-2, -1))[..., None] + 1e-6)


@cache
def dense_kernel(channels: int, size: int) -> Float[Tensor, "C C size size"]:
    """The released context filter: made once, like a weight."""
    return torch.full((channels, channels, size, size), 1 / size**2)


def track(tracker: Tracker, frames: Segmented, memory: Memory | None = None) -> tuple[list[LayerPrediction], Memory]:
    """Eq. 9 and 10, frame by frame, with the heads on every block; released reading only."""
    if tracker.fusion is None:
        raise ValueError("expected a tracker of the released reading, got one without a fusion layer")
    outputs: list[list[Tensor]] = [[] for _ in tracker.blocks]
    for t in range(frames.core.shape[1]):
        memory = _step(tracker, frames, t, memory, outputs)
    assert memory is not None
    layers = []
    for slots in outputs:
        core = tracker.heads.norm(torch.stack(slots, dim=1))
        masks = torch.einsum("btqc,btchw->btqhw", tracker.heads.mask_head(core), frames.mask_features)
        layers.append(LayerPrediction(tracker.heads.classify(core), masks))
    return layers, memory


def _step(tracker: Tracker, frames: Segmented, t: int, memory: Memory | None, outputs: list[list[Tensor]]) -> Memory:
    """One frame; what each block says of it is added to ``outputs``."""
    core, embedding, value = frames.core[:, t], frames.embedding[:, t], frames.queries[:, t]
    fusion = cast("torch.nn.Linear", tracker.fusion)
    both = torch.cat((core, embedding), dim=-1)
    key = fusion(both)
    x, last = core, both
    if memory is not None:
        order = _aligned(tracker, match(memory.last, both))
        x, last = take(core, order), take(both, order)
    for block, said in zip(cast("Iterable[TrackerBlock]", tracker.blocks), outputs, strict=True):
        query = fusion(torch.cat((x, embedding), dim=-1) if memory is None else memory.fused)
        x = block.cross.norm(x + attend(block.cross.attention, query, key, value))
        x = block.self_attention.norm(x + attend(block.self_attention.attention, x, x, x))
        x = block.feedforward(x)
        said.append(x)
    context = take(embedding, _aligned(tracker, match(x, value)))
    return Memory(torch.cat((x, context), dim=-1), last)


def _aligned(tracker: Tracker, order: Tensor) -> Tensor:
    return invert(order) if tracker.alignment == "inverted" else order


def _predict(heads: Heads, slots: Float[Tensor, "T Q C"], features: PixelFeatures) -> LayerPrediction:
    """Classes and full-resolution masks."""
    core = heads.norm(slots)
    masks = torch.einsum("tqc,tchw->tqhw", heads.mask_head(core), features.mask_features)
    return LayerPrediction(heads.classify(core)[None], masks[None])


def _tracker(model: Cavis) -> Tracker:
    if model.tracker is None:
        raise ValueError("expected a model with a tracker, got one of the segmenter stage")
    return model.tracker


def _encode(masks: Bool[np.ndarray, "T H W"]) -> tuple[Rle | None, ...]:
    return tuple(rle.encode(mask) if mask.any() else None for mask in masks)
