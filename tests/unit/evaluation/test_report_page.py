"""The report in a real browser, opened from the disk, wide and on a phone, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from pillsnap.evaluation.report import write_report
from pillsnap.gates.comparison_page import write_comparison
from tests.unit.evaluation.report_case import build_experiment
from tests.unit.evaluation.report_findings import add_findings

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.req("RPT-1"),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs a browser: apt-get install chromium chromium-driver",
    ),
]

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the addresses of a run that nobody judged, of one that was judged and tested, and of their comparison."""
    runs = tmp_path_factory.mktemp("runs")
    bare = build_experiment(runs / "실험 01")
    judged = add_findings(shutil.copytree(bare, runs / "judged"), final_test=True)
    paths = {
        "bare": write_report(bare),
        "judged": write_report(judged),
        "comparison": write_comparison(bare, judged)[0],
    }
    return {name: path.as_uri() for name, path in paths.items()}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(executable_path=str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(params=["bare", "judged", "comparison"])
def browser(request: pytest.FixtureRequest, driver: webdriver.Chrome, pages: dict[str, str]) -> webdriver.Chrome:
    """Return a browser that shows a page with all that is folded away unfolded."""
    driver.get(pages[request.param])
    driver.execute_script("document.querySelectorAll('details').forEach(element => { element.open = true; })")
    return driver


def set_screen(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_the_page_opens_from_disk_with_its_figures(driver: webdriver.Chrome, pages: dict[str, str]) -> None:
    driver.get(pages["bare"])
    assert driver.current_url.startswith("file://")
    shown = [element.text for element in driver.find_elements(By.CSS_SELECTOR, "#figures .value")]
    assert shown == ["96.2%", "0.934"]
    assert driver.find_element(By.CSS_SELECTOR, "#figures .split").text.startswith("Test split")
    assert driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"


@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "wide"])
def test_the_verdict_is_seen_without_scrolling(driver: webdriver.Chrome, pages: dict[str, str], width: int) -> None:
    driver.get(pages["judged"])
    set_screen(driver, width, "light")
    verdict = driver.find_element(By.CSS_SELECTOR, ".verdict h2")
    assert verdict.text == "No-go"
    assert verdict.rect["y"] + verdict.rect["height"] < 300


def test_a_bar_is_as_long_as_its_target_is_met(driver: webdriver.Chrome, pages: dict[str, str]) -> None:
    driver.get(pages["judged"])
    set_screen(driver, 1280, "light")
    shares = driver.execute_script(BARS)
    assert shares[:4] == pytest.approx([1.0, 0.95, 0.24, 0.0], abs=0.02)


def test_every_picture_is_loaded(browser: webdriver.Chrome) -> None:
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert min(widths) > 0


def test_the_console_is_silent(browser: webdriver.Chrome) -> None:
    browser.refresh()
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_nothing_was_asked_from_a_network(browser: webdriver.Chrome) -> None:
    names = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in names if not name.startswith(("data:", "file:"))] == []


@pytest.mark.parametrize("width", [360, 390, 1280], ids=["small phone", "phone", "wide"])
def test_the_page_never_scrolls_sideways(browser: webdriver.Chrome, width: int) -> None:
    set_screen(browser, width, "light")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(browser: webdriver.Chrome, scheme: str) -> None:
    set_screen(browser, 1280, scheme)
    ratios = browser.execute_script(CONTRASTS)
    assert len(ratios) > 30
    assert min(ratios) >= 4.5  # WCAG AA


# How much of each target's bar is filled.
BARS = """
return [...document.querySelectorAll('#gate .bar')].map(
  bar => bar.firstElementChild.getBoundingClientRect().width / bar.clientWidth);
"""

# Contrast ratio (WCAG 2) of every element that has text of its own, against the nearest opaque background.
CONTRASTS = """
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const light = colour => numbers(colour).slice(0, 3).map(value => value / 255)
  .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
const background = element => {
  for (let node = element; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (numbers(colour)[3] !== 0) return colour;
  }
  return 'rgb(255, 255, 255)';
};
return [...document.body.querySelectorAll('*')]
  .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
  .map(element => {
    const [a, b] = [light(getComputedStyle(element).color), light(background(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
"""
