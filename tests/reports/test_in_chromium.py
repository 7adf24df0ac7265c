"""What a reader sees of a report, in a browser, where there is one."""

import io

import numpy as np
import pytest
from PIL import Image

import cardiacreg

pytest.importorskip("k3d", reason="k3d is not installed")
WIDTHS = (1280, 400)
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def page(tiny_result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    es = tiny_result.save(folder / "es")
    return cardiacreg.write_report(tiny_result, folder / "report.html", es_result=es)


@pytest.fixture
def opened(browser, page):
    """The page anew; the driver may come back before all of it is there."""
    at_width(browser, WIDTHS[0])
    browser.get("about:blank")
    browser.get(page.as_uri())
    waiting(
        browser, "return document.readyState == 'complete' && !!document.getElementById('view')"
    )
    return browser


def waiting(browser, script):
    """Wait until a script gives something."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, PATIENCE_SECONDS).until(lambda b: b.execute_script(script))


def at_width(browser, width):
    """Show the page as on a screen of some width, in CSS pixels."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


@pytest.fixture
def drawn(opened):
    """The page with its view loaded."""
    opened.execute_script("document.getElementById('surfaces').scrollIntoView()")
    waiting(opened, "return document.getElementById('viewer').dataset.ready")
    return opened


def picture(browser):
    """Pixels of the view, after it had time to draw."""
    browser.execute_async_script(
        "const done = arguments[0]; setTimeout(() => requestAnimationFrame(() => done()), 700);"
    )
    png = browser.find_element("id", "view").screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def differ(first, second):
    """Share of the pixels that changed."""
    return float((np.abs(first - second).max(axis=-1) > 12).mean())


def set_value(browser, selector, value, event):
    browser.execute_script(
        "const found = document.querySelector(arguments[0]); found.value = arguments[1];"
        "found.dispatchEvent(new Event(arguments[2], {bubbles: true}));",
        selector, value, event,
    )  # fmt: skip


def test_no_error_is_on_the_console(drawn):
    assert [line for line in drawn.get_log("browser") if line["level"] != "INFO"] == []


def test_nothing_is_fetched(drawn):
    names = drawn.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in names if not name.startswith(("data:", "blob:"))] == []


def test_the_view_is_not_blank(drawn):
    seen = picture(drawn)
    assert (seen.min(axis=-1) < 200).mean() > 0.05
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize(
    ("selector", "value", "event"),
    [
        ("[data-layer='1']", "0", "input"),
        ("[data-layer='4']", "1", "input"),
        ("#plane", "from the front", "change"),
    ],
)
def test_controls_change_the_view(drawn, selector, value, event):
    before = picture(drawn)
    set_value(drawn, selector, value, event)
    assert differ(before, picture(drawn)) > 0.005


def test_a_cut_goes_deeper_with_its_slider(drawn):
    set_value(drawn, "#plane", "from the base", "change")
    set_value(drawn, "#level", "0.2", "input")
    before = picture(drawn)
    set_value(drawn, "#level", "0.7", "input")
    after = picture(drawn)
    assert (after.min(axis=-1) < 200).mean() < 0.8 * (before.min(axis=-1) < 200).mean()


def test_buttons_turn_the_heart(drawn):
    before = picture(drawn)
    drawn.find_element("css selector", "[data-camera='apex']").click()
    assert differ(before, picture(drawn)) > 0.02


def test_the_frame_is_named_and_plays(drawn):
    title = drawn.find_element("id", "frame-title")
    assert title.text == "end-diastole"
    drawn.find_element("id", "play").click()
    named = "return document.getElementById('frame-title').textContent == 'end-systole'"
    waiting(drawn, named)
    button = drawn.find_element("id", "play")
    assert button.text == "Pause" and button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.text == "Play"


