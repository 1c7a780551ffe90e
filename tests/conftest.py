"""What all tests share. Nothing of cavis is imported here, so that shape checking can be switched on first."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported, here and in child processes. The models are so small that a second thread gains nothing,
# and on a busy machine threads that wait for each other cost ten times the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))  # `import nano`

settings.register_profile("cavis", deadline=None, derandomize=True)
settings.load_profile("cavis")


@pytest.fixture
def temporary_folder(tmp_path, monkeypatch):
    """Where temporary files of this process go during a test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path
