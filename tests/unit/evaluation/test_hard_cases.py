from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pillsnap.data.images import RgbImage
from pillsnap.data.twostage import TwoStageData
from pillsnap.evaluation.hard_cases import auto_answers, collect_hard_cases, gating_figures
from pillsnap.inference.hard_case import HardCase
from pillsnap.inference.hard_cases import HardCaseOptions, read_cases
from tests.unit.evaluation.hard_cases_case import KNOWN, UNKNOWN, build_data, table_of

pytestmark = pytest.mark.req("DAT-6")

OPTIONS = HardCaseOptions()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TwoStageData:
    return build_data(tmp_path_factory.mktemp("data"))


def collected(exp_dir: Path, split: str) -> list[HardCase]:
    return read_cases(exp_dir / "hard_cases" / f"{split}.jsonl")[0]


def answer(mode: str, gate: float | None = 0.2, num_pills: int = 1, reason: str | None = None) -> dict[str, Any]:
    top = {"code": KNOWN[0], "name": None, "confidence": 0.9}
    pill = {**top, "box_xyxy": None, "top5": [top]}
    return {
        "mode_used": mode,
        "gating_score": gate,
        "single_confidence": 0.6,
        "fallback_reason": reason,
        "pills": [pill] * num_pills,
    }


def paths_of(data: TwoStageData, split: str, task: str) -> list[str]:
    tasks = data.records.table.column("task").to_pylist()
    return [data.records.image_path(row) for row in data.rows(split).tolist() if tasks[row] == task]


def test_wrong_answers_are_cases_with_their_true_drug(data: TwoStageData, tmp_path: Path) -> None:
    table = table_of(data, "val", pred=KNOWN[1])
    summary = collect_hard_cases(tmp_path, data, {"val": table}, {}, OPTIONS)
    found = collected(tmp_path, "val")
    num_wrong = table.true_code.count(KNOWN[0])
    assert summary["splits"]["val"] == {"found": num_wrong, "kept": num_wrong, "reasons": {"wrong": num_wrong}}
    assert {(case.true_code, case.pred_code, case.true_name) for case in found} == {(*KNOWN, "약 1정")}
    assert found[0].box == [24, 32, 56, 74]
    assert [one["code"] for one in found[0].top5] == [KNOWN[1], KNOWN[0]]
    assert (tmp_path / "hard_cases" / str(found[0].crop)).is_file()


def test_right_answers_that_were_refused_or_unsure_are_cases(data: TwoStageData, tmp_path: Path) -> None:
    table = table_of(data, "val", confidence=0.2, accepted=False)
    collect_hard_cases(tmp_path, data, {"val": table}, {}, OPTIONS)
    found = collected(tmp_path, "val")
    assert len(found) == len(table)
    assert {"known_refused", "low_confidence"} <= set(found[-1].reasons)


@pytest.mark.req("DAT-6", "FIN-3")
def test_an_unknown_drug_is_a_case_where_it_was_named(data: TwoStageData, tmp_path: Path) -> None:
    named, refused = (table_of(data, "unknown", accepted=accepted) for accepted in (True, False))
    collect_hard_cases(tmp_path / "named", data, {"unknown": named}, {}, OPTIONS)
    collect_hard_cases(tmp_path / "refused", data, {"unknown": refused}, {}, OPTIONS)
    found = collected(tmp_path / "named", "unknown")
    assert [(case.true_code, case.true_name, case.reasons) for case in found] == [
        (UNKNOWN, "약 9정", ["unknown_accepted"])
    ] * 3
    assert collected(tmp_path / "refused", "unknown") == []


def test_what_mode_auto_did_joins_the_case_of_the_picture(data: TwoStageData, tmp_path: Path) -> None:
    table = table_of(data, "val")
    path = next(path for path, code in zip(table.image_path, table.true_code, strict=True) if code == KNOWN[0])
    collect_hard_cases(tmp_path, data, {"val": table}, {path: answer("combo", 0.7, 3, "multi_object_hint")}, OPTIONS)
    (case,) = [case for case in collected(tmp_path, "val") if case.image_path == path]
    assert case.reasons == ["auto_combo", "misroute"]
    assert (case.gating_score, case.mode_asked, case.fallback_reason) == (0.7, "auto", "multi_object_hint")


