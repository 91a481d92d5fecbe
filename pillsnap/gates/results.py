"""Every figure that the stages' rules ask for, with the file it was measured in.

What was not measured is None and so not met: nothing is filled in. The final test's figures are no part of it; a gate
that looked at them would wear the test out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pillsnap.gates.numbers import exact
from pillsnap.gates.sources import (
    CHECKS,
    CLASS_MAP,
    LATENCY,
    METRICS,
    PREDICTIONS,
    RUN,
    STDERR,
    TENSORBOARD,
    Sources,
    at,
)
from pillsnap.gates.targets import get_stage_config

VAL = "val"
MB_A_GB = 1000.0
MOST_OOMS = 5
"""More recoveries from a lack of memory than this are a reason to stop (D-14), and no stable memory either."""
EPOCHS_FOR_VARIANCE = 5
CHECKS_OF_MEMORY = ("memory_optimization_working", "memory_leak_test", "stability_test_pass")

# How `Recovery` words a decision that followed a lack of memory.
_OOM_DECISION = re.compile(r"(amp_fp16|microbatching|global_batch_change) at step |step \d+: ")
_TRACEBACK = "Traceback (most recent call last)"
_NON_FINITE = "NonFiniteLossError"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value."""

    value: float | bool | None
    """None: not measured."""
    file: str | None = None
    """Where it stands, relative to the experiment's folder."""


UNMEASURED = Figure(None)


@dataclass(frozen=True)
class Results:
    """What an experiment has to show."""

    exp_dir: Path
    figures: Mapping[str, Figure]
    """By name: the targets of D-14 (`detection.mAP_0.5`), its advanced metrics, and the figures of D-12."""
    checks: Mapping[str, Mapping[str, Any]]
    """The evidence as in `checks.json`."""

    def __getitem__(self, name: str) -> Figure:
        """Return a figure; one that nobody measures is `UNMEASURED`."""
        return self.figures.get(name, UNMEASURED)

    def value(self, name: str) -> float | bool | None:
        """Return a figure's value; None where it was not measured."""
        return self[name].value

    def values(self) -> dict[str, float | bool | None]:
        """Return all values by name."""
        return {name: figure.value for name, figure in self.figures.items()}

    def simple(self) -> dict[str, float | bool | None]:
        """Return what `simple_stage_evaluation` asks for."""
        return {name: self.value(name) for name in SIMPLE}

    def for_advisor(self, stage: int) -> dict[str, Any]:
        """Return what `OptimizationAdvisor.evaluate_and_recommend` asks for."""
        passed = {
            name: at(self.checks, name, "status") == "passed" for name in get_stage_config(stage).mandatory_checks
        }
        return {**self.values(), "mandatory_checks": passed}


def gather_results(exp_dir: Path, checks: Mapping[str, Mapping[str, Any]] | None = None) -> Results:
    """Collect the figures of an experiment from its files (CRT-1, GNG-1).

    Args:
        exp_dir: The experiment's folder.
        checks: Evidence as in `checks.json`; None reads that file and leaves out what no longer counts.

    Returns:
        The figures; those that were not measured, or whose file is missing or damaged, are None.
    """
    sources = Sources(exp_dir, checks)
    figures = dict(_copied(sources))
    for name, measure in _MEASURES.items():
        figures[name] = measure(sources)
    return Results(exp_dir, figures, sources.checks)


# D-14's name -> where the evaluation of the best models on val has it.
_OF_EVALUATION = {
    "detection.mAP_0.5": ("detection", "mAP@0.5"),
    "detection.mAP_0.5_0.95": ("detection", "mAP@0.5:0.95"),
    "detection.precision": ("detection", "precision"),
    "detection.precision_0.5": ("detection", "precision"),
    "detection.recall": ("detection", "recall"),
    "detection.recall_0.5": ("detection", "recall"),
    "classification.accuracy": ("classification", "acc"),
    "classification.macro_f1": ("classification", "macro_f1"),
    "classification.top5_accuracy": ("classification", "top5"),
    "classification.per_class_min_f1": ("classification", "per_class_min_f1"),
    "classification.top1_per_class": ("classification", "top1_per_class_min"),
    "accuracy": ("classification", "acc"),
    "n_eval_samples": ("classification", "n"),
}
_OF_LATENCY = {
    "detection.inference_time_ms": ("detector", "p95_ms"),
    "classification.inference_time_ms": ("classifier", "p95_ms"),
    "production.inference_latency_ms": ("combo", "p95_ms"),
}
# Of a check that passed; how long memory stayed stable in a run that failed is no such figure.
_OF_CHECKS = {
    "scalability.multi_batch_size": "multi_batch_processing",
    "scalability.memory_stable_hours": "stability_test_pass",
    "scalability.api_response_time": "production_api_deployment",
}
_OF_RUN = {
    "class_imbalance_ratio": ("selection", "class_balance", "splits", "train", "imbalance_ratio"),
    "data_corruption_rate": ("data", "damaged_share"),
}


