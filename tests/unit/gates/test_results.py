import logging
import math
from pathlib import Path
from typing import Any

import pytest

from pillsnap.config.loading import load_config
from pillsnap.evaluation.prediction_table import write_predictions
from pillsnap.gates.results import gather_results
from pillsnap.gates.targets import STAGES, get_stage_config
from pillsnap.training.recovery import Cut, Recovery
from pillsnap.training.telemetry import TBWriter
from tests.unit.config.builders import ROOT_CONFIG
from tests.unit.gates.experiment_case import ExperimentCase, predictions

METRICS, RUN, LATENCY, CHECKS = (f"reports/{name}.json" for name in ("metrics", "run", "latency", "checks"))


@pytest.fixture
def case(tmp_path: Path) -> ExperimentCase:
    return ExperimentCase(tmp_path / "exp")


@pytest.mark.req("CRT-1")
@pytest.mark.parametrize(
    ("name", "value", "file"),
    [
        ("detection.mAP_0.5", 0.95, METRICS),
        ("detection.mAP_0.5_0.95", 0.7, METRICS),
        ("detection.recall_0.5", 0.8, METRICS),
        ("classification.accuracy", 0.9, METRICS),
        ("classification.per_class_min_f1", 0.6, METRICS),
        ("classification.top1_per_class", 0.7, METRICS),
        ("classification.inference_time_ms", 9.0, LATENCY),
        ("production.inference_latency_ms", 9.0, LATENCY),
        ("production.throughput_img_s", 250.0, LATENCY),
        ("optimization.throughput_img_s", 150.0, RUN),
        ("class_imbalance_ratio", 3.0, RUN),
        ("convergence_stability", 0.24, METRICS),
        ("data_corruption_rate", 0.001, RUN),
        ("latency_p95_ms", 9.0, LATENCY),
        ("n_eval_samples", 2000.0, METRICS),
        ("class_coverage", 1.0, "reports/predictions_val.arrow"),
        ("no_crashes", True, RUN),
        ("memory_stable", True, RUN),
        ("repeated_oom", 0.0, RUN),
        ("loss", 0.5, METRICS),
    ],
)
def test_a_figure_names_the_file_it_comes_from(case: ExperimentCase, name: str, value: float, file: str) -> None:
    figure = gather_results(case.dir)[name]
    assert figure.value == pytest.approx(value)
    assert figure.file == file


@pytest.mark.req("CRT-1", "CRT-2")
def test_an_empty_folder_has_no_figures(tmp_path: Path) -> None:
    results = gather_results(tmp_path)
    measured = {name: figure.value for name, figure in results.figures.items() if figure.value is not None}
    assert measured == {"no_crashes": False, "memory_stable": False}


@pytest.mark.req("CRT-1")
@pytest.mark.parametrize("stage", STAGES)
def test_every_criterion_has_a_figure(tmp_path: Path, stage: int) -> None:
    config = get_stage_config(stage)
    wanted = {target.name for target in (*config.performance_targets, *config.advanced_metrics)}
    assert wanted <= set(gather_results(tmp_path).figures)


@pytest.mark.req("CRT-1")
def test_a_damaged_report_holds_no_figure(case: ExperimentCase, caplog: pytest.LogCaptureFixture) -> None:
    (case.dir / METRICS).write_text('{"val": {"classification": {"acc": 0.9')
    with caplog.at_level(logging.WARNING, "pillsnap"):
        assert gather_results(case.dir).value("accuracy") is None
    assert "Nothing of it counts" in caplog.text


@pytest.mark.req("CRT-1")
@pytest.mark.parametrize("value", [None, "0.9", True], ids=repr)
def test_what_is_no_number_was_not_measured(case: ExperimentCase, value: object) -> None:
    case.change("metrics", val__classification__acc=value)
    assert gather_results(case.dir).value("classification.accuracy") is None


@pytest.mark.req("FIN-2")
def test_figures_of_the_test_split_are_no_evidence(case: ExperimentCase) -> None:
    case.change("metrics", val=None, test={"split": "test", "classification": {"acc": 0.99}})
    case.change("run", evaluation={"split": "test", "classification": {"acc": 0.99}})
    assert gather_results(case.dir).value("classification.accuracy") is None


