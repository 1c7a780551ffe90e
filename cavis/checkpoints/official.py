"""The names of other people's checkpoints, and ours: one table.

Each row says where one of our modules or parameters finds its weights; ``*`` stands for one number or name, the same
on both sides, in order. A row whose right side ends in ``in_proj_`` joins query, key and value in one matrix, of which
``part`` says which third it is. Three ways of naming are known:

- ``released``: the CAVIS checkpoints of all stages, and detectron2's Mask2Former, which they grew from;
- ``transformers``: Hugging Face's Mask2Former (``facebook/mask2former-*``);
- ``dinov2``: DINOv2 as its authors published it (the ViT of the adapter only).
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cache
from typing import Literal, NamedTuple

Naming = Literal["released", "transformers", "dinov2"]


class Row(NamedTuple):
    """Our name, theirs, and which third of theirs it is (None: all of it)."""

    ours: str
    theirs: str
    part: int | None = None


def _rows(ours: str, theirs: str, names: Mapping[str, str]) -> tuple[Row, ...]:
    return tuple(Row(f"{ours}{left}", f"{theirs}{right}") for left, right in names.items())


def _thirds(ours: str, theirs: str) -> tuple[Row, ...]:
    return tuple(Row(f"{ours}{name}", theirs, part) for part, name in enumerate(("query", "key", "value")))


def _attention(ours: str, theirs: str, kind: str) -> tuple[Row, ...]:
    """A post-norm attention block that keeps query, key and value in one matrix."""
    return (
        *_thirds(f"{ours}.attention.", f"{theirs}.{kind}.in_proj_"),
        Row(f"{ours}.attention.out", f"{theirs}.{kind}.out_proj"),
        Row(f"{ours}.norm", f"{theirs}.norm"),
    )


def _feedforward(ours: str, theirs: str) -> tuple[Row, ...]:
    return _rows(ours, theirs, {".expand": ".linear1", ".contract": ".linear2", ".norm": ".norm"})


def _heads(ours: str, theirs: str) -> tuple[Row, ...]:
    names = {".norm": ".decoder_norm", ".class_head": ".class_embed", ".mask_head": ".mask_embed"}
    return _rows(ours, theirs, names)


def _resnet() -> Iterator[Row]:
    parts = {"convolution": "", "normalization": ".norm"}
    for part, name in parts.items():
        yield Row(f"backbone.network.embedder.embedder.{part}", f"backbone.stem.conv1{name}")
        for stage in range(4):
            ours, theirs = f"backbone.network.encoder.stages.{stage}.layers.*", f"backbone.res{stage + 2}.*"
            yield Row(f"{ours}.shortcut.{part}", f"{theirs}.shortcut{name}")
            for layer in range(3):
                yield Row(f"{ours}.layer.{layer}.{part}", f"{theirs}.conv{layer + 1}{name}")


def _swin() -> Iterator[Row]:
    yield from _rows(
        "backbone.network.swin.embeddings.",
        "backbone.patch_embed.",
        {"patch_embeddings.projection": "proj", "norm": "norm"},
    )
    ours, theirs = "backbone.network.swin.encoder.layers.*.blocks.*", "backbone.layers.*.blocks.*"
    for part, name in enumerate("qkv"):
        yield Row(f"{ours}.attention.{name}_proj", f"{theirs}.attn.qkv", part)
    table = "relative_position_bias_table"
    names = {
        "attention.o_proj": "attn.proj",
        f"attention.relative_position_bias.{table}": f"attn.{table}",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "mlp": "mlp",
    }
    yield from _rows(f"{ours}.", f"{theirs}.", names)
    yield Row("backbone.network.swin.encoder.layers.*.downsample", "backbone.layers.*.downsample")
    for stage in range(4):
        yield Row(f"backbone.network.hidden_states_norms.stage{stage + 1}", f"backbone.norm{stage}")


def _vit(theirs: str) -> Iterator[Row]:
    names = {"class_token": "cls_token", "position": "pos_embed", "patches": "patch_embed.proj"}
    yield from _rows("backbone.vit.", theirs, names)
    for part, name in enumerate("qkv"):
        yield Row(f"backbone.vit.blocks.*.attention.{name}_proj", f"{theirs}blocks.*.attn.qkv", part)
    inside = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "mlp": "mlp",
    }
    yield from _rows("backbone.vit.blocks.*.", f"{theirs}blocks.*.", inside)


def _adapter() -> Iterator[Row]:
    yield Row("backbone.level_embedding", "backbone.level_embed")
    yield Row("backbone.up", "backbone.up")
    yield Row("backbone.prior.stem", "backbone.spm.stem")
    for i in range(3):
        yield Row(f"backbone.prior.down.{i}", f"backbone.spm.conv{i + 2}")
    for i in range(4):
        yield Row(f"backbone.prior.project.{i}", f"backbone.spm.fc{i + 1}")
        yield Row(f"backbone.norms.{i}", f"backbone.norm{i + 1}")
    extractors = [f"backbone.interactions.{i}.extractor" for i in range(4)]
    extractors += [f"backbone.interactions.3.extra_extractors.{i}" for i in range(2)]
    parts = {
        ".query_norm": ".query_norm",
        ".token_norm": ".feat_norm",
        ".feedforward_norm": ".ffn_norm",
        ".feedforward.contract": ".ffn.fc1",
        ".feedforward.mix": ".ffn.dwconv.dwconv",
        ".feedforward.expand": ".ffn.fc2",
        **DEFORMABLE,
    }
    for i, extractor in enumerate(extractors):
        attention = {left: f".attn{right}" if left in DEFORMABLE else right for left, right in parts.items()}
        yield from _rows(f"backbone.extractors.{i}", extractor, attention)


DEFORMABLE = {
    ".attention.offsets": ".sampling_offsets",
    ".attention.weights": ".attention_weights",
    ".attention.value": ".value_proj",
    ".attention.out": ".output_proj",
}


def _released_pixel_decoder() -> Iterator[Row]:
    theirs = "sem_seg_head.pixel_decoder"
    layer = f"{theirs}.transformer.encoder.layers.*"
    yield Row("pixel_decoder.project", f"{theirs}.input_proj")
    yield Row("pixel_decoder.level_embedding", f"{theirs}.transformer.level_embed")
    yield from _rows("pixel_decoder.encoder.*", f"{layer}.self_attn", DEFORMABLE)
    names = {".norm": ".norm1", ".feedforward.norm": ".norm2"}
    names |= {".feedforward.expand": ".linear1", ".feedforward.contract": ".linear2"}
    yield from _rows("pixel_decoder.encoder.*", layer, names)
    for ours, name in {"lateral": "adapter_1", "smooth": "layer_1"}.items():
        yield Row(f"pixel_decoder.{ours}.0", f"{theirs}.{name}")
        yield Row(f"pixel_decoder.{ours}.1", f"{theirs}.{name}.norm")
    yield Row("pixel_decoder.mask_features", f"{theirs}.mask_features")


def _released_query_decoder() -> Iterator[Row]:
    ours, theirs = "query_decoder.layers.*", "sem_seg_head.predictor"
    yield from _attention(f"{ours}.cross", f"{theirs}.transformer_cross_attention_layers.*", "multihead_attn")
    yield from _attention(f"{ours}.self_attention", f"{theirs}.transformer_self_attention_layers.*", "self_attn")
    yield from _feedforward(f"{ours}.feedforward", f"{theirs}.transformer_ffn_layers.*")
    yield from _heads("query_decoder.heads", theirs)
    names = {"feature": "query_feat", "position": "query_embed"}
    yield from _rows("query_decoder.query_", f"{theirs}.", names)
    yield Row("query_decoder.level_embedding", f"{theirs}.level_embed")
    yield Row("context_mlp", f"{theirs}.reid_embed")


def _released_tracker() -> Iterator[Row]:
    yield from _attention("blocks.*.cross", "transformer_cross_attention_layers.*", "multihead_attn")
    yield from _attention("blocks.*.self_attention", "transformer_self_attention_layers.*", "self_attn")
    yield from _feedforward("blocks.*.feedforward", "transformer_ffn_layers.*")
    yield from _rows("", "", {"heads.norm": "decoder_norm", "heads.class_head": "class_embed"})
    yield from _rows("", "", {"heads.mask_head": "mask_embed", "fusion": "ctx_query_embed"})


def _released_refiner() -> Iterator[Row]:
    yield from (row for row in _released_tracker() if "self_attention" not in row.ours and row.ours != "fusion")
    yield from _attention("blocks.*.time_attention", "transformer_time_self_attention_layers.*", "self_attn")
    yield from _attention("blocks.*.self_attention", "transformer_obj_self_attention_layers.*", "self_attn")
    names = {"wide": "conv_short_aggregate_layers.*.0", "narrow": "conv_short_aggregate_layers.*.2"}
    yield from _rows("blocks.*.convolution.", "", names | {"norm": "conv_norms.*"})
    yield Row("importance", "activation_proj")


def _transformers() -> Iterator[Row]:
    pixel, transformer = "model.pixel_level_module.decoder", "model.transformer_module"
    layer = f"{pixel}.encoder.layers.*"
    yield Row("backbone.network", "model.pixel_level_module.encoder")
    yield Row("pixel_decoder.project", f"{pixel}.input_projections")
    yield Row("pixel_decoder.level_embedding", f"{pixel}.level_embed")
    yield from _rows("pixel_decoder.encoder.*", f"{layer}.self_attn", DEFORMABLE)
    names = {".norm": ".self_attn_layer_norm", ".feedforward.norm": ".final_layer_norm"}
    names |= {".feedforward.expand": ".fc1", ".feedforward.contract": ".fc2"}
    yield from _rows("pixel_decoder.encoder.*", layer, names)
    yield from _rows("pixel_decoder.", f"{pixel}.", {"lateral": "adapter_1", "smooth": "layer_1"})
    yield Row("pixel_decoder.mask_features", f"{pixel}.mask_projection")
    ours, theirs = "query_decoder.layers.*", f"{transformer}.decoder.layers.*"
    yield from _thirds(f"{ours}.cross.attention.", f"{theirs}.cross_attn.in_proj_")
    parts = {
        "cross.attention.out": "cross_attn.out_proj",
        "cross.norm": "cross_attn_layer_norm",
        "self_attention.norm": "self_attn_layer_norm",
        "self_attention.attention.query": "self_attn.q_proj",
        "self_attention.attention.key": "self_attn.k_proj",
        "self_attention.attention.value": "self_attn.v_proj",
        "self_attention.attention.out": "self_attn.out_proj",
        "feedforward.expand": "fc1",
        "feedforward.contract": "fc2",
        "feedforward.norm": "final_layer_norm",
    }
    yield from _rows(f"{ours}.", f"{theirs}.", parts)
    names = {"query_feature": "queries_features", "query_position": "queries_embedder"}
    yield from _rows("query_decoder.", f"{transformer}.", names | {"level_embedding": "level_embed"})
    yield Row("query_decoder.heads.norm", f"{transformer}.decoder.layernorm")
    yield Row("query_decoder.heads.class_head", "class_predictor")
    embedder = f"{transformer}.decoder.mask_predictor.mask_embedder"
    yield Row("query_decoder.heads.mask_head.layers.*", f"{embedder}.*.0")


def _inside(part: str, rows: Iterable[Row], theirs: str = "") -> tuple[Row, ...]:
    return tuple(Row(f"{part}.{row.ours}", f"{theirs}{row.theirs}", row.part) for row in rows)


RELEASED: tuple[Row, ...] = (
    *_inside("segmenter", _resnet()),
    *_inside("segmenter", _swin()),
    *_inside("segmenter", _vit("backbone.vit_module.")),
    *_inside("segmenter", _adapter()),
    *_inside("segmenter", _released_pixel_decoder()),
    *_inside("segmenter", _released_query_decoder()),
    *_inside("tracker", _released_tracker(), "tracker."),
    *_inside("refiner", _released_refiner(), "refiner."),
)
TABLES: dict[Naming, tuple[Row, ...]] = {
    "released": RELEASED,
    "transformers": _inside("segmenter", _transformers()),
    "dinov2": _inside("segmenter", _vit("")),
}

OLDER_NAMES: dict[Naming, tuple[tuple[str, str], ...]] = {
    "released": (
        (r"^module\.", ""),
        (r"\.predictor\.static_query\.", ".predictor.query_feat."),
    ),
    "transformers": (
        (r"(pixel_level_module\.encoder)\.(embeddings|encoder)\.", r"\1.swin.\2."),
        (
            r"\.attention\.self\.relative_position_bias_table",
            ".attention.relative_position_bias.relative_position_bias_table",
        ),
        (r"\.attention\.self\.query\.", ".attention.q_proj."),
        (r"\.attention\.self\.key\.", ".attention.k_proj."),
        (r"\.attention\.self\.value\.", ".attention.v_proj."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    ),
    "dinov2": (),
}
"""What earlier files call the same things: pattern and replacement, in this order."""


class Idle(NamedTuple):
    """An entry that carries nothing for the model, where it stands beside one that does."""

    theirs: str
    """Its whole name: a pattern."""
    beside: str
    """The entry that must be used for this one to be understood; groups of the pattern stand in it."""
    why: str


IGNORED: dict[Naming, tuple[Idle, ...]] = {
    "released": (
        Idle(r"sem_seg_head\.predictor\.laplacian", "sem_seg_head.predictor.query_feat.weight", "a constant"),
        Idle(r"criterion\.empty_weight", "sem_seg_head.predictor.class_embed.weight", "of the loss"),
        Idle(
            r"(backbone\.layers\.\d+\.blocks\.\d+\.attn)\.relative_position_index",
            r"\1.relative_position_bias_table",
            "computed from the window's size",
        ),
        Idle(r"(backbone\..+)\.num_batches_tracked", r"\1.running_mean", "counts training steps"),
        Idle(
            r"backbone\.vit_module\.mask_token",
            "backbone.vit_module.cls_token",
            "used in DINOv2's own training only",
        ),
        Idle(
            r"backbone\.vit_module\.norm\.(weight|bias)",
            "backbone.vit_module.cls_token",
            "the ViT's last norm, which the adapter does not use",
        ),
    ),
    "transformers": (
        Idle(r"criterion\.empty_weight", "class_predictor.weight", "of the loss"),
        Idle(
            r"(model\.pixel_level_module\.encoder\..+\.attention)\.(self|relative_position_bias)"
            r"\.relative_position_index",
            r"\1.relative_position_bias.relative_position_bias_table",
            "computed from the window's size",
        ),
        Idle(r"(model\..+)\.num_batches_tracked", r"\1.running_mean", "counts training steps"),
        Idle(
            r"model\.pixel_level_module\.encoder\.swin\.layernorm\.(weight|bias)",
            "model.pixel_level_module.encoder.hidden_states_norms.stage4.weight",
            "the Swin's last norm, which its maps do not use",
        ),
    ),
    "dinov2": (
        Idle(r"mask_token", "cls_token", "used in DINOv2's own training only"),
        Idle(r"norm\.(weight|bias)", "cls_token", "the ViT's last norm, which the adapter does not use"),
    ),
}
"""Entries that carry nothing for the model, and why."""

LAPLACIAN = "sem_seg_head.predictor.laplacian"
LAPLACIAN_VALUES = (-1.0, -1.0, -1.0, -1.0, 8.0, -1.0, -1.0, -1.0, -1.0)
"""The constant that is ignored; with another one the boundaries of Eq. 5 would be others."""


class Origin(NamedTuple):
    """Where one of our entries comes from."""

    key: str
    part: int | None
    """Which third of the first axis, or None for all of it."""


def origin(ours: str, naming: Naming) -> Origin | None:
    """The entry of a checkpoint that our entry ``ours`` is made of; None if the table has no row for it."""
    for pattern, row in _compiled(naming):
        found = pattern.fullmatch(ours)
        if found:
            *indices, leaf = found.groups()
            theirs = row.theirs
            for index in indices:
                theirs = theirs.replace("*", index, 1)
            leaf = leaf or ""
            return Origin(theirs + (leaf.removeprefix(".") if theirs.endswith("_") else leaf), row.part)
    return None


@cache
def _compiled(naming: Naming) -> tuple[tuple[re.Pattern[str], Row], ...]:
    rows = TABLES[naming]
    return tuple((re.compile(re.escape(row.ours).replace(r"\*", r"(\w+)") + r"(\..+)?"), row) for row in rows)


def naming_of(keys: Iterable[str]) -> Naming | None:
    """Whose names these are; None if nobody's that is known here."""
    names = [re.sub(r"^module\.", "", key) for key in keys]
    if any(name.startswith("model.pixel_level_module.") for name in names):
        return "transformers"
    if any(name.startswith(("sem_seg_head.", "tracker.transformer_")) for name in names):
        return "released"
    if any(name.startswith("blocks.0.ls1") for name in names):
        return "dinov2"
    return None


def current_name(key: str, naming: Naming) -> str:
    """The name that the table knows an entry by, whatever its file calls it."""
    for pattern, replacement in OLDER_NAMES[naming]:
        key = re.sub(pattern, replacement, key)
    return key


def reason_to_ignore(name: str, naming: Naming, used: Container[str]) -> str | None:
    """Why an entry is not needed beside those that are ``used``, or None if nothing explains it."""
    for row in IGNORED[naming]:
        found = re.fullmatch(row.theirs, name)
        if found and found.expand(row.beside) in used:
            return row.why
    return None
