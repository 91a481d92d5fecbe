"""The final test: after stage 4 the best models are judged once on pictures that nothing was ever chosen on (FIN-1).

`reports/final_test_results.json` holds figures, goals and recommendation; the ledger sees to it that this happens once.
"""

from __future__ import annotations

import csv
import itertools
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from pillsnap.atomicfile import sha256_of
from pillsnap.data.damage import Damage
from pillsnap.data.loaders import TwoStageLoaders, build_loaders
from pillsnap.data.stores import Stores
from pillsnap.data.twostage import FINAL_STAGE, load_data
from pillsnap.errors import CheckpointError, DataError, PillError
from pillsnap.evaluation.experiment import SplitEvaluation
from pillsnap.evaluation.final_verdict import (
    READY,
    business_goals,
    differences,
    improvements,
    named_as_specified,
    overfitting,
    recommendation,
)
from pillsnap.evaluation.test_ledger import RESULTS_NAME, Ledger, Use, finished, new_use
from pillsnap.inference.checkpoints import CLASSIFIER_FILE, DETECTOR_FILE, load_classifier, read_checkpoint
from pillsnap.jsonfile import read_json, save_json
from pillsnap.manifest import read_manifest
from pillsnap.source_version import get_git_sha

BEST_FILES = {"classification": CLASSIFIER_FILE, "detection": DETECTOR_FILE}
METRICS_NAME = Path("reports", "metrics.json")
NUM_WORST_DRUGS = 5


def final_test_evaluation(
    cfg: DictConfig,
    test_loaders: TwoStageLoaders,
    model_paths: Mapping[str, Path | str],
    logger: logging.Logger,
    exp_dir: Path | str,
    *,
    force: bool = False,
    device: torch.device | None = None,
    damage: Damage | None = None,
) -> dict[str, Any]:
    """Judge the best models of a completed stage 4 on the test split, once, and say whether the goals are met.

    Args:
        cfg: The configuration of the experiment.
        test_loaders: From `build_dataloaders_twostage` after training; the figures are of its data's test split.
        model_paths: Task ("classification", "detection") to its best checkpoint, for each of `cfg.train.tasks`.
        logger: Told about earlier uses, and the outcome.
        exp_dir: The experiment.
        force: Run although the test split was used before; recorded.
        device: None takes CUDA where there is one.
        damage: Told of pictures that cannot be decoded.

    Returns:
        What `reports/final_test_results.json` holds: `test_results`, `val_results` (by task, under the specification's
        names), `differences`, `overfitting`, `business_goals`, `recommendation`, `ready_for_production`,
        `improvements`, `uses` (this one last), and `other_uses` of the same pictures by other experiments.

    Raises:
        DataError: Not stage 4, training not completed, no test loaders, or an empty test split.
        CheckpointError: A best checkpoint is missing, or is not the experiment's.
        GateError: The test split was used before and `force` is false, or a file of the ledger is damaged.
        PillError: A file cannot be written.
    """
    exp_dir = Path(exp_dir)
    require_stage_completed(cfg, exp_dir)
    ledger = ledger_of(cfg, exp_dir)
    _require_models(cfg, model_paths, exp_dir, ledger.checkpoints)
    _require_loaders(cfg, test_loaders, exp_dir)
    data = test_loaders.meta.data
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    evaluation = SplitEvaluation(cfg, data, exp_dir, device, damage or Damage.unlimited())
    if not force:
        require_first_use(cfg, exp_dir)  # before val is judged for nothing
    val = recorded_figures(exp_dir, "val") or evaluation.run("val")
    use = new_use(ledger, exp_dir, data, git_sha=get_git_sha(), forced=force)
    others = ledger.other_uses(use.split)
    _tell(logger, others)
    with ledger.recording(use) as earlier:
        logger.info("final test: %d pictures of the test split, use number %d", use.pictures, len(earlier) + 1)
        test = evaluation.run("test")
        uses = [*earlier, finished(use)]
        results = _results(val, test, uses, others, _worst_drugs(exp_dir))
        _add_to_metrics(exp_dir, val, test)
        save_json(exp_dir / RESULTS_NAME, results)
        ledger.complete(uses)
    logger.info("final test: %s", summary(results))
    return results


def open_test_loaders(cfg: DictConfig) -> TwoStageLoaders:
    """Return the loaders of a trained experiment for `final_test_evaluation`, without any store of decoded pictures.

    Raises:
        DataError: The data set is missing.
        CheckpointError: The classifier cannot be loaded.
    """
    spec = None
    if "classification" in cfg.train.tasks:
        path = Path(cfg.paths.exp_dir) / CLASSIFIER_FILE
        spec = load_classifier(read_checkpoint(path, "classification"), path, torch.device("cpu")).spec
    return build_loaders(load_data(cfg), cfg, spec, Stores.none())


def best_models(cfg: DictConfig, exp_dir: Path) -> dict[str, Path]:
    """Return where the best checkpoint of each trained task lies, or would lie."""
    return {task: exp_dir / BEST_FILES[task] for task in cfg.train.tasks}


def require_stage_completed(cfg: DictConfig, exp_dir: Path) -> None:
    """Make sure that stage 4 was trained to its end.

    Raises:
        DataError: It was not; the message says what is missing.
    """
    stage = cfg.data.progressive_validation.current_stage
    if stage != FINAL_STAGE:
        raise DataError(
            f"The final test of {exp_dir} cannot run: the experiment is of stage {stage}, wanted a completed stage "
            f"{FINAL_STAGE}. The test split stays sealed until then; use the figures of the val split."
        )
    manifest = read_manifest(exp_dir / "checkpoints")
    if manifest is None or not manifest.get("completed"):
        found = "has no checkpoints" if manifest is None else "has not been trained to its end"
        raise DataError(
            f"The final test of {exp_dir} cannot run: the experiment {found}, wanted a completed stage {FINAL_STAGE}. "
            f"Go on with `pillsnap train --cfg {exp_dir / 'config.yaml'} train.resume=last`; the test split stays "
            "sealed until then."
        )


