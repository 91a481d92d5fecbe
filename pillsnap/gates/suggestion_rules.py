"""Which figure of a run suggests which change: the table behind the advisor's suggestions.

The specification's own rules (D-14) come first, in its order and words; then those for the rest of its targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pillsnap.gates.changes import (
    LARGEST_MIXUP,
    LARGEST_SCALE,
    LARGEST_SMOOTHING,
    Changer,
    Settings,
    balanced_sampling,
    both_tasks,
    factor,
    faster_compilation,
    first_of,
    larger_val,
    lmdb,
    more_epochs,
    more_prefetching,
    more_workers,
    resized,
    sixteen_bit,
    smaller_batch,
    step_towards,
)
from pillsnap.gates.flat import find_figure
from pillsnap.gates.go_no_go import STAGE_TARGETS
from pillsnap.gates.messages import Text
from pillsnap.gates.numbers import exact
from pillsnap.gates.targets import Target, get_stage_config, get_stage_target, parse_target

FAR_BELOW = Fraction(8, 10)
"""Of a target: below this much of it D-14 has suggestions of its own."""
# The bounds in D-14's code, for every stage; that of data loading is not the one of its targets.
TOO_MUCH_MEMORY = parse_target("system.gpu_memory_gb", "≤14")
SLOW_LOADING = parse_target("system.data_loading_s", "≤3")

MAP, MAP_95 = "detection.mAP_0.5", "detection.mAP_0.5_0.95"
ACCURACY, MACRO_F1 = "classification.accuracy", "classification.macro_f1"
CLASSIFIER_MS, DETECTOR_MS = "classification.inference_time_ms", "detection.inference_time_ms"
PIPELINE_MS, THROUGHPUT = "production.inference_latency_ms", "optimization.throughput_img_s"
MEMORY, LOADING = TOO_MUCH_MEMORY.name, SLOW_LOADING.name


@dataclass(frozen=True)
class Case:
    """What a run of a stage measured, and how it was configured."""

    stage: int
    results: Mapping[str, Any]
    settings: Settings | None

    def value(self, name: str) -> Fraction | None:
        """Return a figure; None where it is none."""
        return exact(find_figure(self.results, name))

    def target(self, name: str) -> Target | None:
        """Return the stage's target of this name; None where it has none."""
        return next((each for each in get_stage_config(self.stage).performance_targets if each.name == name), None)

    def wanted(self, name: str) -> str:
        """Return what the stage wants of a figure; nothing where it wants nothing."""
        target = self.target(name)
        return "" if target is None else target.wanted

    def is_missed(self, name: str) -> bool:
        """Whether a figure was measured and misses its target."""
        value, target = self.value(name), self.target(name)
        return value is not None and target is not None and not target.is_met(value)

    def is_met(self, name: str) -> bool:
        """Whether a figure was measured and meets its target."""
        target = self.target(name)
        return target is not None and target.is_met(self.value(name))

    def is_far_below(self, name: str) -> bool:
        """Whether a figure is below 80 % of its target.

        One that is missing counts as 0, as in D-14, where nothing but a dict of figures is known. Of a run whose
        configuration is known it says that nobody measured it, and no setting changes that.
        """
        value = self.value(name)
        if value is None:
            return self.settings is None
        return value < get_stage_target(self.stage, name).bound * FAR_BELOW

    def is_trained(self, name: str) -> bool:
        """Whether the run trained the task of a figure; where its configuration is not known, it is taken to."""
        task = name.partition(".")[0]
        return self.settings is None or task in (self.settings.get("train.tasks") or [task])

    def is_still_improving(self, name: str) -> bool:
        """Whether the last epoch of the figure's task was its best one."""
        return self.value(f"{name.partition('.')[0]}.epochs_since_best") == 0

    def simple_bound(self, name: str) -> Fraction:
        """Return a bound of the simple evaluation (D-12)."""
        return exact(STAGE_TARGETS[self.stage][name]) or Fraction(0)


@dataclass(frozen=True)
class Rule:
    """When to suggest what."""

    figure: str
    applies: Callable[[Case], bool]
    text: Text
    key: str
    """The key it is about, where the run's configuration is not known."""
    change: Callable[[Case], Changer]
    wanted: Callable[[Case], str] | None = None
    """What the figure had to be; None: what the stage's target says."""


def _always(changer: Changer) -> Callable[[Case], Changer]:
    return lambda _case: changer


def _missed(name: str) -> Callable[[Case], bool]:
    return lambda case: case.is_missed(name)