def test_the_runs_own_evaluation_counts_where_metrics_have_none(case: ExperimentCase) -> None:
    case.change("metrics", val=None)
    case.change("run", evaluation={"split": "val", "classification": {"acc": 0.81}})
    figure = gather_results(case.dir)["classification.accuracy"]
    assert (figure.value, figure.file) == (0.81, RUN)


@pytest.mark.req("CRT-1")
def test_tensorboard_tells_memory_waits_and_batch_sizes(case: ExperimentCase) -> None:
    case.write_tensorboard(
        perf__cuda_mem=[9000.0, 12000.0],
        detection__perf__cuda_mem=[13500.0],
        perf__data_time=[0.5, 0.25],
        perf__batch_size=[64.0, 32.0],
        detection__perf__batch_size=[16.0],
        perf__memory_use=[0.5, 0.75, 0.25],
    )
    results = gather_results(case.dir)
    assert results.value("system.gpu_memory_gb") == 13.5
    assert results.value("system.data_loading_s") == 0.5
    assert results.value("optimization.batch_size_achieved") == 16
    assert results.value("memory_efficiency") == 1.5
    assert results["system.gpu_memory_gb"].file == "tb"


@pytest.mark.req("CRT-1")
def test_a_run_without_a_gpu_says_nothing_about_its_memory(case: ExperimentCase) -> None:
    case.write_tensorboard(perf__cuda_mem=[0.0])
    case.change("run", device="cpu")
    assert gather_results(case.dir).value("system.gpu_memory_gb") is None


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(("status", "hours"), [("passed", 12.5), ("failed", None), ("not run", None)])
def test_a_figure_of_a_check_counts_when_the_check_passed(
    case: ExperimentCase, status: str, hours: float | None
) -> None:
    case.pass_checks("stability_test_pass", status=status, value=12.5)
    assert gather_results(case.dir).value("scalability.memory_stable_hours") == hours


@pytest.mark.req("CRT-1")
def test_uptime_is_what_the_monitoring_saw(case: ExperimentCase) -> None:
    case.change("monitoring", uptime_percent=99.95)
    case.pass_checks("automated_monitoring", file="reports/monitoring.json")
    assert gather_results(case.dir).value("production.api_uptime") == 99.95


@pytest.mark.req("GNG-1", "MEA-1")
def test_latency_is_that_of_the_slower_way_to_answer(case: ExperimentCase) -> None:
    case.change("latency", combo={"p95_ms": 31.0})
    assert gather_results(case.dir).value("latency_p95_ms") == 31.0
    case.change("latency", combo=None)
    assert gather_results(case.dir).value("latency_p95_ms") is None


@pytest.mark.req("MEA-1", "CRT-2")
def test_times_of_other_checkpoints_do_not_count(case: ExperimentCase, caplog: pytest.LogCaptureFixture) -> None:
    (case.dir / "checkpoints" / "detection_best.pt").write_bytes(b"trained on")
    with caplog.at_level(logging.WARNING, "pillsnap"):
        assert gather_results(case.dir).value("latency_p95_ms") is None
    assert "is of other checkpoints" in caplog.text


@pytest.mark.req("CRT-1")
def test_throughput_is_that_of_batches_where_it_was_measured(case: ExperimentCase) -> None:
    case.change("scale", passes=[[256, 0.005, 900.0], [512, 0.004, 900.0]])
    case.pass_checks("scalability_test_pass", file="reports/scale.json")
    figure = gather_results(case.dir)["production.throughput_img_s"]
    assert (figure.value, figure.file) == (250.0, "reports/scale.json")


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize(("best", "epochs"), [([True, True], 0), ([True, False], 1), ([True, True, False, False], 2)])
def test_epochs_since_the_best_are_counted(case: ExperimentCase, best: list[bool], epochs: int) -> None:
    case.change("metrics", history__detection=[{"is_best": each} for each in best])
    assert gather_results(case.dir).value("detection.epochs_since_best") == epochs


