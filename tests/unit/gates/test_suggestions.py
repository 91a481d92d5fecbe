import math
import shlex
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from pillsnap.config.loading import load_config, save_config
from pillsnap.errors import ConfigError
from pillsnap.gates.changes import Change, Settings, more_workers
from pillsnap.gates.messages import LANGUAGES
from pillsnap.gates.suggestion_rules import RULES
from pillsnap.gates.suggestions import Suggestion, generate_optimization_suggestions
from pillsnap.gates.targets import STAGES, get_stage_config
from tests.unit.config.builders import REPOSITORY, ROOT_CONFIG

# D-14's texts, word for word, in its order.
BATCH = "배치 크기 축소 (현재 메모리 사용량 높음)"
TUNE = "검출 모델 하이퍼파라미터 튜닝 (학습률, 앵커 크기)"
AUGMENT = "데이터 증강 강화 고려"
REGULARISE = "분류 모델 정규화 강화 (드롭아웃, 레이블 스무딩)"
BALANCE = "클래스 불균형 대응 강화 (가중 샘플링)"
WORKERS = "데이터 로더 워커 수 조정"
LMDB = "LMDB 캐시 활용 확대"
GOOD = {"detection_mAP_0.5": 0.9, "classification_accuracy": 0.95}


def suggest(results: dict[str, Any], stage: int = 1, *overrides: str, language: str = "en") -> list[Suggestion]:
    return generate_optimization_suggestions(results, stage, cfg=load_config(ROOT_CONFIG, overrides), language=language)


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize(
    ("results", "texts"),
    [
        (GOOD, []),
        ({**GOOD, "gpu_memory_gb": 14}, []),
        ({**GOOD, "gpu_memory_gb": 14.01}, [BATCH]),
        ({**GOOD, "detection_mAP_0.5": 0.24}, []),
        ({**GOOD, "detection_mAP_0.5": 0.2399}, [TUNE, AUGMENT]),
        ({**GOOD, "classification_accuracy": 0.32}, []),
        ({**GOOD, "classification_accuracy": 0.3199}, [REGULARISE, BALANCE]),
        ({**GOOD, "data_loading_time_s": 3}, []),
        ({**GOOD, "data_loading_time_s": 3.01}, [WORKERS, LMDB]),
        ({}, [TUNE, AUGMENT, REGULARISE, BALANCE]),
        ({"gpu_memory_gb": 15, "data_loading_time_s": 4}, [BATCH, TUNE, AUGMENT, REGULARISE, BALANCE, WORKERS, LMDB]),
    ],
)
def test_the_specifications_suggestions_come_from_its_figures(results: dict[str, Any], texts: list[str]) -> None:
    assert [each.text for each in generate_optimization_suggestions(results, 1, language="ko")] == texts


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize(("stage", "value"), [(2, 0.4), (3, 0.56), (4, 0.68)])
def test_a_stage_compares_with_80_percent_of_its_own_target(stage: int, value: float) -> None:
    just_enough = {**GOOD, "detection.mAP_0.5": value}
    below = {**GOOD, "detection.mAP_0.5": value - 0.001}
    assert [len(generate_optimization_suggestions(each, stage)) for each in (just_enough, below)] == [0, 2]


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize(
    ("results", "stage", "overrides", "key", "new_value"),
    [
        ({"system.gpu_memory_gb": 15}, 1, [], "train.classification.auto_batch_max", 32),
        (
            {"system.gpu_memory_gb": 15},
            1,
            ["train.classification.auto_batch_tune=false"],
            "train.classification.batch_size",
            32,
        ),
        ({"detection.mAP_0.5": 0.1}, 1, [], "train.detection.lr", 1e-4),
        ({"detection.mAP_0.5": 0.1}, 1, ["train.detection.lr=0.003"], "train.detection.lr", 0.0015),
        ({"detection.mAP_0.5": 0.1, "detection.epochs_since_best": 0}, 1, [], "train.detection.lr", 4e-4),
        ({"detection.mAP_0.5": 0.1}, 1, [], "train.detection.augment.mixup", 0.1),
        (
            {"detection.mAP_0.5": 0.1},
            1,
            ["train.detection.augment.mixup=0.3"],
            "train.detection.augment.scale",
            0.7,
        ),
        ({"classification.accuracy": 0.1}, 1, [], "loss.label_smoothing", 0.15),
        (
            {"classification.accuracy": 0.1},
            1,
            ["loss.label_smoothing=0.2"],
            "train.classification.weight_decay",
            2e-4,
        ),
        ({"classification.accuracy": 0.1}, 1, [], "data.classification.sampling", "balanced"),
        ({"classification.macro_f1": 0.1}, 2, [], "data.classification.sampling", "balanced"),
        ({"classification.per_class_min_f1": 0.1}, 3, [], "data.classification.sampling", "balanced"),
        ({"classification.top1_per_class": 0.1}, 4, [], "data.classification.sampling", "balanced"),
        ({"system.data_loading_s": 4}, 1, ["dataloader.num_workers=500"], "dataloader.prefetch_factor", 8),
        ({"system.data_loading_s": 4}, 1, [], "dataloader.ram_optimization.use_lmdb", True),
        ({"detection.mAP_0.5": 0.28, "detection.epochs_since_best": 0}, 1, [], "train.detection.epochs", 75),
        (
            {"classification.accuracy": 0.38, "classification.epochs_since_best": 0},
            1,
            [],
            "train.classification.epochs",
            45,
        ),
        ({"detection.mAP_0.5": 0.6, "detection.mAP_0.5_0.95": 0.3}, 2, [], "detection.image_size", 800),
        ({"detection.precision": 0.3, "detection.recall": 0.5}, 2, [], "inference.conf_threshold", 0.4),
        ({"detection.precision_0.5": 0.8, "detection.recall_0.5": 0.5}, 3, [], "inference.conf_threshold", 0.2),
        ({"classification.inference_time_ms": 12}, 1, [], "model.image_size", 288),
        ({"detection.inference_time_ms": 60}, 1, [], "detection.image_size", 480),
        ({"production.inference_latency_ms": 60}, 4, [], "detection.image_size", 480),
        ({"latency_p95_ms": 221}, 1, [], "model.image_size", 288),
        ({"optimization.throughput_img_s": 50}, 2, [], "optimization.torch_compile", "max-autotune"),
        (
            {"optimization.throughput_img_s": 50},
            2,
            ["train.classification.amp=false"],
            "train.classification.amp",
            True,
        ),
        ({"n_eval_samples": 1500}, 1, [], "data.split.val_fraction", 0.14),
        ({"repeated_oom": 1}, 1, [], "train.auto_batch_vram_headroom", 0.83),
        ({"loss": math.nan}, 1, [], "train.classification.lr", 1e-4),
        ({}, 1, ["train.tasks=[classification]"], "train.tasks", ["classification", "detection"]),
    ],
)
def test_a_new_value_is_computed_from_the_runs_own(
    results: dict[str, Any], stage: int, overrides: list[str], key: str, new_value: object
) -> None:
    suggested = {each.key: each for each in suggest(results, stage, *overrides)}
    assert suggested[key].new_value == new_value


