"""Serving the page."""

import atexit
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from cavis.checkpoints.hub import load_model
from cavis.demo.examples import Shelf
from cavis.demo.jobs import JobStore
from cavis.demo.limits import DemoLimits
from cavis.demo.models import Models
from cavis.demo.page import build_page, css, theme
from cavis.demo.tracking import Tracker
from cavis.presets import DEFAULT_MODEL


def make_page(model: str = DEFAULT_MODEL, device: str = "auto", limits: DemoLimits = DemoLimits()) -> gr.Blocks:  # noqa: B008
    """Load the model to begin with and build the page around it.

    A CheckpointError if there is no such model, a DownloadError if it could not be fetched.
    """
    tracker = Tracker(Models(load_model(model, device), downloads=limits.downloads), limits)
    # Inside gradio's own folder files are served from where they are, not copied: deleted means gone.
    store = JobStore(Path(get_upload_folder()) / "cavis-jobs", limits)
    atexit.register(store.close)
    return build_page(tracker, store, Shelf())


def serve(page: gr.Blocks, host: str = "127.0.0.1", port: int | None = None, **options: Any) -> tuple[Any, str, str]:
    """Serve the page at ``host``, to this computer only unless told otherwise; ``options`` go to ``Blocks.launch``."""
    settings: dict[str, Any] = {
        "server_name": host,
        "server_port": port,
        "share": False,
        "theme": theme(),
        "css": css(),
        "max_file_size": f"{DemoLimits().megabytes}mb",
        "footer_links": ["api"],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "show_error": True,
    }
    return page.launch(**settings | options)
