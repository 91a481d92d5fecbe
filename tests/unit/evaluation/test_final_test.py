"""The final test: when it may run, what it writes, and that it runs once."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from pillsnap.data.loaders import TwoStageLoaders
from pillsnap.errors import CheckpointError, DataError, GateError, PillError
from pillsnap.evaluation.final_test import best_models, final_test_evaluation, results_for
from pillsnap.evaluation.per_class import DrugFigures, write_per_class
from pillsnap.evaluation.test_ledger import LEDGER_NAME, LOCK_NAME, RESULTS_NAME
from tests.unit.evaluation.final_test_case import FIGURES, FakeEvaluation, completed_experiment, loaders_of

LOGGER = logging.getLogger("final test")


@pytest.fixture(autouse=True)
def evaluation(monkeypatch: pytest.MonkeyPatch) -> FakeEvaluation:
    fake = FakeEvaluation()
    monkeypatch.setattr("pillsnap.evaluation.final_test.SplitEvaluation", fake)
    return fake


@pytest.fixture
def cfg(tmp_path: Path) -> DictConfig:
    return completed_experiment(tmp_path)


def exp_dir_of(cfg: DictConfig) -> Path:
    return Path(cfg.paths.exp_dir)


def run(cfg: DictConfig, **options: Any) -> dict[str, Any]:
    exp_dir = exp_dir_of(cfg)
    return final_test_evaluation(cfg, loaders_of(cfg), best_models(cfg, exp_dir), LOGGER, exp_dir, **options)


def content_of(cfg: DictConfig, name: str | Path) -> dict[str, Any]:
    content = json.loads((exp_dir_of(cfg) / name).read_text())
    assert isinstance(content, dict)
    return content


@pytest.mark.req("FIN-1")
def test_the_results_have_the_specified_shape_and_are_on_the_disk(cfg: DictConfig) -> None:
    results = run(cfg)
    assert results["test_results"]["classification"]["accuracy"] == 0.95
    assert results["test_results"]["detection"]["mAP_0.5"] == 0.9
    assert results["val_results"]["classification"]["macro_f1"] == 0.97
    assert results["differences"]["classification"]["macro_f1"]["val_minus_test"] == pytest.approx(0.03)
    assert results["business_goals"]["overall_target_met"] is True
    assert (results["recommendation"], results["ready_for_production"]) == ("READY_FOR_PRODUCTION", True)
    assert results["improvements"] == []
    assert content_of(cfg, RESULTS_NAME) == results


@pytest.mark.req("FIN-1")
def test_a_missed_goal_needs_improvement(cfg: DictConfig, evaluation: FakeEvaluation) -> None:
    evaluation.figures["test"] = FIGURES["test"] | {"classification": {"acc": 0.921, "macro_f1": 0.889}}
    results = run(cfg)
    assert (results["recommendation"], results["ready_for_production"]) == ("NEEDS_IMPROVEMENT", False)
    assert "single_macro_f1 is 0.8890" in results["improvements"][0]


@pytest.mark.req("FIN-1")
def test_the_worst_drugs_come_from_the_table_of_the_test_split(cfg: DictConfig, evaluation: FakeEvaluation) -> None:
    evaluation.figures["test"] = FIGURES["test"] | {"classification": {"macro_f1": 0.5}}
    row = DrugFigures("K-1", "약", 4, 0.5, 0.25, 0.3333, 0.9, "K-2", 3)
    write_per_class(exp_dir_of(cfg) / "reports" / "per_class_test.csv", [row])
    assert run(cfg)["improvements"][1] == "Worst recognised: K-1 약 (F1 0.33, taken for K-2 in 3 of 4)."


@pytest.mark.req("FIN-1", "VAL-3")
@pytest.mark.parametrize(
    ("words", "is_completed", "missing", "message"),
    [
        (["data.progressive_validation.current_stage=3"], True, None, "is of stage 3, wanted a completed stage 4"),
        ([], False, None, "has not been trained to its end, wanted a completed stage 4"),
        ([], True, "manifest.json", "has no checkpoints, wanted a completed stage 4"),
    ],
)
def test_before_stage_4_is_over_the_test_split_stays_sealed(
    tmp_path: Path, evaluation: FakeEvaluation, words: list[str], is_completed: bool, missing: str | None, message: str
) -> None:
    cfg = completed_experiment(tmp_path, *words, is_completed=is_completed)
    if missing is not None:
        (exp_dir_of(cfg) / "checkpoints" / missing).unlink()
    with pytest.raises(DataError, match=message):
        run(cfg)
    assert evaluation.splits == []
    assert not (exp_dir_of(cfg) / LEDGER_NAME).exists()


@pytest.mark.req("FIN-1")
@pytest.mark.parametrize("name", ["best.pt", "detection_best.pt"])
def test_a_missing_best_checkpoint_is_named(cfg: DictConfig, name: str) -> None:
    loaders = loaders_of(cfg)
    exp_dir = exp_dir_of(cfg)
    (exp_dir / "checkpoints" / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing, wanted the best checkpoint of"):
        final_test_evaluation(cfg, loaders, best_models(cfg, exp_dir), LOGGER, exp_dir)


@pytest.mark.req("FIN-1")
def test_a_model_that_is_not_named_is_missed(cfg: DictConfig) -> None:
    exp_dir = exp_dir_of(cfg)
    models = {"classification": best_models(cfg, exp_dir)["classification"]}
    with pytest.raises(CheckpointError, match="no detection model is named, wanted the best checkpoint of detection"):
        final_test_evaluation(cfg, loaders_of(cfg), models, LOGGER, exp_dir)


@pytest.mark.req("FIN-1")
def test_a_model_of_another_place_must_be_the_experiment_s(cfg: DictConfig, tmp_path: Path) -> None:
    exp_dir = exp_dir_of(cfg)
    other = tmp_path / "other.pt"
    other.write_text("another")
    with pytest.raises(CheckpointError, match=r"other\.pt is another model than .*best\.pt, but the final test judges"):
        final_test_evaluation(
            cfg, loaders_of(cfg), best_models(cfg, exp_dir) | {"classification": other}, LOGGER, exp_dir
        )
    other.write_bytes((exp_dir / "checkpoints" / "best.pt").read_bytes())
    models = best_models(cfg, exp_dir) | {"classification": other}
    assert final_test_evaluation(cfg, loaders_of(cfg), models, LOGGER, exp_dir)["ready_for_production"]


@pytest.mark.req("FIN-1")
def test_loaders_that_were_built_before_training_was_over_are_refused(cfg: DictConfig) -> None:
    sealed: TwoStageLoaders = loaders_of(cfg)._replace(det_test=None)
    exp_dir = exp_dir_of(cfg)
    with pytest.raises(DataError, match="there is no test loader of detection"):
        final_test_evaluation(cfg, sealed, best_models(cfg, exp_dir), LOGGER, exp_dir)
    with pytest.raises(DataError, match="there is no test loader of classification, detection"):
        final_test_evaluation(cfg, None, best_models(cfg, exp_dir), LOGGER, exp_dir)  # type: ignore[arg-type]


@pytest.mark.req("FIN-1")
def test_a_data_set_without_test_pictures_has_no_final_test(cfg: DictConfig) -> None:
    loaders = loaders_of(cfg)
    loaders.meta.data.split[loaders.meta.data.split == "test"] = "val"
    exp_dir = exp_dir_of(cfg)
    with pytest.raises(DataError, match="the test split of .* is empty"):
        final_test_evaluation(cfg, loaders, best_models(cfg, exp_dir), LOGGER, exp_dir)


@pytest.mark.req("FIN-1", "EVA-4")
def test_metrics_json_gets_both_splits_and_keeps_the_rest(cfg: DictConfig, evaluation: FakeEvaluation) -> None:
    path = exp_dir_of(cfg) / "reports" / "metrics.json"
    path.write_text(json.dumps({"history": {"classification": [1]}}))
    run(cfg)
    assert json.loads(path.read_text()) == {
        "history": {"classification": [1]}, "val": FIGURES["val"], "test": FIGURES["test"]
    }  # fmt: skip
    assert evaluation.splits == ["val", "test"]


@pytest.mark.req("FIN-1")
def test_val_is_not_judged_again_where_its_figures_are_there(cfg: DictConfig, evaluation: FakeEvaluation) -> None:
    known = FIGURES["val"] | {"classification": {"macro_f1": 0.5}}
    (exp_dir_of(cfg) / "reports" / "metrics.json").write_text(json.dumps({"val": known}))
    assert run(cfg)["val_results"]["classification"]["macro_f1"] == 0.5
    assert evaluation.splits == ["test"]


@pytest.mark.req("FIN-2")
def test_a_use_is_written_down_before_a_test_picture_is_read(cfg: DictConfig, evaluation: FakeEvaluation) -> None:
    results = run(cfg)
    (begun,) = evaluation.uses_at_test
    (done,) = content_of(cfg, LEDGER_NAME)["uses"]
    assert (begun["completed"], done["completed"], begun["forced"]) == (False, True, False)
    assert set(begun["checkpoints"]) == {"classification", "detection"}
    assert len(begun["git_sha"]) in (40, len("nogit"))
    assert (begun["id"], begun["pictures"]) == (done["id"], 2)
    assert results["uses"][0]["ended"] is not None
    shared = (exp_dir_of(cfg).parent / "cache" / "test_uses.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in shared] == [begun, done]


@pytest.mark.req("FIN-2")
def test_a_second_use_is_refused_and_reads_nothing(cfg: DictConfig, evaluation: FakeEvaluation) -> None:
    time_of_use = run(cfg)["uses"][0]["time"]
    del evaluation.splits[:]
    with pytest.raises(GateError, match=f"was used on {time_of_use.replace('+', '.')} .* once.* --force"):
        run(cfg)
    assert evaluation.splits == []
    assert len(content_of(cfg, LEDGER_NAME)["uses"]) == 1


@pytest.mark.req("FIN-2")
def test_a_forced_use_is_recorded_as_one(cfg: DictConfig) -> None:
    run(cfg)
    assert [use["forced"] for use in run(cfg, force=True)["uses"]] == [False, True]
    with pytest.raises(GateError, match="is used once"):
        run(cfg)


@pytest.mark.req("FIN-2")
def test_a_use_that_was_cut_short_is_listed_and_can_be_repeated(cfg: DictConfig, evaluation: FakeEvaluation) -> None:
    evaluation.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    evaluation.error = None
    assert [(use["completed"], use["ended"] is None) for use in run(cfg)["uses"]] == [(False, True), (True, False)]


@pytest.mark.req("FIN-2")
def test_a_kill_after_the_results_leaves_a_completed_use(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("pillsnap.evaluation.test_ledger.Ledger.complete", killed)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    assert content_of(cfg, LEDGER_NAME)["uses"][0]["completed"] is False
    with pytest.raises(GateError, match="is used once"):
        run(cfg)


@pytest.mark.req("FIN-2")
@pytest.mark.parametrize("deleted", [(LEDGER_NAME,), (RESULTS_NAME,), (LEDGER_NAME, RESULTS_NAME)], ids=len)
def test_a_deleted_ledger_is_remembered_elsewhere(cfg: DictConfig, deleted: tuple[str | Path, ...]) -> None:
    run(cfg)
    for name in deleted:
        (exp_dir_of(cfg) / name).unlink()
    with pytest.raises(GateError, match="is used once"):
        run(cfg)
    assert [use["forced"] for use in run(cfg, force=True)["uses"]] == [False, True]


@pytest.mark.req("FIN-2")
@pytest.mark.parametrize("name", [LEDGER_NAME, RESULTS_NAME], ids=str)
@pytest.mark.parametrize("content", ["{", "{}", '{"uses": [{"id": "1"}]}', '{"uses": 3}'])
def test_a_damaged_ledger_refuses_until_forced(cfg: DictConfig, name: str | Path, content: str) -> None:
    path = exp_dir_of(cfg) / name
    path.write_text(content)
    with pytest.raises(GateError, match=f"{path.name} is damaged, so nobody can tell whether .* --force"):
        run(cfg)
    assert [use["forced"] for use in run(cfg, force=True)["uses"]] == [True]
    assert path.with_name(f"{path.stem}.damaged.json").read_text() == content


@pytest.mark.req("FIN-2")
@pytest.mark.parametrize(
    ("key", "value"), [("completed", "yes"), ("checkpoints", []), ("time", "yesterday"), ("ended", 5)]
)
def test_an_entry_of_the_ledger_that_was_changed_is_damage(cfg: DictConfig, key: str, value: object) -> None:
    run(cfg)
    (use,) = content_of(cfg, LEDGER_NAME)["uses"]
    (exp_dir_of(cfg) / LEDGER_NAME).write_text(json.dumps({"uses": [use | {key: value}]}))
    with pytest.raises(GateError, match=f"{LEDGER_NAME} is damaged"):
        run(cfg)


@pytest.mark.req("FIN-2")
def test_other_experiments_are_told_of_a_use_of_the_same_pictures(
    cfg: DictConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(cfg)
    with (tmp_path / "cache" / "test_uses.jsonl").open("a") as file:
        file.write('{"id": "half a li')
    second = run(completed_experiment(tmp_path, name="second"))
    assert first["other_uses"] == []
    assert [use["exp_dir"] for use in second["other_uses"]] == [str(exp_dir_of(cfg).resolve())]
    assert "the pictures of this test split were used before: 1 time(s)" in caplog.text
    third = run(completed_experiment(tmp_path, name="third"))
    assert len(third["other_uses"]) == 2, "the half of a line spoils no later one"


@pytest.mark.req("FIN-2")
def test_the_same_training_repeated_is_another_training(cfg: DictConfig) -> None:
    run(cfg)
    for name in (LEDGER_NAME, RESULTS_NAME):
        (exp_dir_of(cfg) / name).unlink()
    later = time.time() + 5  # the same bits, written after the use
    for path in best_models(cfg, exp_dir_of(cfg)).values():
        os.utime(path, (later, later))
    assert len(run(cfg)["other_uses"]) == 1


@pytest.mark.req("FIN-2")
def test_where_nothing_is_shared_the_test_runs_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cfg = completed_experiment(
        tmp_path, f"paths.cache_dir={tmp_path / 'file'}", "dataloader.ram_optimization.cache_labels=false"
    )
    assert run(cfg)["ready_for_production"]
    assert "test_uses.jsonl cannot be read (Not a directory)" in caplog.text
    assert "neighbouring experiments will not be told of this use" in caplog.text


@pytest.mark.req("FIN-2")
@pytest.mark.parametrize("force", [False, True])
def test_two_processes_never_use_the_test_split_at_once(cfg: DictConfig, force: bool) -> None:
    lock = exp_dir_of(cfg) / LOCK_NAME
    code = f"import fcntl, sys; f = open({str(lock)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(GateError, match="Another process is running the final test"):
            run(cfg, force=force)
        other.communicate()
    assert not (exp_dir_of(cfg) / LEDGER_NAME).exists()
    assert run(cfg)["ready_for_production"], "the lock ends with its process"


@pytest.mark.req("FIN-2")
def test_a_lock_that_cannot_be_made_is_an_error(cfg: DictConfig) -> None:
    (exp_dir_of(cfg) / LOCK_NAME).mkdir()
    with pytest.raises(PillError, match=r"final_test\.lock cannot be made \(Is a directory\)"):
        run(cfg)


def test_the_log_tells_the_outcome_in_one_line(
    cfg: DictConfig, evaluation: FakeEvaluation, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation.figures["test"] = {"split": "test", "classification": {"macro_f1": 2 / 3}}
    with caplog.at_level(logging.INFO):
        run(cfg)
    line = "NEEDS_IMPROVEMENT: single_macro_f1 0.6667 (wanted 0.92), combo_mAP_0.5 not measured (wanted 0.85)"
    assert f"final test: {line}" in caplog.text


def test_results_of_other_models_are_none_of_today_s(cfg: DictConfig) -> None:
    assert results_for(cfg, exp_dir_of(cfg)) is None
    results = run(cfg)
    assert results_for(cfg, exp_dir_of(cfg)) == results
    (exp_dir_of(cfg) / "checkpoints" / "best.pt").write_text("trained further")
    assert results_for(cfg, exp_dir_of(cfg)) is None
