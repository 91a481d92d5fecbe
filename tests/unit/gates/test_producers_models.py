from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from pillsnap.atomicfile import sha256_of
from pillsnap.errors import CheckpointError, DataError, PillError
from pillsnap.evaluation.prediction_table import read_predictions, write_predictions
from pillsnap.gates.evidence import Outcome
from pillsnap.gates.producers_models import (
    classification_model_loading,
    detection_model_loading,
    onnx_conversion_success,
    run_onnx,
)
from pillsnap.gates.subject import Subject
from pillsnap.jsonfile import save_json
from tests.unit.gates.checked import change, produced, replace
from tests.unit.inference.builders import checkpoint_of, random_classifier, random_detector

PREDICTIONS = "reports/predictions_val.arrow"


@pytest.mark.req("CRT-2")
def test_a_classifier_that_answers_as_recorded_passes(experiment: Path) -> None:
    found = produced(classification_model_loading, experiment)
    assert found.status == "passed", found.message
    assert found.value == len(read_predictions(experiment / PREDICTIONS))


@pytest.mark.req("CRT-2")
def test_a_crop_of_a_combination_is_looked_at_as_the_run_did(experiment: Path) -> None:
    table = read_predictions(experiment / PREDICTIONS)
    subject = Subject(experiment)
    combo = subject.val_pictures("combo", 1)[0].relative_to(Path(subject.cfg.data.root)).as_posix()
    table.image_path[0], table.box[0] = combo, 9  # type: ignore[index]
    write_predictions(experiment / PREDICTIONS, table)
    with pytest.raises(DataError, match="has no box 9 of"):
        produced(classification_model_loading, experiment)
    table.box[0] = 0
    write_predictions(experiment / PREDICTIONS, table)
    assert produced(classification_model_loading, experiment).file is not None


@pytest.mark.req("CRT-2")
def test_other_weights_than_were_judged_fail(experiment: Path) -> None:
    table = read_predictions(experiment / PREDICTIONS)
    table.pred_code[:] = [codes[-1] for codes in table.top5_codes]  # type: ignore[index]
    write_predictions(experiment / PREDICTIONS, table)
    found = produced(classification_model_loading, experiment)
    assert found.status == "failed"
    assert "recorded was" in found.message


@pytest.mark.req("CRT-2")
def test_weights_that_are_no_numbers_fail(experiment: Path) -> None:
    classifier = random_classifier()
    for weights in classifier.parameters():
        torch.nn.init.constant_(weights, float("nan"))
    path = experiment / "checkpoints" / "best.pt"
    content = torch.load(path, weights_only=True)
    path.unlink()
    torch.save({**content, "model_state": classifier.state_dict()}, path)
    found = produced(classification_model_loading, experiment)
    assert found.status == "failed"
    assert "an answer that is no number" in found.message


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    ("name", "error"), [("checkpoints/best.pt", CheckpointError), (PREDICTIONS, DataError)], ids=["model", "answers"]
)
def test_a_damaged_file_is_an_error(experiment: Path, name: str, error: type[PillError]) -> None:
    replace(experiment / name, b"damaged")
    with pytest.raises(error):
        produced(classification_model_loading, experiment)


@pytest.mark.req("CRT-2")
def test_no_recorded_answer_is_none_the_same(experiment: Path) -> None:
    table = read_predictions(experiment / PREDICTIONS)
    empty: dict[str, Any] = {name: getattr(table, name)[:0] for name in table.__dataclass_fields__}
    write_predictions(experiment / PREDICTIONS, type(table)(**empty))
    assert "no answer of the val split is recorded" in produced(classification_model_loading, experiment).message


@pytest.mark.req("CRT-2")
def test_a_detector_that_finds_what_it_found_passes(experiment: Path) -> None:
    assert produced(detection_model_loading, experiment).status == "passed"  # it never found any


@pytest.mark.req("CRT-2")
def test_a_detector_that_finds_nothing_any_more_fails(experiment: Path) -> None:
    change(experiment, lambda run: run["evaluation"]["detection"].update(recall=0.9))
    found = produced(detection_model_loading, experiment)
    assert found.status == "failed"
    assert "the run had found 90%" in found.message


