"""What is measured: a model with random weights, and a clip of synthetic pictures."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from cavis.checkpoints.configs import model_config_from_json, model_config_to_json
from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.config import InferenceConfig, ModelConfig, Stage
from cavis.inference.postprocess import Sizes
from cavis.model import Cavis, build_model
from cavis.model.deformable_attention import DeformableAttention
from cavis.presets import get_preset


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One size of the tracking benchmark."""

    model: ModelConfig
    height: int
    width: int
    frames: int
    """Of the clip that is timed; three pass the network together."""
    repeats: int
    short: int
    long: int
    """Frames of the clips whose peak memory is compared."""
    top_k: int = 20

    @property
    def sizes(self) -> Sizes:
        """The network sees the frames as they are."""
        return Sizes((self.height, self.width), (self.height, self.width))

    def to_json(self) -> str:
        """For a child process."""
        return json.dumps(asdict(self) | {"model": model_config_to_json(self.model)})

    @classmethod
    def from_json(cls, text: str) -> "Setting":
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        return cls(**data | {"model": model_config_from_json(data["model"])})


def full() -> Setting:
    """The released OVIS model with a ResNet-50, at the size the paper tests at."""
    model = get_preset("ovis_r50").model
    return Setting(model=model, height=448, width=800, frames=6, repeats=5, short=12, long=48)


def quick() -> Setting:
    """The same model on small frames: about a minute."""
    return replace(full(), height=128, width=224, frames=3, repeats=3)


def random_model(config: ModelConfig, stage: Stage = "tracker") -> Cavis:
    """An untrained model in evaluation mode, the same one every time.

    What starts as zeros is filled, so that the deformable attention looks somewhere else in every cell.
    """
    torch.manual_seed(0)
    model = build_model(config, stage).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            for layer in (module.offsets, module.weights):
                torch.nn.init.normal_(layer.weight, std=config.hidden**-0.5)
    return model


def ready_model(model: Cavis, setting: Setting) -> ReadyModel:
    """The model as the predictors take it."""
    short, long = sorted((setting.height, setting.width))
    inference = InferenceConfig(short_side=short, max_side=long, top_k=setting.top_k, window=3)
    stage = "tracker" if model.refiner is None else "refiner"
    about = ModelFile("random", "ovis_r50", setting.model, stage, "")
    return ReadyModel(model, about, inference, "")


def pictures(setting: Setting, frames: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Smooth random pictures that drift, made one by one."""
    height, width = setting.height, setting.width
    noise = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    still = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
    for t in range(frames):
        yield np.roll(still, (t, 2 * t), axis=(0, 1))
