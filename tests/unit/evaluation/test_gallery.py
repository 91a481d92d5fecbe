"""The gallery's content, and the page in a real browser, opened from the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from pillsnap.cli.main import main
from pillsnap.data.images import RgbImage
from pillsnap.data.selection_file import write_selection
from pillsnap.data.twostage import TwoStageData
from pillsnap.errors import PillError
from pillsnap.evaluation.gallery import write_gallery
from pillsnap.evaluation.hard_cases import collect_hard_cases
from pillsnap.inference.hard_case import HardCase
from pillsnap.inference.hard_cases import HardCaseOptions, HardCases, note_answer
from tests.unit.evaluation.hard_cases_case import KNOWN, build_data, config_of, table_of
from tests.unit.evaluation.test_report_page import CHROMIUM, CONTRASTS, DRIVER, FLAGS, set_screen

pytestmark = pytest.mark.req("DAT-6")

in_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs a browser: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TwoStageData:
    return build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def exp_dir(data: TwoStageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an experiment with cases of all kinds."""
    folder = tmp_path_factory.mktemp("runs") / "실험 <1>"
    folder.mkdir()
    data.class_map.save(folder / "class_map.json")
    tables = {split: table_of(data, split, pred=KNOWN[1]) for split in ("val", "unknown")}
    collect_hard_cases(folder, data, tables, {}, HardCaseOptions())
    top = {"code": KNOWN[0], "name": "<b>약</b>", "confidence": 0.1}
    answer = {"mode_used": "single", "pills": [{**top, "box_xyxy": None, "top5": [top], "is_unknown": True}]}
    note_answer(folder, folder / "photo.png", np.full((90, 160, 3), 99, np.uint8), answer, "single")
    return folder


@pytest.fixture(scope="module")
def page(exp_dir: Path) -> str:
    return write_gallery(exp_dir).read_text(encoding="utf-8")


def case(path: str = "gone.png") -> HardCase:
    return HardCase(
        image_path=path,
        box=[10, 10, 50, 50],
        mode_asked="auto",
        mode_used="combo",
        gating_score=0.8,
        single_confidence=None,
        fallback_reason="multi_object_hint",
        true_code=None,
        pred_code="",
        top5=[],
        accepted=None,
        reasons=["auto_combo"],
    )


def unread(_case: HardCase) -> RgbImage:
    raise AssertionError("without thumbnails no picture is read")


def test_confused_drugs_stand_side_by_side_the_most_frequent_first(data: TwoStageData, page: str) -> None:
    num_wrong = table_of(data, "val").true_code.count(KNOWN[0])
    pairs = page.split('<p class="count">')[1:]
    assert [pair.split("<")[0] for pair in pairs] == [f"{max(num_wrong, 3)} times", f"{min(num_wrong, 3)} times"]
    assert "nothing trained on this drug" in page
    assert "<b>K-000009</b> <span>약 9정</span>" in page


def test_the_training_picture_of_a_drug_is_in_the_page_once(page: str) -> None:
    # The first pictures of both drugs are the same noise, see `write_aihub`.
    assert page.count('background-image: url("data:image/jpeg;base64,') == 1
    assert page.count('aria-label="Training picture of K-000002"') > 3


def test_a_case_tells_what_was_said_and_what_is_right(page: str) -> None:
    assert "named K-000002 약 2정" in page
    assert "K-000001 약 1정 (right)" in page
    assert "answered unknown; most like K-000001 약 1정" in page


def test_texts_from_the_data_are_escaped(page: str) -> None:
    assert "&lt;b&gt;약&lt;/b&gt;" in page
    assert "실험 &lt;1&gt;" in page


def test_judged_splits_come_before_predictions(page: str) -> None:
    marks = [part.split('"')[0] for part in page.split('data-marks="')[1:]]
    assert marks[0] == "from-unknown unknown_accepted"
    assert marks[-1] == "from-predict low_confidence"


def test_an_experiment_without_cases_says_so(tmp_path: Path) -> None:
    text = write_gallery(tmp_path).read_text()
    assert "No hard case is kept" in text
    assert "<script>" not in text


