"""Model files (safetensors with the configuration in the header) and training files; both are written atomically."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cavis.checkpoints.configs import model_config_from_json, model_config_to_json
from cavis.config import STAGES, ModelConfig, Stage


@dataclass(frozen=True)
class ModelFile:
    """What is known of a model before its weights are loaded."""

    name: str
    preset: str
    config: ModelConfig
    stage: Stage
    """The stage it comes from: a tracker is there after the tracker stage, a refiner after the refiner stage."""
    training: str
    """How it was trained, in a sentence; empty if it does not say."""
    missing: tuple[str, ...] = ()
    """Entries the file does not have: it is a starting point for training, not a model to run."""


STEP_COUNTER = ".num_batches_tracked"
"""Batch norms count their training steps; nothing depends on it, and files may lack it."""


class CheckpointError(ValueError):
    """A file that is not a checkpoint, or not one of this model."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, sync it, and put it in place in one move.

    On any failure the temporary file is removed and ``path`` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def model_header(about: ModelFile) -> dict[str, str]:
    """What the header of a model file holds beside names and shapes."""
    return {
        "format": "cavis",
        "name": about.name,
        "preset": about.preset,
        "stage": about.stage,
        "config": json.dumps(model_config_to_json(about.config)),
        "training": about.training,
        "missing": json.dumps(about.missing),
    }


def save_model(path: Path, model: nn.Module, about: ModelFile, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights in ``dtype`` with ``about`` in the header."""
    write_model(path, model.state_dict(), about, dtype)


def read_model_file(path: Path) -> tuple[ModelFile, dict[str, Tensor]]:
    """Read a file written by :func:`save_model`; a CheckpointError says what is wrong with another one."""
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint file, found none at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"expected a safetensors checkpoint, but {path} cannot be read: {error}") from error
    if header.get("format") != "cavis":
        raise CheckpointError(f"expected a checkpoint written by cavis, but {path} carries no cavis header")
    try:
        config = model_config_from_json(json.loads(header["config"]))
        about = ModelFile(
            name=header["name"],
            preset=header["preset"],
            config=config,
            stage=_stage(header["stage"]),
            training=header.get("training", ""),
            missing=tuple(json.loads(header.get("missing", "[]"))),
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"expected a complete cavis header in {path}: {error}") from error
    return about, state


def halve(source: Path, out: Path) -> None:
    """Rewrite a model file in fp16, named as ``out`` is: half the size, for weights that ship with the package."""
    about, state = read_model_file(source)
    write_model(out, state, replace(about, name=out.stem), torch.float16)


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load exactly fitting weights; a CheckpointError names the keys and shapes that do not fit."""
    own = model.state_dict()
    missing = sorted(key for key in own.keys() - state.keys() if not key.endswith(STEP_COUNTER))
    unknown = sorted(state.keys() - own.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if own[key].shape != state[key].shape
    ]
    complaints = [
        f"{label}: {_some(keys)}"
        for label, keys in (("missing", missing), ("unknown", unknown), ("wrong shape", shapes))
        if keys
    ]
    if complaints:
        raise CheckpointError(f"the weights of {source} do not fit the model; " + "; ".join(complaints))
    model.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()}, strict=False)


def save_training(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors and plain values).

    What cannot be written (a full disk) is an OSError, and leaves the file before as it was.
    """
    try:
        write_atomically(path, lambda temporary: torch.save(state, temporary))
    except (OSError, RuntimeError) as error:  # torch's own writer turns a full disk into a RuntimeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"no room to write {path} ({reason}); what was there before is left as it was") from error


def read_training(path: Path) -> dict[str, Any]:
    """Read a training state; nothing in the file is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, all meaning the same to the user
        text = str(error) or type(error).__name__
        reason = text.splitlines()[0].split(". ")[0]  # the rest is advice, some of it to trust the file
        raise CheckpointError(f"expected a training checkpoint, but {path} cannot be read: {reason}") from error


def write_model(
    path: Path, weights: Mapping[str, Tensor], about: ModelFile, dtype: torch.dtype = torch.float32
) -> None:
    """Write weights by name in ``dtype`` with ``about`` in the header."""
    state = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous() for key, value in weights.items()
    }
    data = save(state, metadata=model_header(about))
    write_atomically(path, lambda temporary: _write_bytes(temporary, data))


def _stage(name: str) -> Stage:
    if name not in STAGES:
        raise ValueError(f"expected a stage out of {', '.join(STAGES)}, got {name!r}")
    return name


def _some(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
