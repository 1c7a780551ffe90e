"""From a name or a path to a model that is ready to run."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch

from cavis.checkpoints.files import CheckpointError, ModelFile, load_weights, read_model_file
from cavis.config import InferenceConfig
from cavis.model import Cavis, build_model
from cavis.presets import get_preset

DEFAULT_MODEL = "tiny"
BUNDLED = Path(str(files("cavis"))) / "assets" / "weights"


@dataclass(frozen=True)
class ReadyModel:
    """A model with its weights, and how it wants to be run."""

    model: Cavis
    about: ModelFile
    inference: InferenceConfig
    world: str
    """One sentence for visitors: what the model has seen."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.stem for path in BUNDLED.glob("*.safetensors")))


def best_device() -> str:
    """``cuda`` or ``mps`` where there is one, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find_model(name: str) -> Path:
    """The file of a bundled name or of a path; a CheckpointError lists the names there are."""
    bundled = BUNDLED / f"{name}.safetensors"
    if name in bundled_models():
        return bundled
    if Path(name).is_file():
        return Path(name)
    names = ", ".join(bundled_models()) or "(none bundled)"
    raise CheckpointError(f"expected a model out of {names}, or the path of a .safetensors file; got {name!r}")


def load_model(name: str = DEFAULT_MODEL, device: str = "auto") -> ReadyModel:
    """Load a bundled model by name, or any model written by ``cavis train`` by path, in evaluation mode."""
    path = find_model(name)
    about, state = read_model_file(path)
    preset = get_preset(about.preset)
    model = build_model(about.config, tracker=about.has_tracker)
    load_weights(model, state, str(path))
    model.eval().requires_grad_(False).to(best_device() if device == "auto" else device)
    return ReadyModel(model, about, preset.inference, preset.world)
