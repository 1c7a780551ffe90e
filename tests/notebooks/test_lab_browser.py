"""A student in JupyterLab: run everything, press Train, watch the loss, press Stop."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
PATIENCE = 180_000
"""Milliseconds; a loaded machine needs them, an idle one does not."""
pytestmark = [pytest.mark.slow, pytest.mark.browser]
needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None and os.environ.get("CI") != "true",
    reason="the browser tests need Chromium on the path (apt-get install chromium)",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where ``cavis lab`` of an installed package serves its copies of the notebooks; a lesson has a hundred steps."""
    folder = tmp_path_factory.mktemp("lab")
    site = folder / "site"
    packed = site / "cavis" / "assets" / "lab"
    shutil.copytree(ROOT / "cavis", site / "cavis", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks", packed, ignore=shutil.ignore_patterns("*.py", "runs", ".ipynb_checkpoints"))
    shutil.copytree(ROOT / "widgets", packed / "widgets", ignore=shutil.ignore_patterns("__pycache__"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "CAVIS_FAST": "1",
        "CAVIS_STEPS": "100",
        "CAVIS_RUNS": str(folder / "runs"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
    }
    command = [sys.executable, "-m", "cavis", "lab", "--no-browser", "--port", str(port)]
    options = ["--folder", str(folder / "mine"), "--allow-root", "--IdentityProvider.token=", "--LabApp.news_url="]
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen([*command, *options], cwd=folder, env=environment, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 120
            while not _answers(url):
                assert server.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < deadline, "JupyterLab did not start within two minutes"
                time.sleep(0.5)
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


def run_all(browser: Browser, address: str, name: str) -> Page:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}/lab/tree/{name}.ipynb?reset")
    # Before the kernel is there JupyterLab runs nothing, and does not say so.
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=PATIENCE)
    page.wait_for_timeout(4000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*1]\]")).first).to_be_visible(timeout=PATIENCE)
    return page


def losses(page: Page) -> int:
    """The step the panel has come to."""
    text = page.locator(".tp-facts").first.inner_text().split()
    return int(text[text.index("step") + 1]) if "step" in text else 0


@needs_chromium
def test_a_student_trains_watches_the_loss_and_stops(browser: Browser, address: str, tmp_path: Path):
    page = run_all(browser, address, "03_train_the_stages")
    train = page.get_by_role("button", name="Train").first
    train.click()
    expect(page.get_by_role("button", name="Stop").first).to_be_enabled(timeout=PATIENCE)
    expect(train).to_be_disabled()
    chart = page.locator("svg.tp-chart").first
    expect(chart).to_be_visible(timeout=PATIENCE)
    first = chart.inner_html()
    page.wait_for_function(
        "before => document.querySelector('svg.tp-chart').innerHTML !== before && "
        "document.querySelector('svg.tp-chart polyline').getAttribute('points').split(' ').length >= 3",
        arg=first,
    )
    page.locator(".tp-chart").first.hover()
    expect(page.locator(".tp-read").first).to_contain_text("loss")
    expect(page.locator(".tp-parts").first).to_contain_text("✎ learns")
    assert losses(page) >= 3
    page.get_by_role("button", name="Stop").first.click()
    expect(page.locator(".tp-facts").first).to_contain_text("Stopped; kept in", timeout=PATIENCE)
    expect(train).to_be_enabled()
    if folder := os.environ.get("CAVIS_SCREENSHOTS"):
        page.locator("svg.tp-chart").first.scroll_into_view_if_needed()
        page.screenshot(path=f"{folder}/train.png")
    page.close()


@needs_chromium
def test_a_student_explores_the_context_filter_with_the_keyboard(browser: Browser, address: str):
    page = run_all(browser, address, "02_context_filters")
    picture = page.locator(".cfl-picture").first
    expect(picture).to_be_visible(timeout=PATIENCE)
    words = page.locator(".cfl-read").first
    expect(words).to_contain_text("Lap = 8 × 1", timeout=PATIENCE)
    before = words.inner_text()
    picture.focus()
    page.keyboard.press("ArrowLeft")
    expect(words).not_to_have_text(before)
    expect(page.locator(".cfl figcaption").nth(4)).to_have_text("4 · Avg(F), 9 × 9")
    page.locator(".widget-slider .noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".cfl figcaption").nth(4)).to_have_text("4 · Avg(F), 11 × 11", timeout=PATIENCE)
    page.close()


@needs_chromium
def test_a_student_goes_through_a_clip_frame_by_frame(browser: Browser, address: str):
    page = run_all(browser, address, "01_track_a_clip")
    player = page.locator(".cavis-player").first
    expect(player).to_have_attribute("data-shown", "0", timeout=PATIENCE)
    player.get_by_role("application").focus()
    page.keyboard.press("ArrowRight")
    expect(player).to_have_attribute("data-shown", "1", timeout=PATIENCE)
    player.locator(".cavis-lanes button").first.click()
    expect(player.locator(".cavis-hint")).to_contain_text("1 of")
    page.close()


@needs_chromium
def test_a_student_trains_the_arms_of_a_table_and_stops(browser: Browser, address: str):
    page = run_all(browser, address, "05_ablations")
    page.get_by_role("button", name="Train").first.click()
    facts = page.locator(".tp-facts").first
    expect(facts).to_contain_text("arm 1 of 2: tracker as it is", timeout=PATIENCE)
    expect(page.locator("svg.tp-chart").first).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Stop").first.click()
    expect(facts).to_contain_text("Stopped; kept in", timeout=PATIENCE)
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=PATIENCE)  # of the runs that came with it
    page.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/lab", timeout=2, follow_redirects=True).status_code == 200
    except httpx.HTTPError:
        return False