def _missed_while_met(name: str, met: str) -> Callable[[Case], bool]:
    return lambda case: case.is_missed(name) and case.is_met(met)


def _far_below(name: str) -> Callable[[Case], bool]:
    return lambda case: case.is_trained(name) and case.is_far_below(name)


def _not_trained(name: str) -> Callable[[Case], bool]:
    return lambda case: not case.is_trained(name)


def _still_improving(name: str) -> Callable[[Case], bool]:
    return lambda case: case.is_missed(name) and case.is_still_improving(name)


def _breaks(target: Target) -> Callable[[Case], bool]:
    def applies(case: Case) -> bool:
        value = case.value(target.name)
        return value is not None and not target.is_met(value)

    return applies


def _wants(target: Target) -> Callable[[Case], str]:
    return lambda _case: target.wanted


def _other_learning_rate(case: Case) -> Changer:
    """Halve it; double it where the detector was still getting better in its last epoch."""
    return factor("train.detection.lr", 2 if case.is_still_improving(MAP) else 0.5)


def _has_too_few_samples(case: Case) -> bool:
    value = case.value("n_eval_samples")
    return value is not None and 0 < value < case.simple_bound("min_eval_samples")


def _enough_samples(case: Case) -> Changer:
    return larger_val(float(case.simple_bound("min_eval_samples") / (case.value("n_eval_samples") or Fraction(1))))


def _answers_slowly(case: Case) -> bool:
    value = case.value("latency_p95_ms")
    return value is not None and value > case.simple_bound("max_latency_ms")


def _had_ooms(case: Case) -> bool:
    return (case.value("repeated_oom") or 0) > 0


def _lost_its_loss(case: Case) -> bool:
    return find_figure(case.results, "loss") is not None and case.value("loss") is None


_BALANCE = Text("클래스 불균형 대응 강화 (가중 샘플링)", "Counter the imbalance of classes more (weighted sampling)")
_LONGER = Text("마지막 에폭까지 향상됨: 학습 연장", "Still getting better in the last epoch: train longer")
_MORE_CAREFUL = Text("정밀도 부족: 검출 신뢰도 임계값 상향", "Too many false boxes: raise the confidence threshold")
_MORE_EAGER = Text("재현율 부족: 검출 신뢰도 임계값 하향", "Too many pills missed: lower the confidence threshold")
_SMALLER_CROP = Text("분류 추론 지연 감소: 입력 크기 축소", "The classifier answers slowly: make its input smaller")
_SMALLER_FRAME = Text("검출 추론 지연 감소: 입력 크기 축소", "The detector answers slowly: make its input smaller")
_BOTH_TASKS = Text("학습되지 않은 작업 추가", "Train the task that was left out, too")

_RAM = "dataloader.ram_optimization"
_SAMPLING = "data.classification.sampling"
_CONFIDENCE = "inference.conf_threshold"

