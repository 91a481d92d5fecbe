"""The page shows what lies in the experiment and says what does not."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from pillsnap.errors import PillError
from pillsnap.evaluation.report import write_report
from tests.unit.evaluation.report_case import build_experiment
from tests.unit.evaluation.report_findings import add_findings

pytestmark = pytest.mark.req("RPT-1")


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(build_experiment(tmp_path_factory.mktemp("runs") / "실험 01 & co"))


def test_the_page_holds_figures_data_decisions_and_settings(full: Path) -> None:
    assert full.name == "index.html"
    text = Page(full).text
    figures = ["실험 01 & co", "Test split", "96.2%", "0.934", "mAP by T 1.0"]
    run = ["1,600", "8.3%", "2,103", "5 min 05 s", "classification 3", "2026-01-02 03:04:06 UTC", "2 cores"]
    settings = ["train.lr", "0.0002", "타이레놀정"]
    assert [wanted for wanted in figures + run + settings if wanted not in text] == []


@pytest.mark.req("GNG-1", "ADV-1", "FIN-1", "DAT-6")
def test_the_page_of_a_judged_run_has_a_place_for_every_finding(tmp_path: Path) -> None:
    text = Page(write_report(add_findings(build_experiment(tmp_path / "run"), final_test=True))).text
    findings = (
        "No-go Stage 1: 2 of 4 mandatory checks passed, 1 of 4 targets met.",
        "The check of detection model loading failed. CHECK_FAILED:detection_model_loading",
        "failed detection model loading",
        "detection: inference time (ms) 201.5 ≤ 50 missed",
        "Because of detection.inference_time_ms 201.5 (wanted <=50). detection.image_size=160",
        "Several pills 232 ms",
        "Needs improvement",
        "Temperature 1.370",
        "AUROC 0.957 0.931 to 0.978",
        "Worst drugs, val split",
        "2 kept.",
    )
    assert [wanted for wanted in findings if wanted not in text] == []
    assert "calibration.png" in text
    assert "risk_coverage.png" in text


def test_every_picture_is_inside_the_page_with_size_and_alt_text(full: Path) -> None:
    images = Page(full).all("img")
    assert len(images) == 5  # history, confusion, ROC, PR, one detection
    for image in images:
        assert str(image["src"]).startswith("data:image/")
        assert image["alt"]
        assert int(str(image["width"])) > 0


def test_the_page_loads_nothing_from_elsewhere(full: Path) -> None:
    page = Page(full)
    assert not page.all("script")
    assert all(str(link["href"]).startswith("data:") for link in page.all("link"))
    assert "http" not in re.sub(r"data:image/[^\"]*", "", full.read_text(encoding="utf-8"))


def test_links_lead_to_files_that_are_there(full: Path) -> None:
    hrefs = [str(link["href"]) for link in Page(full).all("a")]
    files = [href for href in hrefs if not href.startswith("#")]
    assert "../class_map.json" in files
    assert all((full.parent / unquote(href)).exists() for href in files)
    anchors = {f"#{attributes['id']}" for _, attributes in Page(full).tags if "id" in attributes}
    assert {href for href in hrefs if href.startswith("#")} <= anchors


def test_names_from_the_data_are_escaped(full: Path) -> None:
    assert "<script>" not in full.read_text(encoding="utf-8")
    assert "<script>alert(1)</script>" in Page(full).text


def test_an_empty_folder_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    text = Page(write_report(tmp_path)).text
    said = (
        "No figures were recorded",
        "No curves were drawn in this run.",
        "Nothing was drawn, and no file tells which tasks this run had.",
        "No counts of the data were recorded.",
        "The class map (class_map.json) is missing.",
        "reports/run.json is missing",
        "The configuration (config.yaml) is missing.",
    )
    assert [wanted for wanted in said if wanted not in text] == []


def test_a_task_that_was_not_configured_is_said_to_be_untrained(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {tasks: [classification]}", encoding="utf-8")
    text = Page(write_report(tmp_path)).text
    assert text.count("The detection task was not trained in this run.") == 3  # figures, end to end, pictures
    assert "The classification task was not trained" not in text


def test_a_picture_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "confusion_matrix.png").write_bytes(b"not a picture")
    page = Page(write_report(tmp_path))
    assert "confusion_matrix.png is there but cannot be read as a picture." in page.text
    assert not page.all("img")


def test_pictures_of_the_test_split_stand_before_those_of_val(tmp_path: Path) -> None:
    (tmp_path / "reports" / "test").mkdir(parents=True)
    for folder in ("", "test"):
        Image.new("RGB", (40, 30)).save(tmp_path / "reports" / folder / "confusion_matrix.png")
    images = Page(write_report(tmp_path)).all("img")
    assert [str(image["alt"]).rpartition(" ")[2] for image in images] == [
        "(test/confusion_matrix)",
        "(confusion_matrix)",
    ]


def test_a_folder_of_many_files_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for number in range(41):
        (tmp_path / "labels" / f"{number}.txt").write_text("ab")
    text = Page(write_report(tmp_path)).text
    assert "labels/ (41 files)" in text
    assert "82" in text
    assert "40.txt" not in text


def test_only_the_first_of_many_classes_are_listed(tmp_path: Path) -> None:
    codes = ", ".join(f'"K-{number:06d}"' for number in range(5000))
    (tmp_path / "class_map.json").write_text(f'{{"codes": [{codes}], "names": {{}}}}')
    text = Page(write_report(tmp_path)).text
    assert "Drugs: 5,000, the first 200 listed" in text
    assert "K-000199" in text
    assert "K-000200" not in text


def test_a_run_without_decisions_says_so(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "run.json").write_text('{"decisions": [], "device": "cpu"}')
    assert "None: everything was done as configured." in Page(write_report(tmp_path)).text


def test_a_missing_experiment_is_named(tmp_path: Path) -> None:
    with pytest.raises(PillError, match=r"no report can be written: .*gone is not a folder; wanted the folder of an"):
        write_report(tmp_path / "gone")


@pytest.mark.parametrize("content", [b"train: [", b"\xff\xfe"], ids=["yaml", "encoding"])
def test_a_damaged_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(PillError, match=r"config\.yaml cannot be read: .*; wanted the configuration the run saved"):
        write_report(tmp_path)


def test_a_configuration_that_is_no_mapping_is_shown_as_text_only(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("[one, two]")
    assert "[one, two]" in Page(write_report(tmp_path)).text


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file where a folder should be")
    with pytest.raises(PillError, match=r"index\.html cannot be written: .*; wanted to put the report there"):
        write_report(tmp_path)
