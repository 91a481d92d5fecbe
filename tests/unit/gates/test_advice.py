import io
import logging
from pathlib import Path
from typing import Any

import pytest

from pillsnap.config.loading import load_config, save_config
from pillsnap.gates.advice import advise
from pillsnap.gates.terminal import Terminal
from pillsnap.gates.verdict import evaluate_gate
from pillsnap.jsonfile import read_json
from tests.unit.config.builders import ROOT_CONFIG
from tests.unit.gates.experiment_case import ExperimentCase
from tests.unit.gates.test_terminal import Screen

KEYS = {"stage", "recommendation", "reason", "message", "performance_score", "suggestions", "user_options"}
KEYS |= {"user_choice", "time", "gate", "gate_reasons", "color", "language"}
OF_A_SUGGESTION = {"text", "text_en", "text_ko", "figure", "value", "wanted", "key", "new_value", "override"}


@pytest.fixture
def case(tmp_path: Path) -> ExperimentCase:
    case = ExperimentCase(tmp_path / "exp")
    save_config(load_config(ROOT_CONFIG, ["ui.language=ko", "loss.label_smoothing=0.05"]), case.dir / "config.yaml")
    return case


def ask(case: ExperimentCase, typed: str | None = None, **options: Any) -> tuple[dict[str, Any], str]:
    stdin, stdout = (io.StringIO(), io.StringIO()) if typed is None else (Screen(typed), Screen())
    advice = advise(case.dir, 1, evaluate_gate(case.dir, 1), terminal=Terminal(stdin, stdout), **options)
    return advice, stdout.getvalue()


@pytest.mark.req("ADV-1", "ADV-2")
def test_the_advice_is_written(case: ExperimentCase) -> None:
    case.change("metrics", val__classification__acc=0.1)
    advice, _ = ask(case)
    assert read_json(case.dir / "reports" / "advice.json") == advice
    assert set(advice) == KEYS
    assert all(set(suggestion) == OF_A_SUGGESTION for suggestion in advice["suggestions"])
    assert advice["user_choice"] == "no choice"


@pytest.mark.req("ADV-1")
def test_new_values_come_from_the_runs_own_configuration(case: ExperimentCase) -> None:
    case.change("metrics", val__classification__acc=0.1)
    first = ask(case)[0]["suggestions"][0]
    assert (first["figure"], first["value"], first["override"]) == (
        "classification.accuracy",
        0.1,
        "loss.label_smoothing=0.1",
    )


@pytest.mark.req("ADV-2")
@pytest.mark.parametrize(("options", "title"), [({}, "Stage 평가 완료"), ({"language": "en"}, "Stage evaluated")])
def test_the_language_is_that_of_the_configuration_unless_asked_for(
    case: ExperimentCase, options: dict[str, Any], title: str
) -> None:
    assert title in ask(case, **options)[1]


@pytest.mark.req("ADV-2")
@pytest.mark.parametrize(("is_interactive", "choice"), [(True, "2"), (False, "no choice")])
def test_the_choice_is_recorded(case: ExperimentCase, is_interactive: bool, choice: str) -> None:
    ask(case, "2\n", interactive=is_interactive)
    assert read_json(case.dir / "reports" / "advice.json")["user_choice"] == choice


@pytest.mark.req("ADV-1", "GNG-1")
def test_the_gates_reasons_stand_in_the_box(case: ExperimentCase) -> None:
    case.change("metrics", val__classification__acc=0.5)
    advice, shown = ask(case)
    assert (advice["gate"], advice["gate_reasons"]) == ("no-go", ["ACC_BELOW_TARGET"])
    assert "게이트: NO-GO\n║    ACC_BELOW_TARGET" in shown


@pytest.mark.req("STG-4")
def test_a_run_that_its_time_limit_ended_in_order_goes_on(case: ExperimentCase) -> None:
    case.change("run", time_cap={"is_success": True})
    case.change("metrics", val__classification__acc=0.1)
    case.pass_checks("onnx_conversion_success", status="not run")
    advice, _ = ask(case, language="en")
    assert (advice["recommendation"], advice["reason"]) == ("RECOMMEND_PROCEED", "time_cap_success")


def test_a_configuration_of_another_version_leaves_keys_without_values(
    case: ExperimentCase, caplog: pytest.LogCaptureFixture
) -> None:
    (case.dir / "config.yaml").write_text("train: {}\n")
    case.change("metrics", val__classification__acc=0.1)
    with caplog.at_level(logging.WARNING, "pillsnap"):
        first = ask(case)[0]["suggestions"][0]
    assert (first["key"], first["new_value"]) == ("loss.label_smoothing", None)
    assert "Suggestions name keys without new values" in caplog.text
