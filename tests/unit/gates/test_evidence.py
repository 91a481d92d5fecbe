from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pillsnap.gates.evidence import Check, Evidence, checkpoint_hashes
from pillsnap.jsonfile import read_json


@pytest.fixture
def exp_dir(tmp_path: Path) -> Path:
    for name in ("reports", "checkpoints"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"weights")
    (tmp_path / "reports" / "run.json").write_text("{}")
    return tmp_path


def _passed(exp_dir: Path, **changes: Any) -> Check:
    values: dict[str, Any] = {"status": "passed", "value": 1, "file": "reports/run.json"}
    return Check(**{**values, "checkpoint": checkpoint_hashes(exp_dir), **changes})


@pytest.mark.req("CRT-2")
def test_what_was_saved_is_read_back(exp_dir: Path) -> None:
    check = _passed(exp_dir, wanted=">= 1", unit="tasks", what="run", message="fine", seconds=1.5, git_sha="abc")
    Evidence(exp_dir, {"pipeline_complete": check}).save()
    found = Evidence.load(exp_dir)
    assert found.check("pipeline_complete") == check
    assert found.is_passed("pipeline_complete")


@pytest.mark.req("CRT-2")
def test_a_check_that_nobody_ran_is_not_run(exp_dir: Path) -> None:
    evidence = Evidence.load(exp_dir)
    assert (evidence.check("pipeline_complete").status, evidence.is_passed("pipeline_complete")) == ("not run", False)


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize("name", ["best.pt", "detection_best.pt"])
def test_a_check_of_other_checkpoints_does_not_count(exp_dir: Path, name: str) -> None:
    Evidence(exp_dir, {"a": _passed(exp_dir)}).save()
    (exp_dir / "checkpoints" / name).write_bytes(b"trained on")
    found = Evidence.load(exp_dir).check("a")
    assert (found.status, found.message) == ("not run", "was passed by other checkpoints: run it again")


@pytest.mark.req("CRT-2")
def test_a_check_whose_evidence_is_gone_does_not_count(exp_dir: Path) -> None:
    Evidence(exp_dir, {"a": _passed(exp_dir)}).save()
    (exp_dir / "reports" / "run.json").unlink()
    found = Evidence.load(exp_dir).check("a")
    assert (found.status, found.message) == ("not run", "was passed, but its evidence reports/run.json is gone")


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"checks": 1}',
        '{"checks": {"a": 1}}',
        '{"checks": {"a": {"status": "sure"}}}',
        '{"checks": {"a": {}}}',
    ],
    ids=["empty", "cut off", "list", "no checks", "no check", "no status", "nothing"],
)
def test_a_damaged_file_is_no_evidence(exp_dir: Path, text: str) -> None:
    (exp_dir / "reports" / "checks.json").write_text(text)
    assert Evidence.load(exp_dir).check("a").status == "not run"


@pytest.mark.req("CRT-2")
def test_a_check_that_was_not_run_says_still_why(exp_dir: Path) -> None:
    Evidence(exp_dir, {"a": Check(status="not run", message="nothing was exported")}).save()
    (exp_dir / "checkpoints" / "best.pt").write_bytes(b"trained on")
    assert Evidence.load(exp_dir).check("a").message == "nothing was exported"


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_written_as_null(exp_dir: Path, value: float) -> None:
    Evidence(exp_dir, {"a": _passed(exp_dir, value=value)}).save()
    assert read_json(exp_dir / "reports" / "checks.json")["checks"]["a"]["value"] is None