def test_controls_work_by_keyboard(drawn):
    from selenium.webdriver.common.keys import Keys

    slider = drawn.find_element("css selector", "[data-layer='2']")
    before = float(slider.get_attribute("value"))
    drawn.execute_script("arguments[0].focus()", slider)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert float(slider.get_attribute("value")) == pytest.approx(before + 0.05)
    opacity = "return document.getElementById('view').contentWindow.K3DInstance.then("
    opacity += "k => k.getWorld().ObjectsListJson[2].opacity)"
    assert drawn.execute_script(opacity) == pytest.approx(before + 0.05)


def test_every_control_has_a_name(opened):
    for control in opened.find_elements("css selector", "input, select, button, iframe"):
        assert control.accessible_name, control.get_attribute("outerHTML")[:200]


def test_the_first_stop_of_the_keyboard_skips_to_the_content(opened):
    from selenium.webdriver.common.keys import Keys

    opened.find_element("css selector", "body").send_keys(Keys.TAB)
    focused = opened.switch_to.active_element
    assert focused.text == "Skip to the content"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(opened, width):
    at_width(opened, width)
    sizes = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    wide, seen = opened.execute_script(sizes)
    assert wide <= seen <= width


WIDER_THAN_SEEN = """
return [...document.querySelectorAll("main *")]
  .filter(each => each.scrollWidth > each.clientWidth + 1
    && ["auto", "scroll"].includes(getComputedStyle(each).overflowX))
  .map(each => ({kind: each.className, hint: getComputedStyle(each, "::before").content,
    shade: getComputedStyle(each).backgroundImage}))
"""


def test_what_is_wider_says_so_and_on_a_wide_screen_nothing_is(opened):
    at_width(opened, WIDTHS[1])
    wider = opened.execute_script(WIDER_THAN_SEEN)
    assert {each["kind"] for each in wider} == {"broad", "wide"}
    for each in wider:
        told = "scroll sideways" in each["hint"] if each["kind"] == "broad" else each["shade"]
        assert told and told != "none", each
    hints = (
        "return [...document.querySelectorAll('.broad')].map(e => e.scrollWidth > e.clientWidth)"
    )
    assert all(opened.execute_script(hints)), "nothing asks to scroll where there is nothing more"
    at_width(opened, WIDTHS[0])
    assert opened.execute_script(WIDER_THAN_SEEN) == []
    hint = "return getComputedStyle(document.querySelector('.broad'), '::before').content"
    assert opened.execute_script(hint) == "none"


def test_a_hint_to_scroll_stays_in_sight_and_leaves_no_trace_in_print(opened):
    at_width(opened, WIDTHS[1])
    hint = "return getComputedStyle(document.querySelector('.broad'), '::before')"
    assert opened.execute_script(f"{hint}.position") == "sticky"
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert opened.execute_script(f"{hint}.content") == "none"
        shade = "return getComputedStyle(document.querySelector('.wide')).backgroundImage"
        assert opened.execute_script(shade) == "none"
        widths = "const p = document.querySelector('.broad'); return [p.scrollWidth, p.clientWidth]"
        wide, seen = opened.execute_script(widths)
        assert wide <= seen
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_every_picture_is_drawn(opened):
    pictures = opened.find_elements("css selector", "img")
    assert len(pictures) >= 6
    for each in pictures:
        assert opened.execute_script("return arguments[0].naturalWidth", each) > 0
        assert each.size["width"] > 0


def test_links_lead_to_their_sections(opened):
    for link in opened.find_elements("css selector", "nav a"):
        target = link.get_attribute("href").rpartition("#")[2]
        assert opened.find_elements("id", target), target


def test_a_print_has_the_pictures_without_the_controls(opened):
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        shown = "return getComputedStyle(document.querySelector(arguments[0])).display"
        assert opened.execute_script(shown, "#surfaces") == "none"
        assert opened.execute_script(shown, "nav") == "none"
        assert opened.execute_script(shown, "figure img") != "none"
        pdf = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
        assert len(pdf["data"]) > 50_000
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