# The best and the worst of everything, so that each rule of each stage has its say once.
WORST: dict[str, Any] = {
    "system.gpu_memory_gb": 20,
    "detection.mAP_0.5": 0.01,
    "classification.accuracy": 0.01,
    "system.data_loading_s": 9,
    "loss": math.nan,
    "detection.epochs_since_best": 0,
    "classification.epochs_since_best": 0,
    "classification.inference_time_ms": 900,
    "detection.inference_time_ms": 900,
    "optimization.throughput_img_s": 1,
    "latency_p95_ms": 900,
    "n_eval_samples": 1900,
    "repeated_oom": 9,
}
UNEVEN = {
    "detection.mAP_0.5": 0.99,
    "detection.mAP_0.5_0.95": 0.01,
    "detection.precision": 0.99,
    "detection.precision_0.5": 0.99,
    "detection.recall": 0.01,
    "detection.recall_0.5": 0.01,
    "classification.macro_f1": 0.01,
    "production.inference_latency_ms": 900,
}
# A configuration, and a run of it whose suggestions could contradict it.
SLOW, BAD, CROWDED = {"system.data_loading_s": 9}, {"classification.accuracy": 0.01}, {"system.gpu_memory_gb": 20}
RUNS: list[tuple[Path, list[str], list[dict[str, Any]]]] = [
    (ROOT_CONFIG, [], [WORST, UNEVEN]),
    (REPOSITORY / "configs" / "demo.yaml", [], [WORST]),
    (ROOT_CONFIG, ["dataloader.ram_optimization.cache_policy=mmap"], [SLOW]),
    (ROOT_CONFIG, ["dataloader.ram_optimization.cache_policy=auto"], [SLOW]),
    (ROOT_CONFIG, ["train.classification.auto_batch_tune=false"], [CROWDED]),
    (ROOT_CONFIG, ["loss.use_class_weights=false", "loss.label_smoothing=0.2"], [BAD]),
    (ROOT_CONFIG, ["train.tasks=[detection]"], [BAD]),
    (ROOT_CONFIG, ["data.split.test_fraction=0.6"], [{"n_eval_samples": 1900}]),
]


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize(("path", "variant", "runs"), RUNS, ids=[f"{run[0].stem} {' '.join(run[1])}" for run in RUNS])
def test_every_override_loads_and_sets_its_value(
    tmp_path: Path, path: Path, variant: list[str], runs: list[dict[str, Any]]
) -> None:
    cfg = load_config(path, variant)
    save_config(cfg, tmp_path / "config.yaml")
    found = [
        each for stage in STAGES for run in runs for each in generate_optimization_suggestions(run, stage, cfg=cfg)
    ]
    by_override = {each.override: each for each in found if each.override is not None}
    assert len({each.override for each in found}) == len(by_override) > 0
    for override, each in by_override.items():
        changed = load_config(tmp_path / "config.yaml", shlex.split(override))
        assert OmegaConf.select(changed, each.key) == each.new_value != OmegaConf.select(cfg, each.key)


