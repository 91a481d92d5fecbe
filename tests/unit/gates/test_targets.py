import math
from fractions import Fraction

import pytest

from pillsnap.errors import ConfigError
from pillsnap.gates.targets import STAGES, get_stage_config, get_stage_target, parse_target

# D-14 as written in the specification, section by section.
FIGURES: dict[int, dict[str, str]] = {
    1: {
        "detection.mAP_0.5": ">=0.30",
        "detection.inference_time_ms": "<=50",
        "classification.accuracy": ">=0.40",
        "classification.inference_time_ms": "<=10",
        "system.gpu_memory_gb": "<=14",
        "system.data_loading_s": "<=2",
    },
    2: {
        "detection.mAP_0.5": ">=0.50",
        "detection.mAP_0.5_0.95": ">=0.35",
        "detection.precision": ">=0.45",
        "detection.recall": ">=0.40",
        "classification.accuracy": ">=0.60",
        "classification.macro_f1": ">=0.55",
        "classification.top5_accuracy": ">=0.80",
        "optimization.batch_size_achieved": ">=8",
        "optimization.throughput_img_s": ">=100",
    },
    3: {
        "detection.mAP_0.5": ">=0.70",
        "detection.mAP_0.5_0.95": ">=0.50",
        "detection.recall_0.5": ">=0.75",
        "detection.precision_0.5": ">=0.70",
        "classification.accuracy": ">=0.75",
        "classification.macro_f1": ">=0.70",
        "classification.top5_accuracy": ">=0.90",
        "classification.per_class_min_f1": ">=0.30",
        "scalability.multi_batch_size": ">=32",
        "scalability.memory_stable_hours": ">=12",
        "scalability.api_response_time": "<=100ms",
    },
    4: {
        "detection.mAP_0.5": ">=0.85",
        "detection.mAP_0.5_0.95": ">=0.65",
        "detection.recall_0.5": ">=0.90",
        "detection.precision_0.5": ">=0.85",
        "classification.accuracy": ">=0.92",
        "classification.macro_f1": ">=0.88",
        "classification.top5_accuracy": ">=0.98",
        "classification.top1_per_class": ">=0.85",
        "production.inference_latency_ms": "<=30",
        "production.throughput_img_s": ">=200",
        "production.api_uptime": ">=99.9%",
    },
}
CHECKS = {
    1: ["pipeline_complete", "detection_model_loading", "classification_model_loading", "onnx_conversion_success"],
    2: [
        "auto_batch_tuning_success",
        "tensorboard_logging",
        "class_balance_verification",
        "memory_optimization_working",
    ],
    3: ["scalability_test_pass", "multi_batch_processing", "memory_leak_test", "stability_test_pass"],
    4: ["full_dataset_processing", "production_api_deployment", "cloudflare_tunnel_setup", "automated_monitoring"],
}
NO_FIGURES = [None, math.nan, math.inf, -0.1, "0.9", True, 92.0]


@pytest.mark.req("CRT-1")
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_the_targets_of_the_specification(stage: int) -> None:
    config = get_stage_config(stage)
    assert {target.name: target.wanted for target in config.performance_targets} == FIGURES[stage]
    assert list(config.mandatory_checks) == CHECKS[stage]


@pytest.mark.req("CRT-1")
def test_stage_2_has_the_advanced_metrics_of_the_specification() -> None:
    advanced = {target.name: (target.quantity, target.wanted) for target in get_stage_config(2).advanced_metrics}
    assert advanced == {
        "class_imbalance_ratio": ("", "<=10:1"),
        "convergence_stability": ("loss_variance", "<0.1"),
        "memory_efficiency": ("peak_usage/avg_usage", "<1.5"),
    }


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize(
    ("text", "value", "is_met", "ratio"),
    [
        ("≥0.40", 0.40, True, Fraction(1)),
        ("≥0.40", 0.28, False, Fraction(7, 10)),
        ("≥0.40", 0.9, True, Fraction(1)),
        ("≥0.40", 0, False, Fraction(0)),
        ("≤50", 50, True, Fraction(1)),
        ("≤50", 0, True, Fraction(1)),
        ("≤50", 100, False, Fraction(1, 2)),
        ("≥99.9%", 99.9, True, Fraction(1)),
        ("loss_variance < 0.1", 0.1, False, Fraction(1)),
    ],
)
def test_a_target_tells_how_much_of_it_is_reached(text: str, value: float, is_met: bool, ratio: Fraction) -> None:
    target = parse_target("a.b", text)
    assert (target.is_met(value), target.ratio(value)) == (is_met, ratio)


@pytest.mark.req("CRT-2", "ADV-1")
@pytest.mark.parametrize("value", NO_FIGURES, ids=repr)
def test_what_is_no_figure_meets_nothing(value: object) -> None:
    target = parse_target("classification.accuracy", "≥0.40")
    assert (target.is_met(value), target.ratio(value)) == (False, Fraction(0))


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize("stage", STAGES)
def test_a_score_is_1_only_when_every_target_is_met(stage: int) -> None:
    config = get_stage_config(stage)
    figures = {target.name: float(target.bound) for target in config.performance_targets}
    assert config.score(figures) == 1
    for name in figures:
        assert config.score({**figures, name: None}) == 1 - Fraction(1, len(figures))


@pytest.mark.req("ADV-1")
def test_a_score_just_below_1_is_not_rounded_up() -> None:
    config = get_stage_config(1)
    figures = {target.name: float(target.bound) for target in config.performance_targets}
    assert config.score({**figures, "classification.accuracy": math.nextafter(0.4, 0)}) < 1


@pytest.mark.req("CRT-1")
@pytest.mark.parametrize("stage", [0, 5, "1", True, None], ids=repr)
def test_an_unknown_stage_is_refused(stage: object) -> None:
    with pytest.raises(ConfigError, match="the stages are 1, 2, 3 and 4"):
        get_stage_config(stage)  # type: ignore[arg-type]


def test_one_target_is_found_by_name() -> None:
    assert get_stage_target(4, "production.api_uptime").bound == Fraction("99.9")


def test_an_unknown_target_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no target 'detection.map'; it has detection.mAP_0.5"):
        get_stage_target(1, "detection.map")


@pytest.mark.parametrize("text", ["0.30", "≥", "≥abc", "=3", "≥3 kg"])
def test_a_criterion_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted ≥, ≤ or < with a number"):
        parse_target("a.b", text)
