"""The notebook of the embedding space as a student meets it: in JupyterLab, in a browser."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).parents[2]
PATIENCE = 600_000
"""Milliseconds; a loaded machine needs them, an idle one does not."""

SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells exist even where they are not in view
    "apputils-extension/notification": {"fetchNews": "false"},
}

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where JupyterLab serves a copy of the notebooks; its settings are its own."""
    folder = tmp_path_factory.mktemp("lab")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, folder)
    for name, values in SETTINGS.items():
        file = folder / ".SETTINGS" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(folder / f".{name}") for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / f".{name}") for name in ("SETTINGS", "WORKSPACES")}
    options = (f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--notebook-dir={folder}")
    log = (folder / "log.txt").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *options],
        env={**os.environ, **own, "CAVIS_FAST": "1", "PYTHONPATH": str(ROOT)},
        stdout=log,
        stderr=log,
    )
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"http://127.0.0.1:{port}/api"):
            assert server.poll() is None, (folder / "log.txt").read_text()
            assert time.monotonic() < deadline, "JupyterLab did not start within two minutes"
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/lab/tree/"
    finally:
        server.terminate()
        server.wait(60)
        log.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def run_all(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


def lasso(page: Page, number: int) -> None:
    """Draw around the left half of a map."""
    plot = page.locator(".cavis-plot").nth(number)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    corners = [(0.02, 0.02), (0.5, 0.02), (0.5, 0.98), (0.02, 0.98), (0.02, 0.1)]
    places = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def test_a_lasso_in_one_map_lights_up_the_other_and_the_player_follows(browser: Browser, lab: str):
    page = browser.new_page(viewport={"width": 1300, "height": 1100})
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    run_all(page, lab + "04_embedding_space.ipynb")
    page.locator(".cavis-player[data-shown='0']").first.wait_for()
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=PATIENCE)
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
    status = page.locator(".cavis-map .cavis-status")
    before = page.locator(".cavis-plot").nth(1).screenshot()
    lasso(page, 0)
    chosen = re.compile(r"^[1-9]\d* of \d+ selected$")
    for number in (0, 1):
        expect(status.nth(number)).to_have_text(chosen, timeout=PATIENCE)
    assert status.nth(0).inner_text() == status.nth(1).inner_text()
    assert page.locator(".cavis-plot").nth(1).screenshot() != before
    player = page.locator(".cavis-player").first
    expect(player.locator(".cavis-hint")).to_have_text(re.compile(r"^[1-9]\d* of \d+ tracks selected$"))
    player.locator(".cavis-lanes button").first.click()
    expect(player.locator(".cavis-hint")).to_have_text(re.compile("^1 of "))
    for number in (0, 1):
        expect(status.nth(number)).to_have_text(chosen)
    lasso(page, 2)  # one of the three methods of Figure 4: the other two and the player of true objects follow
    for number in (2, 3, 4):
        expect(status.nth(number)).to_have_text(chosen, timeout=PATIENCE)
    expect(page.locator(".cavis-player .cavis-hint").nth(1)).to_have_text(re.compile(r"^[1-9]\d* of "))
    assert errors == []
    page.close()