def test_a_classifier_alone_needs_no_time_of_combinations(case: ExperimentCase) -> None:
    case.change("run", tasks={"classification": {}})
    case.change("latency", combo=None)
    assert gather_results(case.dir).value("latency_p95_ms") == 9.0


@pytest.mark.req("GNG-1")
def test_coverage_is_the_share_of_classes_that_val_shows(case: ExperimentCase) -> None:
    write_predictions(case.predictions_path, predictions(3, num=4))
    assert gather_results(case.dir).value("class_coverage") == 0.4


@pytest.mark.req("GNG-1", "CRT-2")
def test_damaged_answers_cover_nothing(case: ExperimentCase, caplog: pytest.LogCaptureFixture) -> None:
    case.predictions_path.write_bytes(case.predictions_path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING, "pillsnap"):
        assert gather_results(case.dir).value("class_coverage") is None
    assert "wanted a table of predictions" in caplog.text


@pytest.mark.req("GNG-1")
def test_a_traceback_is_a_crash(case: ExperimentCase) -> None:
    (case.dir / "logs" / "train.err").write_text("Traceback (most recent call last):\n")
    figure = gather_results(case.dir)["no_crashes"]
    assert (figure.value, figure.file) == (False, "logs/train.err")


@pytest.mark.req("GNG-1")
def test_a_run_that_did_not_come_to_its_end_is_a_crash(case: ExperimentCase) -> None:
    case.change("run", ended=None)
    results = gather_results(case.dir)
    assert (results.value("no_crashes"), results.value("memory_stable")) == (False, False)


@pytest.mark.req("GNG-1")
@pytest.mark.parametrize("name", ["memory_leak_test", "stability_test_pass", "memory_optimization_working"])
def test_memory_that_failed_a_check_is_not_stable(case: ExperimentCase, name: str) -> None:
    case.pass_checks(name, status="failed")
    assert gather_results(case.dir).value("memory_stable") is False


class NoTensorBoard(TBWriter):
    def __init__(self) -> None:
        self._writer = None


def recoveries(count: int) -> list[dict[str, Any]]:
    """Return the decisions of a real recovery after `count` failures, as the run's record keeps them."""
    decisions: list[dict[str, Any]] = []
    cfg = load_config(ROOT_CONFIG, ["train.oom.cooldown_sec=0", "train.oom.max_retries=100"])
    recovery = Recovery(
        cfg,
        cut=Cut(2**20, 1),
        is_16bit=False,
        label="train",
        prefix="",
        logger=logging.getLogger("pillsnap"),
        tb=NoTensorBoard(),
        decide=lambda what, before, after, why: decisions.append({"what": what, "why": why}),
    )
    for step in range(count - 1):
        recovery.after_failure("CUDA out of memory", step)
    recovery.after_fetch_failure("Cannot allocate memory", count, 1)
    return decisions


@pytest.mark.req("GNG-1", "ADV-1")
@pytest.mark.parametrize(("count", "is_stable"), [(5, True), (6, False)])
def test_recoveries_from_a_lack_of_memory_are_counted(case: ExperimentCase, count: int, is_stable: bool) -> None:
    tuned = {"what": "train: cut", "why": "auto batch: the smallest of those run"}
    case.change("run", decisions=[tuned, *recoveries(count), {"what": "resume", "why": "train.resume=last"}])
    results = gather_results(case.dir)
    assert (results.value("repeated_oom"), results.value("memory_stable")) == (count, is_stable)


@pytest.mark.req("ADV-1")
def test_a_run_that_a_loss_ended_has_nan_for_a_loss(case: ExperimentCase) -> None:
    (case.dir / "logs" / "train.err").write_text("NonFiniteLossError: [train] the loss of step 7 is nan\n")
    case.change("run", ended=None)
    assert math.isnan(gather_results(case.dir).value("loss") or 0)


def test_the_advisor_is_told_which_checks_passed(case: ExperimentCase) -> None:
    case.pass_checks("onnx_conversion_success", status="failed")
    passed = gather_results(case.dir).for_advisor(1)["mandatory_checks"]
    assert passed["pipeline_complete"]
    assert not passed["onnx_conversion_success"]
