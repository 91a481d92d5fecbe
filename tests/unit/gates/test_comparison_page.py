"""Two experiments on one page: what chance does not explain, what differs, and the pictures only one got right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pillsnap.errors import ConfigError, PillError
from pillsnap.evaluation.prediction_table import PredictionTable, write_predictions
from pillsnap.gates.comparison_page import MAX_CASES, write_comparison
from pillsnap.jsonfile import save_json
from tests.unit.evaluation.report_case import NAMES
from tests.unit.evaluation.test_report import Page

pytestmark = pytest.mark.req("RPT-1")

NUM_PILLS = 40


def answers(num_right: int, first_id: int = 0) -> PredictionTable:
    """Return answers to 40 pills of the first drug, of which the first are right; the 40th was held back."""
    right, wrong = NAMES
    is_right = np.arange(NUM_PILLS) < num_right
    return PredictionTable(
        sample_id=[str(first_id + number) for number in range(NUM_PILLS)],
        image_path=[f"images/{number}.png" for number in range(NUM_PILLS)],
        group=[str(number) for number in range(NUM_PILLS)],
        box=np.full(NUM_PILLS, -1, np.int32),
        true_code=[right] * NUM_PILLS,
        pred_code=[right if is_one else wrong for is_one in is_right],
        confidence=np.linspace(0.5, 0.9, NUM_PILLS, dtype=np.float32),
        score=np.ones(NUM_PILLS, np.float32),
        accepted=np.arange(NUM_PILLS) < NUM_PILLS - 1,
        rank=np.where(is_right, 0, 1).astype(np.int32),
        top5_codes=[[right, wrong]] * NUM_PILLS,
        top5_confidences=[[0.6, 0.4]] * NUM_PILLS,
    )


def experiment(folder: Path, num_right: int) -> Path:
    """Write an experiment whose photographs lie beside it; only the first of them is there."""
    (folder / "reports").mkdir(parents=True)
    save_json(folder / "reports" / "metrics.json", {"val": {"split": "val", "classification": {"acc": num_right / 40}}})
    save_json(folder / "class_map.json", {"codes": list(NAMES), "names": NAMES})
    data = folder.parent / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (600, 800), "red").save(data / "images" / f"{NUM_PILLS - 1}.png")
    (folder / "config.yaml").write_text(f"train:\n  lr: 0.0002\ndata:\n  root: {data}\n", encoding="utf-8")
    write_predictions(folder / "reports" / "predictions_val.arrow", answers(num_right))
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return experiment(tmp_path / "before", 20), experiment(tmp_path / "after 2", 40)


def test_the_page_lies_in_the_second_experiment_and_links_both_reports(pair: tuple[Path, Path]) -> None:
    for folder in pair:
        (folder / "reports" / "index.html").write_text("")
    path, _ = write_comparison(*pair)
    assert path == pair[1] / "reports" / "compare_before.html"
    hrefs = [str(link["href"]) for link in Page(path).all("a")]
    assert [href for href in hrefs if not href.startswith("#")] == ["../../before/reports/index.html", "index.html"]


def test_a_difference_beyond_chance_names_the_better_one(pair: tuple[Path, Path]) -> None:
    _, outcome = write_comparison(*pair)
    assert outcome.title == "B names more pills correctly"
    assert outcome.sentence.startswith("A 50.0%, B 100.0%, on the same 40 pills: a difference of +50.0 points, 95%")
    _, turned = write_comparison(pair[1], pair[0])
    assert turned.title == "A names more pills correctly"


def test_a_small_difference_is_not_called_one(pair: tuple[Path, Path]) -> None:
    write_predictions(pair[1] / "reports" / "predictions_val.arrow", answers(21))
    _, outcome = write_comparison(*pair)
    assert outcome.title == "No difference beyond chance"


def test_answers_to_other_pills_are_said_to_be_unpaired(pair: tuple[Path, Path]) -> None:
    write_predictions(pair[1] / "reports" / "predictions_val.arrow", answers(40, first_id=1000))
    path, outcome = write_comparison(*pair)
    assert outcome.note.startswith("The val splits differ: 0 pills are in both")
    assert "There are no pills that both were asked about." in Page(path).text


def test_without_answers_the_rest_is_compared_and_the_reason_given(pair: tuple[Path, Path]) -> None:
    (pair[0] / "reports" / "predictions_val.arrow").unlink()
    path, outcome = write_comparison(*pair)
    assert outcome.title == "Not compared picture by picture"
    text = Page(path).text
    assert "predictions_val.arrow cannot be read" in text
    assert "One pill in the picture: which drug?" in text


def test_pictures_only_one_got_right_are_shown_where_they_are_at_hand(pair: tuple[Path, Path]) -> None:
    path, _ = write_comparison(*pair)
    page = Page(path)
    assert f"Only B, after 2, was right: 20, {MAX_CASES} shown" in page.text
    assert "Only A, before, was right: 0" in page.text
    photographs = [image for image in page.all("img") if str(image["src"]).startswith("data:image/jpeg")]
    assert [(image["width"], image["height"]) for image in photographs] == [("240", "320")]
    assert page.text.count("The photograph is not at hand.") == MAX_CASES - 1
    assert "A: K-000002 <script>alert(1)</script>, 90.0%; refused B: K-000001 타이레놀정, 90.0%; refused" in page.text


def test_a_pill_in_a_picture_of_several_is_named_by_its_number(pair: tuple[Path, Path]) -> None:
    for folder, right in zip(pair, (0, 40), strict=True):
        table = replace(answers(right), box=np.full(NUM_PILLS, 2, np.int32))
        write_predictions(folder / "reports" / "predictions_val.arrow", table)
    assert "(pill 3 of the picture)" in Page(write_comparison(*pair)[0]).text


def test_settings_that_differ_are_listed_and_places_are_not(pair: tuple[Path, Path]) -> None:
    config = pair[1] / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.0002", "lr: 0.01") + "paths: {exp_dir: x}\nnew: [1]\n")
    text = Page(write_comparison(*pair)[0]).text
    assert "train.lr 0.0002 0.01" in text
    assert "new (no such setting) [1]" in text
    assert "paths.exp_dir" not in text


def test_nothing_is_loaded_from_elsewhere(pair: tuple[Path, Path]) -> None:
    page = Page(write_comparison(*pair, pair[0] / "out.html")[0])
    assert not page.all("script")
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))


def test_an_experiment_is_not_compared_with_itself(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match="cannot be compared with itself; wanted two experiments"):
        write_comparison(tmp_path / "a", tmp_path / "b" / ".." / "a")


def test_a_missing_experiment_is_named(tmp_path: Path) -> None:
    with pytest.raises(PillError, match="gone is not a folder"):
        write_comparison(tmp_path / "gone", tmp_path)


def test_empty_experiments_give_a_page_that_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    text = Page(write_comparison(tmp_path / "a", tmp_path / "b")[0]).text
    assert "Neither experiment has figures." in text
    assert "Neither experiment has recorded an epoch." in text
    assert "The configuration (config.yaml) of at least one of them is missing." in text