def _copied(sources: Sources) -> Iterator[tuple[str, Figure]]:
    """Yield the figures that stand in a file as they are."""
    val, val_file = _evaluation(sources)
    for name, keys in _OF_EVALUATION.items():
        yield name, _figure(at(val, *keys), val_file)
    for name, keys in _OF_LATENCY.items():
        yield name, _figure(at(sources.latency, *keys), LATENCY)
    for name, path in _OF_RUN.items():
        yield name, _figure(at(sources.run, *path), RUN)
    for name, check in _OF_CHECKS.items():
        is_passed = at(sources.checks, check, "status") == "passed"
        file = at(sources.checks, check, "file") or CHECKS
        yield name, _figure(at(sources.checks, check, "value"), file) if is_passed else UNMEASURED


def _figure(value: object, file: str) -> Figure:
    """Return a figure; what is no finite number was not measured."""
    number = exact(value)
    return UNMEASURED if number is None else Figure(float(number), file)


def _evaluation(sources: Sources) -> tuple[dict[str, Any], str]:
    """Return what the best models reached on val, and the file that says so; never figures of the test split."""
    for content, name in ((at(sources.metrics, VAL), METRICS), (at(sources.run, "evaluation"), RUN)):
        if isinstance(content, dict) and content.get("split", VAL) == VAL:
            return content, name
    return {}, METRICS


def _gpu_memory_gb(sources: Sources) -> Figure:
    """Most GPU memory allocated in training; a run without a GPU says nothing about it."""
    device = at(sources.run, "device")
    peaks = _scalars(sources, "perf/cuda_mem")
    if not isinstance(device, str) or not device.startswith("cuda") or not peaks:
        return UNMEASURED
    return _figure(max(peaks) / MB_A_GB, TENSORBOARD)


def _data_loading_s(sources: Sources) -> Figure:
    """Longest wait for the samples of a step, as a mean over the steps between two log lines."""
    waits = _scalars(sources, "perf/data_time")
    return _figure(max(waits), TENSORBOARD) if waits else UNMEASURED


def _batch_size(sources: Sources) -> Figure:
    """The micro-batch the last epoch was trained with; the smaller one of two tasks."""
    sizes = [sources.scalars[tag][-1] for tag in _tags(sources, "perf/batch_size")]
    return _figure(min(sizes), TENSORBOARD) if sizes else UNMEASURED


def _training_throughput(sources: Sources) -> Figure:
    """Samples a second in training, waiting included: the classifier's, or those of the only task."""
    tasks = at(sources.run, "tasks")
    name = "classification" if at(tasks, "classification") is not None else "detection"
    return _figure(at(tasks, name, "throughput"), RUN)


def _answer_throughput(sources: Sources) -> Figure:
    """Pictures answered a second: in batches where the scalability test measured that, else one after the other."""
    check = sources.checks.get("scalability_test_pass", {})
    file = check.get("file")
    if check.get("status") == "passed" and isinstance(file, str):
        found = [exact(each[1]) for each in at(sources.json(file), "passes") or [] if len(each) > 1]
        seconds = [each for each in found if each is not None and each > 0]
        if seconds:
            return Figure(float(1 / min(seconds)), file)
    mean_ms = exact(at(sources.latency, "single", "mean_ms"))
    return Figure(float(1000 / mean_ms), LATENCY) if mean_ms is not None and mean_ms > 0 else UNMEASURED


def _uptime(sources: Sources) -> Figure:
    """Share of the time the service answered, in percent, as the monitoring saw it."""
    check = sources.checks.get("automated_monitoring", {})
    file = check.get("file")
    if check.get("status") != "passed" or not isinstance(file, str):
        return UNMEASURED
    return _figure(at(sources.json(file), "uptime_percent"), file)


def _loss_variance(sources: Sources) -> Figure:
    """Variance of the classifier's training loss over its last epochs; too few of them say nothing."""
    history = at(sources.metrics, "history", "classification") or []
    losses = [at(epoch, "train_loss") for epoch in history[-EPOCHS_FOR_VARIANCE:]]
    if len(losses) < EPOCHS_FOR_VARIANCE or any(exact(loss) is None for loss in losses):
        return UNMEASURED
    return _figure(float(np.var(losses)), METRICS)


def _epochs_since_best(task: str) -> Callable[[Sources], Figure]:
    """Epochs a task trained on after its best one."""

    def measure(sources: Sources) -> Figure:
        history = at(sources.metrics, "history", task) or []
        best = [place for place, epoch in enumerate(history, start=1) if at(epoch, "is_best") is True]
        return Figure(float(len(history) - best[-1]), METRICS) if best else UNMEASURED

    return measure


