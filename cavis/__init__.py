"""CAVIS Lab: context-aware video instance segmentation.

The names below are the public ones; each is imported when it is first used, so that ``import cavis`` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cavis.checkpoints.hub import bundled_models, load_model
    from cavis.inference.clip_files import write_film
    from cavis.inference.export import write_results, write_tracks
    from cavis.inference.offline import OfflinePredictor
    from cavis.inference.online import OnlinePredictor
    from cavis.presets import get_preset
    from cavis.records import Rle, Track, VideoResult
    from cavis.video import open_video

__version__ = "0.1.0"
__all__ = [
    "OfflinePredictor",
    "OnlinePredictor",
    "Rle",
    "Track",
    "VideoResult",
    "bundled_models",
    "get_preset",
    "load_model",
    "open_video",
    "write_film",
    "write_results",
    "write_tracks",
]

_HOMES = {
    "OfflinePredictor": "cavis.inference.offline",
    "OnlinePredictor": "cavis.inference.online",
    "Rle": "cavis.records",
    "Track": "cavis.records",
    "VideoResult": "cavis.records",
    "bundled_models": "cavis.checkpoints.hub",
    "get_preset": "cavis.presets",
    "load_model": "cavis.checkpoints.hub",
    "open_video": "cavis.video",
    "write_film": "cavis.inference.clip_files",
    "write_results": "cavis.inference.export",
    "write_tracks": "cavis.inference.export",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cavis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