def test_without_kept_pictures_they_are_made_from_the_originals(data: TwoStageData, tmp_path: Path) -> None:
    cfg = config_of(data.root, tmp_path)
    (tmp_path / "config.yaml").write_text(f"data: {{root: {data.root}}}")
    write_selection(data, cfg, tmp_path / "selection.csv")
    options = HardCaseOptions(thumbnails=False)
    collect_hard_cases(tmp_path, data, {"val": table_of(data, "val", pred=KNOWN[1])}, {}, options)
    text = write_gallery(tmp_path).read_text()
    assert "Training picture of K-000001" in text
    assert "Training picture of K-000002" in text
    assert "The pill in it" in text
    assert "is not there any more" not in text


def test_pictures_that_are_gone_are_told(tmp_path: Path) -> None:
    HardCases(tmp_path, HardCaseOptions(thumbnails=False)).replace("val", [case()], unread)
    (tmp_path / "config.yaml").write_text("data: [")
    text = write_gallery(tmp_path).read_text()
    assert "The picture is not there any more." in text
    assert "no pill was found" in text
    assert "multi object hint" in text


def test_what_is_damaged_or_was_left_out_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "hard_cases"
    writer = HardCases(tmp_path, HardCaseOptions(thumbnails=False))
    writer.replace("val", [case()], unread)
    with writer.path("val").open("a") as file:
        file.write("{")
    (folder / "summary.json").write_text('{"splits": {"val": {"kept": 500, "found": 1234, "reasons": {}}}}')
    text = write_gallery(tmp_path).read_text()
    assert "1 lines of the files are damaged" in text
    assert "val split: the gravest 500 of 1,234" in text


def test_a_thumbnail_that_was_deleted_costs_only_itself(tmp_path: Path) -> None:
    writer = HardCases(tmp_path, HardCaseOptions(thumbnails=False))
    writer.replace("val", [replace(case(), thumbnail="thumbnails/x.jpg")], unread)
    assert "The picture is not there any more." in write_gallery(tmp_path).read_text()


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PillError, match=r"no gallery can be written: .*nowhere is not a folder"):
        write_gallery(tmp_path / "nowhere")


@pytest.mark.parametrize("opens", [True, False])
def test_the_command_names_the_page_and_opens_it(
    tmp_path: Path, opens: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    def pretend(uri: str) -> bool:
        opened.append(uri)
        return opens

    monkeypatch.setattr("webbrowser.open", pretend)
    with pytest.raises(SystemExit) as ended:
        main(["hard-cases", str(tmp_path), "--open"])
    assert ended.value.code == 0
    assert opened == [(tmp_path / "hard_cases" / "index.html").as_uri()]
    text = capsys.readouterr().out
    assert "hard_cases/index.html" in text
    assert ("No browser could be opened" in text) != opens


@pytest.fixture(scope="module")
def browser(exp_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(executable_path=str(DRIVER)))
    driver.get(write_gallery(exp_dir).as_uri())
    yield driver
    driver.quit()


@in_browser
def test_the_page_opens_without_an_error_and_with_all_its_pictures(browser: webdriver.Chrome) -> None:
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) > 10
    assert min(widths) > 0
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


@in_browser
@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "wide"])
def test_the_page_never_scrolls_sideways(browser: webdriver.Chrome, width: int) -> None:
    set_screen(browser, width, "light")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(browser: webdriver.Chrome, scheme: str) -> None:
    set_screen(browser, 1280, scheme)
    ratios = browser.execute_script(CONTRASTS)
    assert len(ratios) > 50
    assert min(ratios) >= 4.5  # WCAG AA


@in_browser
def test_filters_show_the_cases_of_a_reason(browser: webdriver.Chrome) -> None:
    visible = "return [...document.querySelectorAll('.case')].filter(one => !one.hidden).length"
    everything = browser.execute_script(visible)
    browser.find_element(By.CSS_SELECTOR, '[data-mark="unknown_accepted"]').click()
    assert browser.execute_script(visible) == 3
    assert browser.find_element(By.ID, "shown").text == "3 cases"
    browser.find_element(By.CSS_SELECTOR, '[data-mark="from-predict"]').click()
    assert browser.execute_script(visible) == 0
    browser.find_element(By.CSS_SELECTOR, ".examples a").click()  # a link to a hidden case shows all of them
    assert browser.execute_script(visible) == everything


@in_browser
def test_a_link_can_name_the_reason(browser: webdriver.Chrome, exp_dir: Path) -> None:
    browser.get((exp_dir / "hard_cases" / "index.html").as_uri() + "#low_confidence")
    assert browser.find_element(By.ID, "shown").text == "1 case"
