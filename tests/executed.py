"""Where executed notebooks are kept, for those who want to read them without a kernel."""

import os
from pathlib import Path

import nbformat


def keep_executed(notebook: nbformat.NotebookNode, name: str) -> None:
    """Write an executed notebook into the folder that CAVIS_EXECUTED names, if it names one."""
    if folder := os.environ.get("CAVIS_EXECUTED"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, Path(folder) / f"{name}.ipynb")
