"""From a name or a path to a model that is ready to run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch

from cavis.checkpoints import zoo
from cavis.checkpoints.files import CheckpointError, ModelFile, load_weights, read_model_file
from cavis.config import InferenceConfig, ModelConfig
from cavis.model import Cavis, build_model, fold_norms
from cavis.presets import DEFAULT_MODEL, get_preset

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


@dataclass(frozen=True)
class Running:
    """What decides how the weights of a file are run."""

    model: ModelConfig
    inference: InferenceConfig


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.stem for path in BUNDLED.glob("*.safetensors")))


def best_device() -> str:
    """``cuda`` or ``mps`` where there is one, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find_model(name: str) -> Path:
    """The file of a bundled name, of a published one (downloaded and imported where it is not yet), or of a path.

    A CheckpointError names the nearest models there are; a DownloadError says what could not be fetched.
    """
    bundled = BUNDLED / f"{name}.safetensors"
    if name in bundled_models():
        return bundled
    if Path(name).is_file():
        return Path(name)
    published = name.replace("-", "_")
    if published in zoo.ZOO:
        return zoo.get(zoo.ZOO[published])
    near = zoo.nearest(published, [*bundled_models(), *zoo.ZOO])
    names = ", ".join(near or (*bundled_models(), "what `cavis zoo` lists"))
    raise CheckpointError(f"expected a model such as {names}, or the path of a .safetensors file; got {name!r}")


def load_model(
    name: str = DEFAULT_MODEL, device: str = "auto", change: Callable[[Running], Running] | None = None
) -> ReadyModel:
    """Load a model in evaluation mode: a bundled name, a published one (see ``cavis zoo``), or the path of a file.

    ``change`` may have it run in another way, such as under another reading; a CheckpointError where the weights do not
    fit that. Batch norms are folded into the convolutions before them, so the model runs but is not one to train on.
    """
    path = find_model(name)
    about, state = read_model_file(path)
    if about.missing:
        raise CheckpointError(
            f"expected a model to run, but {path} is a starting point for training: it lacks {len(about.missing)} "
            f"entries, such as {about.missing[0]}"
        )
    running = Running(about.config, get_preset(about.preset).inference)
    if change is not None:
        running = change(running)
        about = replace(about, config=running.model)
    model = build_model(about.config, about.stage)
    load_weights(model, state, str(path))
    model.eval().requires_grad_(False)
    fold_norms(model.segmenter.backbone)
    model.to(best_device() if device == "auto" else device)
    return ReadyModel(model, about, running.inference, _world(about))


def _world(about: ModelFile) -> str:
    """What a model has seen: the preset's sentence, or the categories it was taught instead."""
    preset = get_preset(about.preset)
    names = about.config.categories
    if names == preset.model.categories:
        return preset.world
    some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"I was taught a data set of my user's own: {some}."
