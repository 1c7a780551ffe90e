"""Golden sets: what the released code computed, with weights that a recipe makes anew.

A set is a folder with ``info.json`` (configuration, overrides, salt, gains, margins) and ``tensors.npz``. Everything
is read from there. ``CAVIS_GOLDEN_DIR`` names another folder of sets of the same form.
"""

import json
import math
import os
import zlib
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from cavis.checkpoints.files import load_weights
from cavis.checkpoints.importing import model_shapes, plan_import
from cavis.checkpoints.official import origin
from cavis.config import ModelConfig, Preset, Stage, Swin, VitAdapter
from cavis.model import Cavis, build_model, fold_norms
from cavis.presets import get_preset

HERE = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("CAVIS_GOLDEN_DIR", HERE))
LAPLACIAN = "sem_seg_head.predictor.laplacian"


def sets(*prefixes: str) -> list[str]:
    """The sets there are whose tensors have one of these prefixes."""
    return [name for name, tensors in _tensor_names().items() if any(one.startswith(prefixes) for one in tensors)]


@cache
def _tensor_names() -> dict[str, list[str]]:
    if not any(FOLDER.glob("*/*")):
        raise FileNotFoundError(f"expected golden sets in {FOLDER}, found none")
    files = sorted(FOLDER.glob("*/tensors.npz"))
    return {file.parent.name: np.load(file).files for file in files if (file.parent / "info.json").exists()}


def cases(names: list[str]) -> list:
    """The sets as parameters of a test; those of a full ViT-L take their time."""
    whole = [name for name in names if "config" in golden(name).info]  # units of the second pass have no model
    big = [name for name in whole if golden(name).preset.model.backbone == VitAdapter()]
    return [pytest.param(name, marks=pytest.mark.slow) if name in big else name for name in names]


@dataclass(frozen=True)
class Golden:
    """One set."""

    name: str
    folder: Path = FOLDER

    @cached_property
    def info(self) -> dict:
        return json.loads((self.folder / self.name / "info.json").read_text())

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        return dict(np.load(self.folder / self.name / "tensors.npz"))

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.tensors[key])

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    @property
    def stage(self) -> Stage:
        name = Path(self.info["config"]).name
        return "refiner" if "Offline" in name else "tracker" if "Online" in name else "segmenter"

    @property
    def overrides(self) -> dict:
        flat = self.info.get("overrides", [])
        return dict(zip(flat[::2], flat[1::2], strict=True))  # where a key is there twice the last one wins

    @cached_property
    def preset(self) -> Preset:
        """The preset of the configuration, with the set's overrides."""
        preset = preset_of(self.info["config"])
        model, inference = preset.model, preset.inference
        for key, value in self.overrides.items():
            model, inference = override(key, value, model, inference)
        return replace(preset, model=model, inference=inference)

    def model(self, *, folded: bool = False) -> Cavis:
        """The stage's model with the weights of the recipe, put in by way of the released names."""
        config = self.preset.model
        model = build_model(config, self.stage)
        state = recipe_state(self, config)
        plan = plan_import(state, config, self.stage)
        assert plan.missing == plan.misfits == plan.unexplained == (), plan
        load_weights(model, plan.convert(state), self.name)
        if folded:
            fold_norms(model.segmenter.backbone)
        return model.eval()


@cache
def golden(name: str) -> Golden:
    return Golden(name)


@cache
def bundled(name: str) -> Golden:
    """A set that lies beside the tests, whatever ``CAVIS_GOLDEN_DIR`` names: for what is known of one clip only."""
    return Golden(name, HERE)


@lru_cache(maxsize=1)  # a ViT-L takes 1.4 GB
def golden_model(name: str, folded: bool = False) -> Cavis:
    return golden(name).model(folded=folded)


def preset_of(config: str) -> Preset:
    """``ovis/vit_adapter/CAVIS_Online_ViTL`` -> ``ovis_vitl``."""
    parts = Path(config).parts
    backbone = next(short for short in ("R50", "SwinL", "ViTL") if parts[-1].endswith(short)).lower()
    ending = "_minvis" if parts[-1].startswith("MinVIS") else ""
    return get_preset(f"{parts[0].lower()}_{backbone}{ending}")


