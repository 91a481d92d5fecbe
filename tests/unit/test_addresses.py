"""The specification's addresses hold exactly the names built so far, with the given parameters (ADR-1).

Each later issue adds its own names to these tables.
"""

from __future__ import annotations

import importlib
import inspect
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

# address -> name -> positional parameters as the specification writes them; extras are keyword-only with a default
NAMES: dict[str, dict[str, list[str]]] = {
    "src.utils.core": {
        "load_config": ["cfg_path", "overrides"],
        "set_seed": ["seed", "deterministic"],
        "build_logger": ["exp_dir", "name"],
        "StepTimer": ["device"],
        "TBWriter": ["exp_dir"],
        "save_json": ["path", "obj"],
        "read_json": ["path"],
        "ensure_dir": ["path"],
        "get_git_sha": [],
        "select_amp_dtype": ["policy"],
        "enable_tf32": ["flag"],
        "try_torch_compile": ["model", "mode"],
        "cuda_mem_mb": [],
        "auto_find_batch_size": ["fn_train_step", "init_bs", "min_bs", "max_bs", "amp_force_fp16"],
        "autotune_num_workers": ["build_loader_fn", "candidates", "warmup", "steps"],
        "save_ckpt": ["path", "obj"],
        "load_ckpt": ["path"],
    },
    "src.train": {
        "main": ["args"],
        "train_classification_stage": ["cfg", "logger"],
        "train_detection_stage": ["cfg", "logger"],
        "build_classification_model": ["backbone", "num_classes", "channels_last"],
        "build_yolo_model": ["model_size", "num_classes", "lazy_load"],
        "build_criterion_detection": [],
        "build_criterion_classification": ["cfg", "class_weights"],
        "build_optimizer": ["cfg", "params"],
        "build_scheduler": ["cfg", "optimizer", "steps_per_epoch"],
        "train_one_epoch_classification": [
            "model",
            "loader",
            "optimizer",
            "scaler",
            "criterion",
            "scheduler",
            "cfg",
            "logger",
            "tb",
            "epoch_idx",
        ],
        "train_one_epoch_detection": ["yolo_model", "train_loader", "cfg", "logger", "tb", "epoch_idx"],
        "validate_classification": ["model", "loader", "criterion", "cfg", "logger", "tb", "epoch_idx"],
        "validate_detection": ["yolo_model", "val_loader", "cfg", "logger", "tb", "epoch_idx"],
        "evaluate_classification_metrics": ["y_true", "y_pred", "y_prob", "topk"],
        "evaluate_detection_metrics": ["predictions", "targets"],
        "final_test_evaluation": ["cfg", "test_loaders", "model_paths", "logger", "exp_dir"],
        "predict_pipeline": ["image", "mode", "conf_threshold"],
        "oom_recovery_state_machine": ["retries", "current_state", "cfg"],
        "early_stopping": ["state", "metric_name", "mode", "patience", "min_delta"],
        "apply_stage_overrides": ["cfg", "stage"],
        "enable_small_dataset_optimizations": ["cfg"],
        "enable_large_dataset_optimizations": ["cfg"],
    },
    "src.evaluate": {
        "plot_confusion_matrix": ["cm", "class_names", "out_path"],
        "plot_detection_results": ["images", "predictions", "out_dir"],
        "plot_roc_pr_curves": ["y_true_onehot", "y_prob", "out_dir"],
        "dump_metrics_json": ["metrics", "out_path"],
        "simple_stage_evaluation": ["stage", "results", "baseline"],
        "OptimizationAdvisor": [],
        "generate_optimization_suggestions": ["results", "stage"],
    },
    "src.data": {"build_dataloaders_twostage": ["cfg"]},
}
CONSTANTS = {"src.evaluate": ["STAGE_TARGETS"]}
ROWS = [(address, name) for address, names in NAMES.items() for name in names]
DEFAULTS = {
    "build_logger": {"name": "pillsnap"},
    "build_yolo_model": {"lazy_load": True},
    "predict_pipeline": {"mode": "single", "conf_threshold": 0.3},
    "early_stopping": {"mode": "max", "patience": 7, "min_delta": 0.0},
    "simple_stage_evaluation": {"baseline": None},
    "autotune_num_workers": {"candidates": (4, 8, 12, 16), "warmup": 30, "steps": 100},
}


@pytest.mark.req("ADR-1", "TRN-1")
@pytest.mark.parametrize(("address", "name"), ROWS, ids=[name for _, name in ROWS])
def test_a_name_has_the_specified_parameters(address: str, name: str) -> None:
    parameters = inspect.signature(getattr(importlib.import_module(address), name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    extras = [p for p in parameters if p.kind is not p.POSITIONAL_OR_KEYWORD]
    assert positional == NAMES[address][name]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in extras)


@pytest.mark.req("ADR-1")
@pytest.mark.parametrize(("name", "expected"), DEFAULTS.items(), ids=list(DEFAULTS))
def test_a_default_is_the_specified_one(name: str, expected: dict[str, object]) -> None:
    address = next(address for address, names in NAMES.items() if name in names)
    parameters = inspect.signature(getattr(importlib.import_module(address), name)).parameters
    assert {key: parameters[key].default for key in expected} == expected


@pytest.mark.req("ADR-1")
@pytest.mark.parametrize("address", NAMES)
def test_an_address_exposes_these_names_and_no_others(address: str) -> None:
    expected = [*NAMES[address], *CONSTANTS.get(address, [])]
    assert sorted(importlib.import_module(address).__all__) == sorted(expected)


@pytest.mark.req("ADR-1", "GNG-1", "ADV-1")
def test_the_criteria_and_the_advisor_are_as_specified() -> None:
    evaluate = importlib.import_module("src.evaluate")
    assert list(evaluate.STAGE_TARGETS) == [1, 2, 3, 4]
    parameters = inspect.signature(evaluate.OptimizationAdvisor().evaluate_and_recommend).parameters
    assert list(parameters) == ["stage", "results"]


@pytest.mark.req("ADR-1", "ADR-2")
def test_addresses_only_import() -> None:
    for path in (REPOSITORY / "src").rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not any(line.startswith(("def ", "class ")) for line in lines), path
    models = REPOSITORY / "pillsnap" / "models"
    assert (models / "detector_yolo11m.py").is_file()
    assert (models / "classifier_efficientnetv2_s.py").is_file()


@pytest.mark.req("ADR-4")
def test_the_reference_machines_paths_are_in_the_configuration_alone() -> None:
    files = subprocess.run(["git", "grep", "-l", "max16"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    code = [name for name in files.stdout.split() if name.startswith(("pillsnap/", "src/", "scripts/", "configs/"))]
    assert code == []