_SPECIFIED = (
    Rule(
        MEMORY,
        _breaks(TOO_MUCH_MEMORY),
        Text("배치 크기 축소 (현재 메모리 사용량 높음)", "Make batches smaller (memory use is high)"),
        "train.classification.auto_batch_max",
        _always(smaller_batch),
        _wants(TOO_MUCH_MEMORY),
    ),
    Rule(
        MAP,
        _far_below(MAP),
        Text(
            "검출 모델 하이퍼파라미터 튜닝 (학습률, 앵커 크기)",
            "Tune the detector's hyperparameters (learning rate; YOLO11 has no anchor sizes to tune)",
        ),
        "train.detection.lr",
        _other_learning_rate,
    ),
    Rule(
        MAP,
        _far_below(MAP),
        Text("데이터 증강 강화 고려", "Consider stronger augmentation"),
        "train.detection.augment.mixup",
        _always(
            first_of(
                step_towards("train.detection.augment.mixup", 0.1, LARGEST_MIXUP),
                step_towards("train.detection.augment.scale", 0.2, LARGEST_SCALE),
            )
        ),
    ),
    Rule(
        ACCURACY,
        _far_below(ACCURACY),
        Text(
            "분류 모델 정규화 강화 (드롭아웃, 레이블 스무딩)",
            "Regularise the classifier more (dropout, label smoothing)",
        ),
        "loss.label_smoothing",
        _always(
            first_of(
                step_towards("loss.label_smoothing", 0.05, LARGEST_SMOOTHING),
                factor("train.classification.weight_decay", 2),
            )
        ),
    ),
    Rule(ACCURACY, _far_below(ACCURACY), _BALANCE, _SAMPLING, _always(balanced_sampling)),
    Rule(
        LOADING,
        _breaks(SLOW_LOADING),
        Text("데이터 로더 워커 수 조정", "Change the number of loader workers"),
        "dataloader.num_workers",
        _always(first_of(more_workers, more_prefetching)),
        _wants(SLOW_LOADING),
    ),
    Rule(
        LOADING,
        _breaks(SLOW_LOADING),
        Text("LMDB 캐시 활용 확대", "Use the LMDB cache more"),
        f"{_RAM}.use_lmdb",
        _always(lmdb),
        _wants(SLOW_LOADING),
    ),
)
_FURTHER = (
    Rule(
        "loss",
        _lost_its_loss,
        Text("손실 발산: 학습률 축소", "The loss diverged: lower the learning rate"),
        "train.classification.lr",
        _always(factor("train.classification.lr", 0.5)),
        lambda _case: "finite",
    ),
    Rule(MAP, _not_trained(MAP), _BOTH_TASKS, "train.tasks", _always(both_tasks)),
    Rule(ACCURACY, _not_trained(ACCURACY), _BOTH_TASKS, "train.tasks", _always(both_tasks)),
    Rule(MAP, _still_improving(MAP), _LONGER, "train.detection.epochs", _always(more_epochs("detection"))),
    Rule(
        ACCURACY,
        _still_improving(ACCURACY),
        _LONGER,
        "train.classification.epochs",
        _always(more_epochs("classification")),
    ),
    *(
        Rule(name, _missed(name), _BALANCE, _SAMPLING, _always(balanced_sampling))
        for name in (MACRO_F1, "classification.per_class_min_f1", "classification.top1_per_class")
    ),
    Rule(
        MAP_95,
        _missed_while_met(MAP_95, MAP),
        Text("박스 정밀도 향상: 검출 입력 크기 확대", "Boxes are not tight: give the detector a larger input"),
        "detection.image_size",
        _always(resized("detection.image_size", 1.25)),
    ),
    *(
        Rule(
            f"detection.{name}",
            _missed_while_met(f"detection.{name}", f"detection.{other}"),
            text,
            _CONFIDENCE,
            _always(step_towards(_CONFIDENCE, step, limit)),
        )
        for name, other, text, step, limit in (
            ("precision", "recall", _MORE_CAREFUL, 0.1, 0.9),
            ("precision_0.5", "recall_0.5", _MORE_CAREFUL, 0.1, 0.9),
            ("recall", "precision", _MORE_EAGER, -0.1, 0.05),
            ("recall_0.5", "precision_0.5", _MORE_EAGER, -0.1, 0.05),
        )
    ),
    Rule(
        CLASSIFIER_MS,
        _missed(CLASSIFIER_MS),
        _SMALLER_CROP,
        "model.image_size",
        _always(resized("model.image_size", 0.75)),
    ),
    *(
        Rule(
            name, _missed(name), _SMALLER_FRAME, "detection.image_size", _always(resized("detection.image_size", 0.75))
        )
        for name in (DETECTOR_MS, PIPELINE_MS)
    ),
    Rule(
        "latency_p95_ms",
        _answers_slowly,
        _SMALLER_CROP,
        "model.image_size",
        _always(resized("model.image_size", 0.75)),
        lambda case: f"<={float(case.simple_bound('max_latency_ms')):g}",
    ),
    Rule(
        THROUGHPUT,
        _missed(THROUGHPUT),
        Text("학습 처리량 향상: 혼합 정밀도 또는 컴파일", "Training is slow: compute in 16 bit, or compile"),
        "train.classification.amp",
        _always(first_of(sixteen_bit, faster_compilation)),
    ),
    Rule(
        "n_eval_samples",
        _has_too_few_samples,
        Text("평가 샘플 부족: 검증 비율 확대", "Too few pictures to judge by: make the val split larger"),
        "data.split.val_fraction",
        _enough_samples,
        lambda case: f">={float(case.simple_bound('min_eval_samples')):g}",
    ),
    Rule(
        "repeated_oom",
        _had_ooms,
        Text("OOM 발생: 메모리 여유 확대", "Memory ran out: leave more of it free"),
        "train.auto_batch_vram_headroom",
        _always(step_towards("train.auto_batch_vram_headroom", -0.05, 0.5)),
        lambda _case: "<=0",
    ),
)
RULES = (*_SPECIFIED, *_FURTHER)
"""In the order in which suggestions are made."""
