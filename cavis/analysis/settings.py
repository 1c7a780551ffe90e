"""How long the notebooks may take."""

import os


def fast() -> bool:
    """Whether sizes are to be small enough for a test: the environment variable ``CAVIS_FAST`` is 1."""
    return os.environ.get("CAVIS_FAST") == "1"
