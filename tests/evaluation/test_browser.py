"""The report in a real headless browser: pointing, clicking, dragging, narrow and dark. Skipped where there is none."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from latentzip.evaluation import Signal, evaluate

PIXELS = "n => [...n.getContext('2d').getImageData(0, 0, n.width, n.height).data]"
SIZE = "n => [n.width, n.height]"
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("LATENTZIP_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as p:
        try:
            browser = p.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser starts here: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory, picture, sound):
    """Two pictures, one wider than it is high, and a sound."""
    for package in ("scipy", "soundfile"):
        pytest.importorskip(package)
    inputs = [Signal("soft.png", "image", picture(0)), Signal("steep.png", "image", picture(1, 160, 96))]
    inputs.append(Signal("chord.wav", "audio", sound(2.0), 16000))
    codecs = ["walloc-rgb-linear@20,50,80", "jpeg@20,50,90", "webp@30,80", "opus@16,32", "mp3@32,64"]
    result = evaluate(inputs, codecs, metrics=["psnr", "snr", "log_mel"], threads=1)
    return result.write_report(tmp_path_factory.mktemp("browser") / "report.html")


@pytest.fixture
def page(browser, report):
    """The report, open; complaints and requests to anywhere fail the test."""
    opened = []

    def start(width=1200, height=900, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        page = context.new_page()
        page.on("console", lambda m: trouble.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: trouble.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith(("data:", "file:")) else trouble.append(r.url))
        page.goto(report.as_uri())
        page.wait_for_selector(".curves circle")
        opened.append(context)
        return page

    trouble: list[str] = []
    yield start
    for context in opened:
        context.close()
    assert trouble == []


def test_curves_answer_to_the_pointer(page):
    page = page()
    curves = page.locator(".curves").first
    dot = curves.locator('circle[data-codec="walloc-rgb-linear"]').nth(1)
    dot.hover()
    tip = curves.locator(".tip")
    assert "walloc-rgb-linear q50" in tip.inner_text()
    assert "PSNR" in tip.inner_text()
    assert "muted" in (curves.locator('path[data-codec="jpeg"]').get_attribute("class") or "")
    curves.locator(".legend").hover(position={"x": 2, "y": 2})
    assert not tip.is_visible()
    curves.get_by_role("button", name="webp", exact=True).click()
    assert curves.locator('path[data-codec="webp"]').count() == 0
    assert curves.locator('path[data-codec="jpeg"]').count() == 1


def test_one_picture_has_its_own_curve(page):
    page = page()
    path = page.locator('.curves path[data-codec="jpeg"]').first
    before = path.get_attribute("d")
    page.locator("section").first.locator("select").select_option(label="steep.png")
    assert path.get_attribute("d") != before


def test_savings_follow_the_anchor(page):
    page = page()
    section = page.locator("section", has=page.get_by_role("heading", name="What it saves")).first
    assert "webp" in section.locator(".bars").inner_text()
    assert "jpeg" not in section.locator(".bars").inner_text()
    section.locator("select").select_option("webp")
    assert "jpeg" in section.locator(".bars").inner_text()


def test_table_sorts_by_numbers(page):
    page = page()
    table = page.locator("table").first

    def column(name):
        keys = table.locator("thead th").evaluate_all("nodes => nodes.map((n) => n.dataset.key)")
        cells = table.locator(f"tbody td:nth-child({keys.index(name) + 1})").all_inner_texts()
        return [float(c) for c in cells]

    table.get_by_role("button", name="PSNR").click()
    assert table.locator('th[data-key="psnr"]').get_attribute("aria-sort") == "ascending"
    up = column("psnr")
    assert up == sorted(up)
    assert len(up) == 8
    table.get_by_role("button", name="PSNR").click()
    assert column("psnr") == up[::-1]
    page.get_by_role("button", name="file by file").first.click()
    assert table.locator("tbody tr").count() == 16


def test_divider_is_dragged_and_moved_by_keys(page):
    page = page()
    box = page.locator(".stagebox")
    box.scroll_into_view_if_needed()
    divider = page.get_by_role("slider")
    frame, at = box.bounding_box(), divider.bounding_box()
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 3)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.25, at["y"] + 40, steps=4)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "25"
    clip = page.locator(".pane.b").evaluate("n => getComputedStyle(n).clipPath")
    assert float(clip.split("px")[3]) == pytest.approx(frame["width"] * 0.25, abs=2)
    divider.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "27"
    divider.press("Home")
    assert divider.get_attribute("aria-valuenow") == "0"


def test_zoom_and_pan(page):
    page = page()
    box = page.locator(".stagebox")
    box.scroll_into_view_if_needed()
    fit = float(box.get_attribute("data-zoom"))
    page.get_by_role("button", name="Zoom in").click()
    assert float(box.get_attribute("data-zoom")) == pytest.approx(2 * fit, rel=1e-2)
    stages = page.locator(".stage")
    place = "n => new DOMMatrix(getComputedStyle(n).transform).e"
    before = stages.first.evaluate(place)
    frame = box.bounding_box()
    page.mouse.move(frame["x"] + 60, frame["y"] + 80)
    page.mouse.down()
    page.mouse.move(frame["x"] + 100, frame["y"] + 90, steps=3)
    page.mouse.up()
    assert stages.first.evaluate(place) == pytest.approx(before + 40, abs=1)
    assert stages.nth(1).evaluate(place) == pytest.approx(before + 40, abs=1)
    page.get_by_role("button", name="1 : 1").click()
    assert box.get_attribute("data-zoom") == "1.000"
    assert stages.first.evaluate(place) == pytest.approx((frame["width"] - 128) / 2, abs=1)
    page.get_by_role("button", name="fit").click()
    assert float(box.get_attribute("data-zoom")) == pytest.approx(fit)


def test_sides_show_what_was_chosen(page):
    page = page()
    side = page.locator(".side").first
    side.locator("select").select_option(label="original")
    assert "96" in side.locator(".facts").inner_text()
    shown = page.locator(".pane.a img")
    assert shown.get_attribute("alt") == "soft.png, original"
    assert shown.evaluate("async n => { await n.decode(); return [n.naturalWidth, n.naturalHeight]; }") == [128, 96]
    page.locator(".viewer .bar2 select").select_option(label="steep.png")
    assert page.locator(".pane.b img").get_attribute("alt").startswith("steep.png through walloc-rgb-linear")


def test_maps_are_painted_on_one_scale(page):
    page = page()
    viewer = page.locator(".viewer")
    viewer.get_by_role("button", name="error").click()
    canvas = viewer.locator(".pane.a canvas")
    assert canvas.evaluate(SIZE) == [16, 12]
    assert max(canvas.evaluate(PIXELS)[0::4]) > 200
    assert "8-bit steps" in viewer.locator(".scale").inner_text()
    viewer.get_by_role("button", name="rate").click()
    assert viewer.locator(".pane.b canvas").evaluate(SIZE) == [2, 2]
    assert not viewer.locator(".pane.a canvas").is_visible()  # jpeg does not say where its bits are
    assert "conventional files do not say" in viewer.locator(".scale").inner_text()
    viewer.get_by_role("button", name="picture").click()
    assert not viewer.locator(".scale").is_visible()


def test_player_keeps_the_place(page):
    page = page()
    player = page.locator(".player")
    player.scroll_into_view_if_needed()
    frame = player.locator(".spec").bounding_box()
    player.locator(".spec").click(position={"x": frame["width"] / 2, "y": 20})
    audio = player.locator("audio")
    assert audio.evaluate("n => n.currentTime") == pytest.approx(1, abs=0.05)
    player.get_by_role("button", name="opus 32 kbit/s").click()
    loaded = "n => n.readyState >= 2 || new Promise((done) => n.addEventListener('loadeddata', () => done(true)))"
    assert audio.evaluate(loaded)
    assert audio.evaluate("n => n.currentTime") == pytest.approx(1, abs=0.05)
    assert audio.evaluate("n => n.duration") == pytest.approx(2, abs=0.01)
    sound = np.array(player.locator(".spec canvas").evaluate(PIXELS))
    player.get_by_role("button", name="error").click()
    page.wait_for_timeout(100)
    error = np.array(player.locator(".spec canvas").evaluate(PIXELS))
    assert sound.shape == error.shape
    assert (sound != error).any()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(page, scheme):
    page = page(scheme=scheme)
    lightness = (
        "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    )
    assert (page.evaluate(lightness) > 400) == (scheme == "light")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert (page.evaluate(lightness) > 400) == (scheme == "dark")


def test_a_phone_shows_all_of_it(page):
    page = page(width=360, height=740, has_touch=True, is_mobile=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".curves").first.locator('circle[data-codec="jpeg"]').first.tap()
    tip = page.locator(".tip").first.bounding_box()
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= 360
