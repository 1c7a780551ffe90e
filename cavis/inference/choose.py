"""What a model's name, its parts and its classes decide: what to fetch, which predictor, which tasks."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from cavis.checkpoints.hub import ReadyModel, bundled_models
from cavis.checkpoints.zoo import ZOO, ZooEntry, is_cached
from cavis.config import Task
from cavis.inference.offline import OfflinePredictor
from cavis.inference.online import OnlinePredictor
from cavis.inference.predictor import Predictor


class TaskError(ValueError):
    """A task that a model cannot do."""


def predictor_for(ready: ReadyModel, top_k: int | None = None, window: int | None = None) -> Predictor:
    """The predictor that makes the most of a model: offline where it has a refiner, else online."""
    kind = OnlinePredictor if ready.model.refiner is None else OfflinePredictor
    return kind(ready, top_k=top_k, window=window)


def with_task(ready: ReadyModel, task: str) -> ReadyModel:
    """The same model, run for another task, or for its ``own``.

    A TaskError if there is no such task, or for a model that knows things only where most pixels would have no class.
    """
    chosen = next((known for known in get_args(Task) if known == task), None)
    if task == "own":
        return ready
    if chosen is None:
        raise TaskError(f"expected a task out of own, {', '.join(get_args(Task))}; got {task!r}")
    if chosen != "instance" and ready.about.config.stuff == 0:
        raise TaskError(
            f"expected a model that knows stuff (sky, road, ...) for the {task} task, such as vipseg_r50_tracker; "
            f"got {ready.about.name!r}, which knows things only"
        )
    return replace(ready, inference=replace(ready.inference, task=chosen))


def to_fetch(name: str) -> ZooEntry | None:
    """The published model that ``name`` means, if it has to be fetched before it can be loaded."""
    if name in bundled_models() or Path(name).is_file():
        return None
    entry = ZOO.get(name.replace("-", "_"))
    return None if entry is None or is_cached(entry) else entry
