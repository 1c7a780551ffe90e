"""Views for the notebooks: numpy in, numpy out. They know neither torch nor the model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from widgets.context_filter_lab import ContextFilterLab
    from widgets.training_panel import TrainingPanel

__all__ = ["ContextFilterLab", "TrainingPanel"]

_HOMES = {
    "ContextFilterLab": "widgets.context_filter_lab",
    "TrainingPanel": "widgets.training_panel",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'widgets' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