def override(key: str, value, model: ModelConfig, inference):
    """One override of a set; an unknown one is an error, for the set could not be understood without it."""
    sizes = {
        "NUM_OBJECT_QUERIES": "queries",
        "HIDDEN_DIM": "hidden",
        "NHEADS": "heads",
        "DIM_FEEDFORWARD": "feedforward",
        "TRANSFORMER_ENC_LAYERS": "pixel_decoder_layers",
    }
    swin = {"EMBED_DIM": "width", "DEPTHS": "depths", "NUM_HEADS": "heads", "WINDOW_SIZE": "window"}
    name = key.split(".")[-1]
    if key.startswith("MODEL.SWIN."):
        assert isinstance(model.backbone, Swin)
        value = tuple(value) if isinstance(value, list) else value
        return replace(model, backbone=replace(model.backbone, **{swin[name]: value})), inference
    if key == "MODEL.VIT_ADAPTER.NAME":
        vits = {"vitb": VitAdapter(width=768, depth=12, heads=12, adapter_heads=12), "vitl": VitAdapter()}
        return replace(model, backbone=vits[value]), inference
    if name == "DEC_LAYERS":
        return replace(model, decoder_layers=value - 1), inference
    parts = {"MODEL.TRACKER.DECODER_LAYERS": "tracker_layers", "MODEL.REFINER.DECODER_LAYERS": "refiner_layers"}
    if key in parts:
        return replace(model, **{parts[key]: value}), inference
    if name == "CONTEXT_FILTER_SIZE":
        return replace(model, reading=replace(model.reading, context_filter_size=value)), inference
    if name in sizes:
        return replace(model, **{sizes[name]: value}), inference
    thresholds = {"OBJECT_MASK_THRESHOLD": "min_score", "OVERLAP_THRESHOLD": "min_visible_share", "MAX_NUM": "top_k"}
    if name in thresholds:
        return model, replace(inference, **{thresholds[name]: value})
    training_only = ("TRAIN_NUM_POINTS", "SAMPLING_FRAME_NUM", "USE_CL", "WINDOW_SIZE")
    assert name in training_only, f"unknown override {key}"
    return model, inference


def recipe_state(golden: Golden, config: ModelConfig) -> dict[str, torch.Tensor]:
    """A released checkpoint of the recipe's weights: the model's entries under their released names, in full."""
    state = {LAPLACIAN: torch.tensor([[[[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]]])}
    state["criterion.empty_weight"] = torch.ones(config.num_classes + 1)
    for name, shape in model_shapes(config, golden.stage).items():
        source = origin(name, "released")
        assert source is not None, name
        whole = shape if source.part is None else (3 * shape[0], *shape[1:])
        if source.key not in state:
            state[source.key] = recipe(source.key, whole, golden)
    return state


def recipe(key: str, shape: tuple[int, ...], golden: Golden) -> torch.Tensor:
    """The value of one entry: a stream of normal numbers seeded by its name, scaled by what it is."""
    last = key.split(".")[-1]
    if last == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    if last in ("running_mean", "running_var"):
        stored = f"bn.{key}"
        start = 0.0 if last == "running_mean" else 1.0  # sets that begin behind the backbone do not store them
        return golden[stored] if stored in golden else torch.full(shape, start)
    seed = zlib.crc32((key + golden.info["salt"]).encode())
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    offset, scale = offset_and_scale(key, shape, golden.info)
    return torch.from_numpy(np.asarray(np.float32(offset) + np.float32(scale) * noise))


def offset_and_scale(key: str, shape: tuple[int, ...], info: dict) -> tuple[float, float]:
    """The rows of the recipe; the first that applies."""
    last, flat = key.split(".")[-1], len(shape) == 1
    fan_in = math.prod(shape[1:])
    raw = (".query_embed.weight", ".level_embed.weight", ".level_embed", ".cls_token", ".pos_embed", ".mask_token")
    rows = (
        (last == "gamma", 0.3, 0.1),
        (last == "relative_position_bias_table", 0.0, 0.5),
        (key.endswith(".query_feat.weight"), 0.0, info.get("query_feat_scale", 0.1)),
        (key.endswith(raw), 0.0, 1.0),
        (flat and key.endswith("conv3.norm.weight"), 0.3, 0.1),
        (flat and last == "weight", 1.0, 0.1),
        (flat and last.endswith("bias"), 0.0, 0.05),
    )
    for applies, offset, scale in rows:
        if applies:
            return offset, scale
    gains = (
        (last == "in_proj_weight", 1.5),
        (key.endswith("class_embed.weight"), 3.0),
        (key.endswith("attn.out_proj.weight"), info.get("out_proj_gain", 0.26)),
        (key.endswith("linear2.weight"), 0.15),
    )
    return 0.0, next((gain for applies, gain in gains if applies), 1.0) / math.sqrt(fan_in)