def test_a_combination_that_was_read_as_one_pill_is_misrouted(data: TwoStageData, tmp_path: Path) -> None:
    (path, *_), (train, *_) = paths_of(data, "val", "combo"), paths_of(data, "train", "combo")
    answers = {path: answer("single"), train: answer("single"), "elsewhere.png": answer("single")}
    collect_hard_cases(tmp_path, data, {"val": table_of(data, "val")}, answers, OPTIONS)
    (case,) = [case for case in collected(tmp_path, "val") if case.mode_asked == "auto"]
    assert (case.image_path, case.reasons) == (path, ["misroute"])


def test_every_drug_mentioned_gets_a_training_picture(data: TwoStageData, tmp_path: Path) -> None:
    tables = {split: table_of(data, split, pred=KNOWN[1]) for split in ("val", "unknown")}
    collect_hard_cases(tmp_path, data, tables, {}, OPTIONS)
    references = json.loads((tmp_path / "hard_cases" / "references.json").read_text())
    assert set(references) == set(KNOWN)  # no picture of the unknown drug trains
    assert all((tmp_path / "hard_cases" / name).is_file() for name in references.values())


def test_references_of_drugs_no_longer_mentioned_go(data: TwoStageData, tmp_path: Path) -> None:
    collect_hard_cases(tmp_path, data, {"val": table_of(data, "val", pred=KNOWN[1])}, {}, OPTIONS)
    collect_hard_cases(tmp_path, data, {"unknown": table_of(data, "unknown")}, {}, OPTIONS)
    assert len(list((tmp_path / "hard_cases" / "thumbnails").glob("reference-*"))) == 1


def test_without_thumbnails_only_text_is_written(data: TwoStageData, tmp_path: Path) -> None:
    options = replace(OPTIONS, thumbnails=False)
    collect_hard_cases(tmp_path, data, {"val": table_of(data, "val", pred=KNOWN[1])}, {}, options)
    assert list((tmp_path / "hard_cases" / "thumbnails").iterdir()) == []
    assert not (tmp_path / "hard_cases" / "references.json").exists()


def test_where_cases_are_switched_off_nothing_is_written(data: TwoStageData, tmp_path: Path) -> None:
    table = table_of(data, "val", pred=KNOWN[1])
    assert collect_hard_cases(tmp_path, data, {"val": table}, {}, replace(OPTIONS, enabled=False)) == {}
    assert list(tmp_path.iterdir()) == []


def test_cases_of_the_test_split_are_refused(data: TwoStageData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"hard cases of \['test'\] were asked for; wanted val and unknown alone"):
        collect_hard_cases(tmp_path, data, {"test": table_of(data, "val")}, {}, OPTIONS)


class FakePipeline:
    """Answers everything in the same way and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[int], str]] = []

    def predict(self, image: RgbImage, mode: str) -> dict[str, Any]:
        self.asked.append((image.shape, mode))
        return answer("single")


def test_mode_auto_is_asked_about_pictures_spread_over_the_split(data: TwoStageData) -> None:
    pipeline = FakePipeline()
    answers = auto_answers(pipeline, data, "val", most=3)
    paths = [data.records.image_path(row) for row in data.rows("val").tolist()]
    assert list(answers) == [paths[0], paths[round((len(paths) - 1) / 2)], paths[-1]]
    assert pipeline.asked == [((128, 96, 3), "auto")] * 3


def test_of_a_small_split_every_picture_is_asked(data: TwoStageData) -> None:
    assert len(auto_answers(FakePipeline(), data, "unknown")) == 3


def test_a_broken_picture_is_not_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = build_data(tmp_path)
    row = int(data.rows("unknown")[0])
    (data.root / data.records.image_path(row)).write_bytes(b"no picture, but as long as one has to be" * 9)
    assert len(auto_answers(FakePipeline(), data, "unknown")) == 2
    assert "mode auto could not be asked about a picture" in caplog.text


def test_the_figures_of_the_gate_are_means_over_the_answers() -> None:
    answers = [
        answer("single", 0.1),
        answer("combo", 0.5, reason="low_confidence"),
        answer("combo", 0.9, reason="multi_object_hint"),
        answer("combo", None, reason="manual_combo"),
    ]
    assert gating_figures(answers) == pytest.approx(
        {
            "gating_score": 0.5,
            "single_confidence": 0.6,
            "fallback_low_confidence": 0.25,
            "fallback_multi_object_hint": 0.25,
            "fallback_manual_combo": 0.25,
        }
    )


def test_without_answers_the_gate_has_no_figures() -> None:
    assert gating_figures([]) == {}