def ledger_of(cfg: DictConfig, exp_dir: Path) -> Ledger:
    """Return the ledger of an experiment."""
    return Ledger(exp_dir, Path(cfg.paths.cache_dir), best_models(cfg, exp_dir))


def require_first_use(cfg: DictConfig, exp_dir: Path) -> None:
    """Make sure that the test split was not used before.

    Raises:
        GateError: It was, or a file of the ledger is damaged.
    """
    ledger = ledger_of(cfg, exp_dir)
    if completed := ledger.completed_use():
        raise ledger.second_use(completed)


def recorded_figures(exp_dir: Path, split: str) -> dict[str, Any] | None:
    """Return the figures of a split out of `reports/metrics.json`; None where it has none or cannot be read."""
    try:
        figures = read_json(exp_dir / METRICS_NAME).get(split)
    except PillError:
        return None
    return figures if isinstance(figures, dict) and figures.get("split") == split else None


def results_for(cfg: DictConfig, exp_dir: Path) -> dict[str, Any] | None:
    """Return what `reports/final_test_results.json` says; None where it is not there or is about other models."""
    try:
        results = read_json(exp_dir / RESULTS_NAME)
        judged = results["uses"][-1]["checkpoints"]
    except (PillError, KeyError, IndexError, TypeError):
        return None
    return results if judged == ledger_of(cfg, exp_dir).checkpoints else None


def summary(results: Mapping[str, Any]) -> str:
    """Return the outcome in one sentence."""
    goals = [
        f"{name} {'not measured' if goal['value'] is None else format(goal['value'], '.4f')} (wanted {goal['goal']})"
        for name, goal in results["business_goals"].items()
        if isinstance(goal, Mapping)
    ]
    return f"{results['recommendation']}: {', '.join(goals)}"


def _require_models(
    cfg: DictConfig, model_paths: Mapping[str, Path | str], exp_dir: Path, checkpoints: Mapping[str, str]
) -> None:
    """Make sure that `model_paths` names the best checkpoints, whose SHA-256 by task are `checkpoints`.

    Raises:
        CheckpointError: One is missing, or has another content than the experiment's.
    """
    for task, best in best_models(cfg, exp_dir).items():
        path = Path(model_paths.get(task, best))
        if task not in model_paths or task not in checkpoints or not path.is_file():
            what = (
                f"{best if path.is_file() else path} is missing" if task in model_paths else f"no {task} model is named"
            )
            raise CheckpointError(
                f"The final test of {exp_dir} cannot run: {what}, wanted the best checkpoint of {task}. Train the task "
                "to its end, put the file back, or name it."
            )
        if sha256_of(path) != checkpoints[task]:
            raise CheckpointError(
                f"{path} is another model than {best}, but the final test judges the experiment's own. Name that file."
            )


def _require_loaders(cfg: DictConfig, loaders: TwoStageLoaders | None, exp_dir: Path) -> None:
    of_task = {} if loaders is None else {"classification": loaders.cls_test, "detection": loaders.det_test}
    missing = [task for task in cfg.train.tasks if of_task.get(task) is None]
    if loaders is None or missing:
        raise DataError(
            f"The final test of {exp_dir} cannot run: there is no test loader of {', '.join(missing)}. Build the "
            "loaders after stage 4 has completed, with paths.exp_dir of this experiment."
        )
    if not np.any(loaders.meta.data.split == "test"):
        raise DataError(
            f"The final test of {exp_dir} cannot run: the test split of {loaders.meta.data.root} is empty. Train with "
            "data.split.policy=groups, or with a data set that has a test part."
        )


def _tell(logger: logging.Logger, others: list[Use]) -> None:
    if others:
        last = others[-1]
        logger.warning(
            "the pictures of this test split were used before: %d time(s), the last by %s on %s. Whoever chooses "
            "between experiments by them has no unseen pictures any more",
            len(others), last.exp_dir, last.time,
        )  # fmt: skip


def _worst_drugs(exp_dir: Path) -> list[dict[str, str]]:
    """Return the first rows of the test split's table of drugs; none where it was not written."""
    path = exp_dir / "reports" / "per_class_test.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(itertools.islice(csv.DictReader(file), NUM_WORST_DRUGS))


def _results(
    val: dict[str, Any], test: dict[str, Any], uses: list[Use], others: list[Use], worst_drugs: list[dict[str, str]]
) -> dict[str, Any]:
    goals = business_goals(test)
    compared = differences(val, test)
    overfit = overfitting(compared)
    verdict = recommendation(goals)
    return {
        "test_results": _by_task(test),
        "val_results": _by_task(val),
        "differences": compared,
        "overfitting": overfit,
        "business_goals": goals,
        "recommendation": verdict,
        "ready_for_production": verdict == READY,
        "improvements": improvements(test, goals, overfit, worst_drugs),
        "uses": [asdict(use) for use in uses],
        "other_uses": [asdict(use) for use in others],
    }


def _by_task(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {task: named_as_specified(found) for task, found in figures.items() if task != "split"}


def _add_to_metrics(exp_dir: Path, val: dict[str, Any], test: dict[str, Any]) -> None:
    path = exp_dir / METRICS_NAME
    try:
        content = read_json(path)
    except PillError:
        content = {}
    path.parent.mkdir(exist_ok=True)
    save_json(path, {**content, "val": val, "test": test})
