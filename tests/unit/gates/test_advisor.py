import io
import math
from fractions import Fraction
from typing import Any

import pytest

from pillsnap.config.loading import load_config
from pillsnap.errors import ConfigError
from pillsnap.gates.advisor import OptimizationAdvisor, performance_score
from pillsnap.gates.targets import STAGES, get_stage_config
from pillsnap.gates.terminal import NO_CHOICE, Terminal
from tests.unit.config.builders import ROOT_CONFIG
from tests.unit.gates.test_terminal import Screen

PROCEED, OPTIMIZE, STOP = "RECOMMEND_PROCEED", "SUGGEST_OPTIMIZE", "WARN_STOP"


def of_share(stage: int, share: float, **changes: Any) -> dict[str, Any]:
    """Return figures that each reach `share` of their target, all checks passed; in binary, shares are not exact."""
    config = get_stage_config(stage)
    figures = {}
    for target in config.performance_targets:
        exact = Fraction(str(share))
        figures[target.name] = float(target.bound * exact if target.comparison == ">=" else target.bound / exact)
    return {**figures, "mandatory_checks": dict.fromkeys(config.mandatory_checks, True), **changes}


def advise(
    stage: int, results: dict[str, Any], *, language: str = "ko", typed: str | None = None
) -> tuple[dict[str, Any], str]:
    """Return the advice and what the terminal shows; `typed` makes it one where somebody sits."""
    stdin, stdout = (io.StringIO(), io.StringIO()) if typed is None else (Screen(typed), Screen())
    terminal = Terminal(stdin, stdout)
    advisor = OptimizationAdvisor(language=language, cfg=load_config(ROOT_CONFIG), terminal=terminal)
    return advisor.evaluate_and_recommend(stage, results), stdout.getvalue()


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("share", "recommendation", "reason", "message"),
    [
        (1.0, PROCEED, "all_targets_met", "Stage {} 모든 목표 달성!"),
        (0.99, PROCEED, "sufficient_performance", "Stage {} 충분한 성능 달성"),
        (0.71, PROCEED, "sufficient_performance", "Stage {} 충분한 성능 달성"),
        (0.69, OPTIMIZE, "performance_below_target", "Stage {} 성능 미달. 최적화 권장"),
        (0.5, OPTIMIZE, "performance_below_target", "Stage {} 성능 미달. 최적화 권장"),
        (0.49, STOP, "performance_too_low", "Stage {} 성능이 매우 낮음"),
        (0.1, STOP, "performance_too_low", "Stage {} 성능이 매우 낮음"),
    ],
)
def test_the_score_decides(stage: int, share: float, recommendation: str, reason: str, message: str) -> None:
    advice, _ = advise(stage, of_share(stage, share))
    assert (advice["recommendation"], advice["reason"]) == (recommendation, reason)
    assert advice["message"] == message.format(stage)
    assert advice["performance_score"] == pytest.approx(share, abs=1e-9)


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize(
    ("met", "part", "expected"),
    [
        (6, 0.3, "sufficient_performance"),  # (6 + 0.3) / 9 = 0.7
        (6, math.nextafter(0.3, 0), "performance_below_target"),
        (4, 0.5, "performance_below_target"),  # (4 + 0.5) / 9 = 0.5
        (4, math.nextafter(0.5, 0), "performance_too_low"),
        (8, 1.0, "all_targets_met"),
        (8, math.nextafter(1.0, 0), "sufficient_performance"),
    ],
)
def test_the_boundaries_are_exact(met: int, part: float, expected: str) -> None:
    names = [target.name for target in get_stage_config(2).performance_targets]
    varying, others = "optimization.batch_size_achieved", [name for name in names if "batch_size" not in name]
    missing: dict[str, Any] = dict.fromkeys(others[met:], None)
    results = of_share(2, 1.0, **missing, **{varying: 8 * part})
    assert performance_score(results, get_stage_config(2)) == (met + Fraction(repr(8 * part)) / 8) / 9
    advice, _ = advise(2, results)
    assert advice["reason"] == expected
    assert (advice["performance_score"] == 1.0) == (expected == "all_targets_met")


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize("value", [math.nan, None, math.inf, "0.9", True], ids=repr)
def test_a_figure_that_is_none_counts_as_nothing(value: object) -> None:
    advice, _ = advise(1, of_share(1, 1.0, **{"classification.accuracy": value}))
    assert advice["performance_score"] == pytest.approx(5 / 6)
    assert advice["reason"] == "sufficient_performance"


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize(
    ("changes", "is_critical"),
    [
        ({"repeated_oom": 5}, False),
        ({"repeated_oom": 6}, True),
        ({"repeated_oom": math.nan}, True),
        ({"loss": 0.5}, False),
        ({"loss": None}, False),
        ({"loss": math.nan}, True),
        ({"loss": math.inf}, True),
        ({"data_corruption_rate": 0.01}, False),
        ({"data_corruption_rate": 0.0101}, True),
        ({"data_corruption_rate": "many"}, True),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_some_failures_stop_every_stage(stage: int, changes: dict[str, Any], is_critical: bool) -> None:
    advice, _ = advise(stage, of_share(stage, 1.0, **changes))
    expected = (STOP, "critical_failure") if is_critical else (PROCEED, "all_targets_met")
    assert (advice["recommendation"], advice["reason"]) == expected


@pytest.mark.req("ADV-1")
def test_a_critical_failure_is_said_before_a_check_that_failed() -> None:
    advice, _ = advise(
        1, of_share(1, 1.0, mandatory_checks={}, repeated_oom=7, data_corruption_rate=0.5), language="en"
    )
    assert advice["reason"] == "critical_failure"
    assert "7 times out of memory (at most 5); 0.5 of the data is damaged (at most 0.01)" in advice["message"]


@pytest.mark.req("ADV-1", "CRT-2")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("value", [False, None, "passed", 1, {"status": "failed"}, {"status": "not run"}], ids=repr)
def test_a_mandatory_check_that_did_not_pass_stops(stage: int, value: object) -> None:
    for name in get_stage_config(stage).mandatory_checks:
        results = of_share(stage, 1.0)
        results["mandatory_checks"][name] = value
        advice, _ = advise(stage, results)
        assert (advice["recommendation"], advice["reason"]) == (STOP, "mandatory_checks_failed")
        assert advice["message"].endswith(name)


@pytest.mark.req("ADV-1", "CRT-2")
@pytest.mark.parametrize("checks", [None, {}, ["pipeline_complete"]], ids=repr)
def test_checks_nobody_ran_did_not_pass(checks: object) -> None:
    assert advise(1, of_share(1, 1.0, mandatory_checks=checks))[0]["reason"] == "mandatory_checks_failed"


def test_evidence_as_in_checks_json_counts() -> None:
    evidence = {name: {"status": "passed"} for name in get_stage_config(1).mandatory_checks}
    assert advise(1, of_share(1, 1.0, mandatory_checks=evidence))[0]["reason"] == "all_targets_met"


@pytest.mark.req("ADV-1")
def test_the_specifications_flat_names_count() -> None:
    flat = {
        "detection_mAP_0.5": 0.3,
        "detection_inference_time_ms": 50,
        "classification_accuracy": 0.4,
        "classification_inference_time_ms": 10,
        "gpu_memory_gb": 14,
        "data_loading_time_s": 2,
        "mandatory_checks": dict.fromkeys(get_stage_config(1).mandatory_checks, True),
    }
    assert advise(1, flat)[0]["reason"] == "all_targets_met"


OPTIONS = {
    1.0: ["[1] Stage 3로 진행", "[2] 현재 Stage에서 추가 최적화", "[3] 상세 분석 리포트 생성"],
    0.8: ["[1] 현재 성능으로 다음 Stage 진행", "[2] 권장 최적화 적용 후 재시도", "[3] 수동 하이퍼파라미터 조정"],
    0.6: ["[1] 권장사항 적용 후 재시도", "[2] 현재 성능으로 진행 (위험)", "[3] 상세 디버깅 모드"],
    0.2: ["[1] 강력한 최적화 적용 후 재시도", "[2] 아키텍처 재검토", "[3] 데이터 품질 점검"],
}


@pytest.mark.req("ADV-1", "ADV-2")
@pytest.mark.parametrize("share", OPTIONS)
def test_the_options_are_those_of_the_specification(share: float) -> None:
    advice, shown = advise(2, of_share(2, share))
    assert advice["user_options"] == OPTIONS[share]
    assert all(option in shown for option in OPTIONS[share])


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize("share", [1.0, 0.8])
def test_the_last_stage_has_no_next_one(share: float) -> None:
    advice, _ = advise(4, of_share(4, share), language="en")
    assert advice["user_options"][0] == "[1] Go on to deployment"


@pytest.mark.req("ADV-1", "ADV-2")
@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "ko",
            [
                "🎯 Stage 평가 완료",
                "🟡 Stage 1 성능 미달. 최적화 권장",
                "📊 성능 점수: 0.600",
                "💡 권장사항:",
                "🎭 선택 옵션:",
            ],
        ),
        ("en", ["🎯 Stage evaluated", "🟡 Stage 1: below target", "📊 Performance score: 0.600", "💡 Suggestions:"]),
    ],
)
def test_the_box_is_drawn_in_the_terminal(language: str, words: list[str]) -> None:
    advice, shown = advise(1, of_share(1, 0.6), language=language)
    assert all(word in shown for word in words)
    assert [f"  {number}. " in shown for number in (1, 3, 4)] == [True, True, False]
    assert len(advice["suggestions"]) > 3
    assert advice["suggestions"][0]["override"] in shown


@pytest.mark.req("ADV-2")
@pytest.mark.parametrize("choice", ["1", "2", "3"])
def test_the_user_chooses_at_a_terminal(choice: str) -> None:
    advice, shown = advise(1, of_share(1, 0.6), typed=f"{choice}\n")
    assert advice["user_choice"] == choice
    assert "선택하세요 [1-3]: " in shown


@pytest.mark.req("ADV-2")
def test_without_a_terminal_nobody_chose_and_nobody_is_asked() -> None:
    advice, shown = advise(1, of_share(1, 0.6))
    assert advice["user_choice"] == NO_CHOICE
    assert "[1-3]" not in shown


@pytest.mark.req("ADV-1")
def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no stage 0"):
        advise(0, {})


def test_d_14s_own_name_of_the_suggestions_gives_them() -> None:
    advisor = OptimizationAdvisor(language="en", cfg=load_config(ROOT_CONFIG))
    assert advisor.diagnose_and_suggest({"system.gpu_memory_gb": 15}, 1)[0].figure == "system.gpu_memory_gb"
