"""Views for notebooks: numpy in, numpy out; they know neither torch nor cavis.

Each own view is one ``.py`` and one ``.js`` (an ES module, no bundler). Views of rows have a ``selection`` of row
numbers, so that linking the selections links the views: ``ipywidgets.link((map, "selection"), (player, "selection"))``.
Without a kernel each of them shows a still picture. The names below are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from widgets.association_matrix import AssociationMatrix
    from widgets.context_filter_lab import ContextFilterLab
    from widgets.embedding_map import EmbeddingMap
    from widgets.track_player import TrackPlayer
    from widgets.training_panel import TrainingPanel

__all__ = ["AssociationMatrix", "ContextFilterLab", "EmbeddingMap", "TrackPlayer", "TrainingPanel"]

_HOMES = {
    "AssociationMatrix": "widgets.association_matrix",
    "ContextFilterLab": "widgets.context_filter_lab",
    "EmbeddingMap": "widgets.embedding_map",
    "TrackPlayer": "widgets.track_player",
    "TrainingPanel": "widgets.training_panel",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'widgets' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
