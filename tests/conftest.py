"""What all tests share. Nothing of cavis is imported here, so that shape checking can be switched on first."""

import os
import shutil
import sys
from collections.abc import Iterator
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Chromium the browser tests cannot run; where CI is set that is a failure, not a skip."""
    if shutil.which("chromium") or os.environ.get("CI") == "true":
        return
    skip = pytest.mark.skip(reason="the browser tests need Chromium on the path (apt-get install chromium)")
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(skip)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Debian's Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "the browser tests need Chromium on the path (apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()
