from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pillsnap.config.loading import load_config
from pillsnap.data.images import RgbImage
from pillsnap.errors import BrokenImageError, PillError
from pillsnap.inference.hard_case import (
    REASONS,
    HardCase,
    Reading,
    case_of_answer,
    label_reasons,
    routing_reasons,
)
from pillsnap.inference.hard_cases import HardCaseOptions, HardCases, note_answer, read_cases
from tests.unit.config.builders import ROOT_CONFIG

pytestmark = pytest.mark.req("DAT-6")

IMAGE = np.full((400, 200, 3), 90, np.uint8)


def case(name: str, *reasons: str, confidence: float = 0.5, box: list[float] | None = None) -> HardCase:
    return HardCase(
        image_path=f"{name}.png",
        box=box,
        mode_asked="single",
        mode_used="single",
        gating_score=None,
        single_confidence=confidence,
        fallback_reason=None,
        true_code="K-1",
        pred_code="K-2",
        top5=[{"code": "K-2", "name": "약 2정", "confidence": confidence}],
        accepted=True,
        reasons=list(reasons),
    )


def answer(*confidences: float, mode: str = "single", **more: Any) -> dict[str, Any]:
    box = None if mode == "single" else [10.0, 20.0, 60.0, 80.0]
    pills = [
        {
            "code": f"K-{number}",
            "confidence": confidence,
            "box_xyxy": box,
            "top5": [{"code": f"K-{number}", "name": None, "confidence": confidence}],
        }
        for number, confidence in enumerate(confidences)
    ]
    return {"mode_used": mode, "pills": pills, **more}


def load(_case: HardCase) -> RgbImage:
    return IMAGE


@pytest.mark.parametrize(
    ("asked", "used", "confidence", "gate", "num_pills", "shows_one", "expected"),
    [
        ("single", "single", 0.29, None, 1, None, ["low_confidence"]),
        ("single", "single", 0.30, None, 1, None, []),
        ("auto", "single", 0.9, 0.49, 1, None, []),
        ("auto", "single", 0.9, 0.5, 1, None, ["misroute"]),
        ("auto", "combo", 0.9, 0.9, 3, None, ["auto_combo"]),
        ("auto", "combo", 0.1, 0.9, 1, None, ["auto_combo", "misroute"]),
        ("auto", "combo", None, 0.9, 0, None, ["auto_combo", "misroute"]),
        ("combo", "combo", 0.1, None, 1, None, []),
        ("auto", "combo", 0.9, 0.9, 3, True, ["auto_combo", "misroute"]),
        ("auto", "single", 0.9, 0.1, 1, False, ["misroute"]),
        ("auto", "single", 0.9, 0.9, 1, True, []),
    ],
)
def test_how_a_picture_was_read_makes_it_a_case(
    asked: str,
    used: str,
    confidence: float | None,
    gate: float | None,
    num_pills: int,
    shows_one: bool | None,
    expected: list[str],
) -> None:
    reading = Reading(mode_asked=asked, mode_used=used, gating_score=gate)
    found = routing_reasons(reading, confidence, 0.3, num_pills=num_pills, shows_one=shows_one)
    assert found == expected
    assert set(found) <= set(REASONS)


@pytest.mark.parametrize(
    ("pred", "is_known", "accepted", "expected"),
    [
        ("a", True, True, []),
        ("a", True, None, []),
        ("b", True, True, ["wrong"]),
        ("b", True, False, ["wrong", "known_refused"]),
        ("a", True, False, ["known_refused"]),
        ("a", False, False, []),
        ("a", False, True, ["unknown_accepted"]),
        ("a", False, None, ["unknown_accepted"]),
    ],
)
def test_knowing_the_drug_makes_it_a_case(
    pred: str, is_known: bool, accepted: bool | None, expected: list[str]
) -> None:
    assert label_reasons(pred, "a", is_known=is_known, accepted=accepted) == expected


def test_the_case_of_a_combination_is_its_least_sure_pill() -> None:
    found = case_of_answer(answer(0.9, 0.4, 0.8, mode="combo", gating_score=0.7), "x.png", "auto", 0.3)
    assert found is not None
    assert (found.pred_code, found.box, found.gating_score) == ("K-1", [10, 20, 60, 80], 0.7)
    assert found.reasons == ["auto_combo"]


def test_an_answer_without_a_pill_can_be_a_case() -> None:
    found = case_of_answer(answer(mode="combo"), "x.png", "auto", 0.3)
    assert found is not None
    assert (found.pred_code, found.top5, found.box) == ("", [], None)


def test_a_sure_answer_is_no_case() -> None:
    assert case_of_answer(answer(0.9), "x.png", "single", 0.3) is None


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    cases = [case("알약", "wrong", box=[10, 20, 60, 80])]
    kept = HardCases(tmp_path, HardCaseOptions()).replace("val", cases, load)
    assert read_cases(tmp_path / "hard_cases" / "val.jsonl") == (kept, 0)
    with Image.open(tmp_path / "hard_cases" / str(kept[0].thumbnail)) as thumbnail:
        assert thumbnail.size == (160, 320)
    with Image.open(tmp_path / "hard_cases" / str(kept[0].crop)) as crop:
        assert crop.size == (160, 160)