@pytest.mark.req("ADV-1")
def test_every_rule_speaks_in_one_of_the_cases_above() -> None:
    cfg = load_config(ROOT_CONFIG)
    singles = [*ALONE.items(), *UNEVEN.items(), *WORST.items()]
    figures = {
        each.figure
        for stage in STAGES
        for results in (met | {name: value} for met in MET for name, value in singles)
        for each in generate_optimization_suggestions(results, stage, cfg=cfg)
    }
    assert {rule.figure for rule in RULES} == figures


MET: list[dict[str, Any]] = [{}, {"detection.mAP_0.5": 0.99}, {"detection.recall": 0.99, "detection.recall_0.5": 0.99}]
MET.append({"detection.precision": 0.99, "detection.precision_0.5": 0.99})
ALONE = {
    "detection.precision": 0.01,
    "detection.precision_0.5": 0.01,
    "detection.recall": 0.01,
    "detection.recall_0.5": 0.01,
    "classification.per_class_min_f1": 0.01,
    "classification.top1_per_class": 0.01,
}


@pytest.mark.req("ADV-1")
def test_a_suggestion_names_its_figure_its_value_and_what_was_wanted() -> None:
    found = suggest({"classification.accuracy": 0.123456})[0]
    assert (found.figure, found.value, found.wanted) == ("classification.accuracy", 0.123456, ">=0.40")
    expected = "classification.accuracy 0.1235 (wanted >=0.40) → loss.label_smoothing=0.15"
    assert str(found).endswith(expected)


@pytest.mark.req("ADV-1")
def test_two_keys_change_where_one_would_contradict_the_other() -> None:
    found = {each.key: each for each in suggest({"classification.accuracy": 0.1})}
    override = found["data.classification.sampling"].override
    assert override == "data.classification.sampling=balanced loss.use_class_weights=false"


@pytest.mark.req("ADV-1")
def test_what_has_no_room_left_is_not_suggested() -> None:
    full = ["data.classification.sampling=balanced", "loss.use_class_weights=false"]
    keys = [each.key for each in suggest({"classification.accuracy": 0.1}, 1, *full)]
    assert keys == ["loss.label_smoothing"]


@pytest.mark.req("ADV-1")
def test_a_key_is_suggested_once() -> None:
    keys = [each.key for each in suggest({**WORST, **UNEVEN}, 4)]
    assert len(keys) == len(set(keys))


def test_a_figure_nobody_measured_changes_no_known_configuration() -> None:
    assert suggest({}) == []


@pytest.mark.req("ADV-2")
@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_in_the_language_asked_for(language: str) -> None:
    found = suggest({"classification.accuracy": 0.1}, language=language)[0]
    assert found.text == (found.text_ko if language == "ko" else found.text_en)
    assert found.text_ko == REGULARISE
    assert found.text_en.isascii()


@pytest.mark.req("ADV-1")
def test_without_a_configuration_a_suggestion_names_the_key() -> None:
    found = generate_optimization_suggestions({"gpu_memory_gb": 15, **GOOD}, 1)[0]
    assert (found.key, found.new_value, found.override) == ("train.classification.auto_batch_max", None, None)


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no stage 7"):
        generate_optimization_suggestions({}, 7)


@pytest.mark.parametrize(("workers", "cores", "expected"), [(8, 16, 16), (8, 12, 12), (0, 4, 1), (16, 16, None)])
def test_workers_are_doubled_up_to_the_cores(workers: int, cores: int, expected: int | None) -> None:
    cfg: DictConfig = OmegaConf.create({"dataloader": {"num_workers": workers}})
    change = more_workers(Settings(cfg, cores))
    assert (change.new_value if change else None) == expected


def test_a_configuration_without_the_key_is_left_alone() -> None:
    runs = (WORST, {**UNEVEN, "n_eval_samples": 1900}, *({**met, **ALONE} for met in MET))
    empty = OmegaConf.create({"train": {"tasks": ["classification", "detection"]}})
    assert [generate_optimization_suggestions(run, stage, cfg=empty) for stage in STAGES for run in runs] == [[]] * 24


def test_an_override_is_safe_for_a_shell() -> None:
    override = Change("train.tasks", ["classification", "detection"]).override
    assert override == "'train.tasks=[classification,detection]'"


@pytest.mark.req("CRT-1")
def test_the_specification_has_a_target_for_every_rule_that_speaks_of_one() -> None:
    names = {target.name for stage in STAGES for target in get_stage_config(stage).performance_targets}
    sections = ("detection.", "classification.", "system.", "optimization.", "production.")
    assert {rule.figure for rule in RULES if rule.figure.startswith(sections)} <= names
