"""What a visitor does, in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from cavis.data.synthetic import TwinsClip, TwinsConfig
from cavis.video import VideoWriter

pytestmark = pytest.mark.browser
PATIENCE = 60_000
"""Milliseconds; a loaded machine needs them, an idle one does not."""


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    expect(page.locator("h1")).to_contain_text("Follow every object", timeout=PATIENCE)
    yield page
    page.close()


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 frames of the twins' world, there and back."""
    config = TwinsConfig(frames=24)
    frames = [TwinsClip(7, config).render(t)[0] for t in range(24)]
    path = tmp_path_factory.mktemp("twins") / "twins.mp4"
    with VideoWriter(path, config.height, config.width, fps=12) as writer:
        for t in range(240):
            writer.write(frames[abs(t % 46 - 23)])
    return path


def upload(page: Page, file: Path) -> None:
    page.locator("#upload input[type=file]").set_input_files(file)


def set_number(page: Page, part: str, number: str) -> None:
    field = page.locator(f"{part} input[type=number]")
    field.fill(number)
    field.press("Enter")


def test_an_example_plays_and_can_be_looked_at(page: Page):
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2] if "://" in request.url else ""))
    page.click("#example-crossing")
    page.wait_for_function("document.querySelector('#tracked video')?.readyState >= 2")
    page.wait_for_function("document.querySelector('#tracked video').currentTime > 0.2")
    image = page.locator("#frame-picture img")
    first = image.get_attribute("src")
    set_number(page, "#frame", "20")
    expect(image).not_to_have_attribute("src", first, timeout=PATIENCE)
    set_number(page, "#min-score", "0")
    expect(page.locator("#tracks tbody tr")).not_to_have_count(0, timeout=PATIENCE)
    rows = page.locator("#tracks tbody tr").count()
    page.locator("#kinds input").first.uncheck()
    expect(page.locator("#tracks tbody tr")).not_to_have_count(rows, timeout=PATIENCE)
    page.locator("#kinds input").first.check()
    expect(page.locator("#tracks tbody tr")).to_have_count(rows, timeout=PATIENCE)
    set_number(page, "#min-score", "1")
    expect(page.locator("#tracks table")).to_have_count(0, timeout=PATIENCE)
    expect(page.locator("#tracks")).to_contain_text("Move “Lowest score to show” down")
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+|", host) for host in hosts)


def test_an_upload_is_tracked_after_one_that_was_refused(page: Page, tmp_path: Path, clip: Path):
    garbage = tmp_path / "garbage.mp4"
    garbage.write_text("This is not a video.")
    upload(page, garbage)
    expect(page.locator("#choose-note")).to_contain_text("is a text file, not a video", timeout=PATIENCE)
    expect(page.locator("#track")).to_be_hidden()
    upload(page, clip)
    expect(page.locator("#choose-note")).to_contain_text("20 frames", timeout=PATIENCE)
    expect(page.locator("#part-note")).to_contain_text("→ 20 frames")
    page.click("#track")
    page.wait_for_function("document.querySelector('#tracked video')?.readyState >= 2")
    with page.expect_download() as download:
        page.click("#get-tracks")
    assert download.value.path().read_text().startswith("frame,time,track")


def test_cancel_ends_the_work_and_the_page_is_ready_again(page: Page, twins: Path):
    upload(page, twins)
    expect(page.locator("#choose-note")).to_contain_text("240 frames", timeout=PATIENCE)
    page.click("#track")
    expect(page.locator("#progress")).to_contain_text("frames a second", timeout=PATIENCE)
    expect(page.locator("#preview img")).to_be_visible(timeout=PATIENCE)
    page.click("#cancel")
    expect(page.locator("#run-note")).to_contain_text("Stopped", timeout=PATIENCE)
    expect(page.locator("#cancel")).to_be_hidden()
    expect(page.locator("#track")).to_be_enabled()
    expect(page.locator("#progress")).to_be_hidden()


def choose_model(page: Page, name: str) -> None:
    page.click("#model input")
    page.get_by_role("option", name=re.compile(rf"^{name} ")).click()


def test_a_published_model_is_downloaded_with_one_click_and_used(browser: Browser, shop: str):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(shop)
    page.click("#example-crossing")
    expect(page.locator("#results")).to_contain_text("Computed beforehand", timeout=PATIENCE)
    expect(page.locator("#model input")).to_have_value(re.compile("^lite "))
    choose_model(page, "nano · online")
    expect(page.locator("#model-note")).to_contain_text("not on this computer yet", timeout=PATIENCE)
    expect(page.locator("#part-note")).to_contain_text("download it first")
    expect(page.locator("#track")).to_be_disabled()
    page.click("#model-note summary")
    expect(page.locator("#model-note")).to_contain_text("CC BY-NC 4.0")
    expect(page.locator("#model-note")).to_contain_text("@misc{lee2024cavis")
    page.click("#download")
    expect(page.locator("#track")).to_be_enabled(timeout=PATIENCE)
    expect(page.locator("#download")).to_be_hidden()
    expect(page.locator("#stop-download")).to_be_hidden()
    expect(page.locator("#model input")).to_have_value(
        re.compile(r"^nano · online · AP 0\.376 · people, animals, vehicles in crowds, 3 kinds$")
    )
    page.click("#track")
    expect(page.locator("#results")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#results")).not_to_contain_text("Computed beforehand")
    set_number(page, "#min-score", "0")
    expect(page.locator("#tracks tbody th").first).to_contain_text(re.compile("red|green|blue"), timeout=PATIENCE)
    page.reload()
    expect(page.locator("#model input")).to_have_value(re.compile("^lite "), timeout=PATIENCE)
    choose_model(page, "nano · online")
    expect(page.locator("#model-note")).not_to_contain_text("not on this computer", timeout=PATIENCE)
    page.close()


def test_a_model_that_cannot_be_fetched_is_answered_with_a_sentence(browser: Browser, shop: str):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(PATIENCE)
    page.goto(shop)
    choose_model(page, "nano_unreachable")
    page.click("#download")
    note = page.locator("#download-note")
    expect(note).to_contain_text("the server cannot be reached", timeout=PATIENCE)
    assert len(note.inner_text().strip().splitlines()) == 1
    expect(page.locator("#download")).to_be_visible()
    expect(page.locator("#stop-download")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


WIDTHS = """texts => {
    const box = document.querySelector("#model input"), style = getComputedStyle(box);
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = style.font;
    const room = box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return texts.map(text => [text, pen.measureText(text).width, room]);
}"""
"""How wide texts are in the box of the chosen model, and how much room they have there."""


def test_a_phone_shows_how_good_each_released_model_is(browser: Browser, shop: str):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(shop)
    page.click("#model input")
    lines = page.get_by_role("option").all_inner_texts()
    titles = [found[0] for line in lines if (found := re.search(r"\w+ · (online|offline) · \w+ [\d.]+", line))]
    assert len(titles) >= 16
    for title, width, room in page.evaluate(WIDTHS, titles):
        assert width <= room, title
    page.close()


def test_a_phone_shows_the_page_without_scrolling_sideways(browser: Browser, address: str):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    page.click("#example-crowd")
    expect(page.locator("#tracked video")).to_be_visible(timeout=PATIENCE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