def test_of_too_many_cases_the_gravest_are_kept(tmp_path: Path) -> None:
    cases = [
        case("a", "low_confidence"),
        case("b", "wrong", "known_refused", confidence=0.4),
        case("c", "wrong", confidence=0.9),
        case("d", "unknown_accepted"),
    ]
    kept = HardCases(tmp_path, HardCaseOptions(max_cases=3)).replace("val", cases, load)
    assert [one.image_path for one in kept] == ["d.png", "c.png", "b.png"]


def test_another_judgement_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    writer = HardCases(tmp_path, HardCaseOptions())
    writer.replace("val", [case("a", "wrong"), case("b", "wrong")], load)
    writer.replace("val", [case("b", "wrong")], load)
    writer.replace("unknown", [case("a", "unknown_accepted")], load)
    assert [one.image_path for one in read_cases(writer.path("val"))[0]] == ["b.png"]
    assert len(list((writer.folder / "thumbnails").iterdir())) == 2


def test_predictions_keep_their_newest_cases_and_only_their_thumbnails(tmp_path: Path) -> None:
    writer = HardCases(tmp_path, HardCaseOptions(max_cases=2))
    for name in "abc":
        writer.append("predict", case(name, "wrong"), IMAGE)
    kept = read_cases(writer.path("predict"))[0]
    assert [one.image_path for one in kept] == ["b.png", "c.png"]
    names = {str(path.relative_to(writer.folder)) for path in (writer.folder / "thumbnails").iterdir()}
    assert names == {one.thumbnail for one in kept}


def test_without_thumbnails_no_picture_is_read(tmp_path: Path) -> None:
    def refuse(_case: HardCase) -> RgbImage:
        raise AssertionError("the picture was read")

    kept = HardCases(tmp_path, HardCaseOptions(thumbnails=False)).replace("val", [case("a", "wrong")], refuse)
    assert kept[0].thumbnail is None


def test_a_picture_that_is_gone_costs_its_thumbnail_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def missing(_case: HardCase) -> RgbImage:
        raise BrokenImageError("a.png does not exist")

    kept = HardCases(tmp_path, HardCaseOptions()).replace("val", [case("a", "wrong")], missing)
    assert kept[0].thumbnail is None
    assert "no thumbnail of a hard case: a.png does not exist" in caplog.text


def test_damaged_lines_are_counted(tmp_path: Path) -> None:
    writer = HardCases(tmp_path, HardCaseOptions())
    writer.replace("val", [case("a", "wrong")], load)
    with writer.path("val").open("a") as file:
        file.write('{"image_path": "b.png"}\n[1]\n{"image_')
    assert [len(read_cases(writer.path("val"))[0]), read_cases(writer.path("val"))[1]] == [1, 3]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PillError, match=r"val.jsonl cannot be read: .*wanted a file of hard cases"):
        read_cases(tmp_path / "val.jsonl")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "hard_cases").touch()
    with pytest.raises(PillError, match=r"hard cases cannot be written to .*set logging.hard_cases.enabled=false"):
        HardCases(tmp_path, HardCaseOptions()).replace("val", [], load)


def test_a_hard_prediction_is_noted_with_its_absolute_path(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    noted = note_answer(tmp_path / "exp", photo, IMAGE, answer(0.1), "single")
    assert noted is not None
    (line,) = (tmp_path / "exp" / "hard_cases" / "predict.jsonl").read_text().splitlines()
    content = json.loads(line)
    assert (content["image_path"], content["reasons"]) == (str(photo), ["low_confidence"])


def test_an_easy_prediction_leaves_nothing(tmp_path: Path) -> None:
    assert note_answer(tmp_path, tmp_path / "photo.png", IMAGE, answer(0.9), "single") is None
    assert not (tmp_path / "hard_cases").exists()


def test_where_cases_are_switched_off_nothing_is_noted(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("logging: {hard_cases: {enabled: false}}")
    assert note_answer(tmp_path, tmp_path / "photo.png", IMAGE, answer(0.1), "single") is None


def test_a_place_that_cannot_be_written_does_not_cost_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hard_cases").touch()
    assert note_answer(tmp_path, tmp_path / "photo.png", IMAGE, answer(0.1), "single") is not None
    assert "a hard case is not kept" in caplog.text


@pytest.mark.parametrize("text", [None, "", "logging: 3", "[", "logging: {step_log_interval: 3}"])
def test_an_experiment_without_the_keys_has_the_specifications_values(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    assert HardCaseOptions.of_experiment(tmp_path) == HardCaseOptions()


def test_the_shipped_values_are_those_of_the_options() -> None:
    assert HardCaseOptions.from_config(load_config(ROOT_CONFIG)) == HardCaseOptions()