def _memory_efficiency(sources: Sources) -> Figure:
    """Most memory in use before an epoch, over the mean."""
    shares = _scalars(sources, "perf/memory_use")
    return _figure(max(shares) / float(np.mean(shares)), TENSORBOARD) if shares and max(shares) > 0 else UNMEASURED


def _latency_p95(sources: Sources) -> Figure:
    """p95 of the slower way to answer; where both models were trained, both ways must have been timed."""
    tasks = at(sources.run, "tasks") or {}
    modes = ["single", "combo"] if "detection" in tasks else ["single"]
    found = [exact(at(sources.latency, mode, "p95_ms")) for mode in modes]
    times = [time for time in found if time is not None]
    return Figure(float(max(times)), LATENCY) if len(times) == len(modes) else UNMEASURED


def _class_coverage(sources: Sources) -> Figure:
    """Share of the classes in the class map that the val split showed."""
    table, codes = sources.predictions, at(sources.json(CLASS_MAP), "codes")
    if table is None or not isinstance(codes, list) or not codes:
        return UNMEASURED
    return Figure(len(set(table.true_code) & set(codes)) / len(codes), PREDICTIONS)


def _no_crashes(sources: Sources) -> Figure:
    """Whether the run came to its end, no process of it left a traceback, and no long run of checks stopped."""
    if not sources.run.get("ended"):
        return Figure(False, RUN)
    if _TRACEBACK in sources.text(STDERR):
        return Figure(False, STDERR)
    if at(sources.checks, "stability_test_pass", "status") == "failed":
        return Figure(False, at(sources.checks, "stability_test_pass", "file") or CHECKS)
    return Figure(True, RUN)


def _memory_stable(sources: Sources) -> Figure:
    """Whether the run ended with few recoveries from a lack of memory, and memory passed the checks that were run."""
    failed = [name for name in CHECKS_OF_MEMORY if at(sources.checks, name, "status") == "failed"]
    if failed:
        return Figure(False, at(sources.checks, failed[0], "file") or CHECKS)
    ooms = exact(_repeated_oom(sources).value)
    is_known = bool(sources.run.get("ended")) and at(sources.run, "peak_memory_mb", "main") is not None
    return Figure(is_known and ooms is not None and ooms <= MOST_OOMS, RUN)


def _repeated_oom(sources: Sources) -> Figure:
    """Recoveries from a lack of memory over the whole run."""
    decisions = sources.run.get("decisions")
    if not isinstance(decisions, list):
        return UNMEASURED
    return Figure(float(sum(map(_follows_oom, decisions))), RUN)


def _follows_oom(decision: object) -> bool:
    what, why = str(at(decision, "what")), str(at(decision, "why"))
    return what.endswith((": cut", ": loading")) and _OOM_DECISION.match(why) is not None


def _loss(sources: Sources) -> Figure:
    """Training loss of the last epoch; NaN where the run was ended by one that was not finite."""
    if not sources.run.get("ended") and _NON_FINITE in sources.text(STDERR):
        return Figure(math.nan, STDERR)
    latest = at(sources.metrics, "latest") or {}
    task = "classification" if "classification" in latest else "detection"
    return _figure(at(latest, task, "train_loss"), METRICS)


def _scalars(sources: Sources, tag: str) -> list[float]:
    """Return the values of a figure of both tasks."""
    return [value for each in _tags(sources, tag) for value in sources.scalars[each] if math.isfinite(value)]


def _tags(sources: Sources, tag: str) -> list[str]:
    return [each for each in (tag, f"detection/{tag}") if sources.scalars.get(each)]


_MEASURES: dict[str, Callable[[Sources], Figure]] = {
    "system.gpu_memory_gb": _gpu_memory_gb,
    "system.data_loading_s": _data_loading_s,
    "optimization.batch_size_achieved": _batch_size,
    "optimization.throughput_img_s": _training_throughput,
    "production.throughput_img_s": _answer_throughput,
    "production.api_uptime": _uptime,
    "classification.epochs_since_best": _epochs_since_best("classification"),
    "detection.epochs_since_best": _epochs_since_best("detection"),
    "convergence_stability": _loss_variance,
    "memory_efficiency": _memory_efficiency,
    "latency_p95_ms": _latency_p95,
    "class_coverage": _class_coverage,
    "no_crashes": _no_crashes,
    "memory_stable": _memory_stable,
    "repeated_oom": _repeated_oom,
    "loss": _loss,
}
SIMPLE = ("latency_p95_ms", "n_eval_samples", "class_coverage", "accuracy", "no_crashes", "memory_stable")
"""The figures of D-12."""