@pytest.mark.req("CRT-2")
def test_a_detector_of_no_numbers_fails(experiment: Path) -> None:
    detector = random_detector()
    for weights in detector.parameters():
        torch.nn.init.constant_(weights, float("nan"))
    path = experiment / "checkpoints" / "detection_best.pt"
    path.unlink()
    torch.save(checkpoint_of("detection", detector, image_size=64), path)
    assert "an answer that is no number" in produced(detection_model_loading, experiment).message


@pytest.mark.req("CRT-2")
def test_a_damaged_detector_is_an_error(experiment: Path) -> None:
    replace(experiment / "checkpoints" / "detection_best.pt", b"damaged")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        produced(detection_model_loading, experiment)


@pytest.mark.parametrize(
    ("producer", "name"), [(classification_model_loading, "classifier"), (detection_model_loading, "detector")]
)
def test_a_model_that_was_not_trained_is_not_run(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, producer: Callable[[Subject], Outcome], name: str
) -> None:
    monkeypatch.setattr(Subject, "tasks", [])
    found = produced(producer, experiment)
    assert found.status == "not run"
    assert f"the run trained no {name}" in found.message


def write_onnx(path: Path, bias: float = 0.0) -> dict[str, Any]:
    """Write a model that adds to a picture, and return its entry in the export report."""
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, "width"])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)
    added = helper.make_tensor("bias", TensorProto.FLOAT, [1], np.array([bias], np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("Add", ["images", "bias"], ["answer"])], "adder", [picture], [answer], [added]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    return {"file": path.name, "sha256": sha256_of(path), "parity_passed": True}


@pytest.fixture
def exported(experiment: Path) -> Path:
    names = ("classification", "detection")
    models = {name: write_onnx(experiment / "export" / f"{name}.onnx") for name in names}
    save_json(experiment / "export" / "export_report.json", {"models": models})
    return experiment


@pytest.mark.req("CRT-2")
def test_two_exported_files_that_answer_pass(exported: Path) -> None:
    found = produced(onnx_conversion_success, exported)
    assert (found.status, found.value) == ("passed", 2), found.message


@pytest.mark.req("CRT-2")
def test_nothing_exported_is_not_run(experiment: Path) -> None:
    assert produced(onnx_conversion_success, experiment).status == "not run"


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (None, "detection: was not exported"),
        ({"file": "other.onnx"}, "export/other.onnx does not exist"),
        ({"sha256": "0" * 64}, "its SHA-256 differs"),
        ({"parity_passed": False}, "not found equal"),
        ({"checkpoint": "0" * 64}, "from another checkpoint"),
    ],
    ids=["not exported", "gone", "changed", "no parity", "stale"],
)
def test_an_export_that_does_not_hold_fails(exported: Path, entry: dict[str, Any] | None, reason: str) -> None:
    def edit(report: dict[str, Any]) -> None:
        models = report["models"]
        models["detection"] = entry and {**models["detection"], **entry}

    change(exported, edit, "export/export_report.json")
    found = produced(onnx_conversion_success, exported)
    assert (found.status, found.value) == ("failed", 1)
    assert reason in found.message


@pytest.mark.req("CRT-2")
def test_an_answer_that_is_no_number_fails(exported: Path) -> None:
    entry = write_onnx(exported / "export" / "detection.onnx", float("nan"))
    change(exported, lambda report: report["models"].update(detection=entry), "export/export_report.json")
    assert "its answer is no number" in produced(onnx_conversion_success, exported).message


@pytest.mark.req("CRT-2")
def test_a_damaged_export_that_was_hashed_damaged_fails(exported: Path) -> None:
    path = exported / "export" / "detection.onnx"
    path.write_bytes(b"damaged")
    sha = sha256_of(path)
    change(exported, lambda report: report["models"]["detection"].update(sha256=sha), "export/export_report.json")
    assert "ONNX Runtime cannot use detection.onnx" in produced(onnx_conversion_success, exported).message


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"damaged")
    with pytest.raises(PillError, match=r"cannot use x.onnx .*Export it again"):
        run_onnx(tmp_path / "x.onnx")
