"""The final test at the end of a whole run, and by its command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pillsnap.cli.main import main
from pillsnap.config.loading import load_experiment_config, save_config
from pillsnap.errors import DataError
from pillsnap.evaluation.experiment import SplitEvaluation
from pillsnap.evaluation.test_ledger import LEDGER_NAME, RESULTS_NAME
from pillsnap.jsonfile import read_json, save_json
from pillsnap.training.ending import RunResult
from pillsnap.training.run import run_training
from tests.builders import write_folders
from tests.run.conftest import FinishedRun
from tests.run.tiny import tiny_config

pytestmark = pytest.mark.req("FIN-1", "FIN-2")


@pytest.fixture
def tested(finished_run: FinishedRun, tmp_path: Path) -> Path:
    """A finished run whose test split was used."""
    exp_dir = tmp_path / "exp"
    shutil.copytree(finished_run.exp_dir, exp_dir)
    cfg = tiny_config(exp_dir, Path(load_experiment_config(exp_dir).data.root))
    save_config(cfg, exp_dir / "config.yaml")  # with a cache folder of its own
    return exp_dir


@pytest.fixture
def untested(tested: Path) -> Path:
    """The same run, as if it had been killed before the final test."""
    for name in (LEDGER_NAME, RESULTS_NAME):
        (tested / name).unlink()
    path = tested / "reports" / "metrics.json"
    save_json(path, {key: value for key, value in read_json(path).items() if key != "test"})
    return tested


def resumed(exp_dir: Path) -> RunResult:
    root = Path(load_experiment_config(exp_dir).data.root)
    return run_training(tiny_config(exp_dir, root, "train.resume=last"))


def pillsnap(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


def metrics_of(exp_dir: Path) -> dict[str, Any]:
    return read_json(exp_dir / "reports" / "metrics.json")


def test_the_end_of_stage_4_judges_val_and_then_test_once(finished_run: FinishedRun) -> None:
    results = read_json(finished_run.exp_dir / RESULTS_NAME)
    assert results == finished_run.result.final_test
    assert [use["completed"] for use in results["uses"]] == [True]
    assert results["recommendation"] == "NEEDS_IMPROVEMENT"
    run = read_json(finished_run.exp_dir / "reports" / "run.json")
    assert run["evaluation"]["split"] == "val"
    assert ("final test", "NEEDS_IMPROVEMENT") in [(entry["what"], entry["to"]) for entry in run["decisions"]]
    assert (
        metrics_of(finished_run.exp_dir)["test"]["classification"]["acc"]
        == (results["test_results"]["classification"]["accuracy"])
    )


def test_going_on_with_a_completed_run_tests_it_no_second_time(tested: Path) -> None:
    before = read_json(tested / RESULTS_NAME)
    figures = metrics_of(tested)["test"]
    result = resumed(tested)
    assert result.final_test == read_json(tested / RESULTS_NAME) == before
    assert metrics_of(tested)["test"] == figures
    run = read_json(tested / "reports" / "run.json")
    assert run["decisions"][-1]["to"] == "not run"
    assert "for these models" in run["decisions"][-1]["why"]


def test_test_figures_of_other_models_are_not_shown_as_those_of_today_s(tested: Path) -> None:
    results = read_json(tested / RESULTS_NAME)
    for path in (tested / RESULTS_NAME, tested / LEDGER_NAME):
        content = read_json(path)
        content["uses"][-1]["checkpoints"] = dict.fromkeys(results["uses"][-1]["checkpoints"], "0" * 64)
        save_json(path, content)
    assert resumed(tested).final_test is None
    assert "test" not in metrics_of(tested)
    decisions = read_json(tested / "reports" / "run.json")["decisions"]
    assert "for other models than these" in decisions[-1]["why"]


def test_a_damaged_ledger_keeps_the_test_split_closed_and_is_no_failure_of_the_run(tested: Path) -> None:
    (tested / LEDGER_NAME).write_text("{")
    resumed(tested)
    decisions = read_json(tested / "reports" / "run.json")["decisions"]
    assert "test_uses.json is damaged, so nobody can tell" in decisions[-1]["why"]
    assert "test_uses.json is damaged and not shown" in (tested / "reports" / "index.html").read_text(encoding="utf-8")


def test_a_run_killed_in_the_final_test_has_all_of_val_and_tests_again(
    untested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = SplitEvaluation.run

    def killed(self: SplitEvaluation, split: str) -> dict[str, Any]:
        if split == "test":
            raise KeyboardInterrupt
        return judge(self, split)

    for path in ("index.html", "run.json", "metrics.json"):
        (untested / "reports" / path).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(SplitEvaluation, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            resumed(untested)
    assert (untested / "reports" / "index.html").is_file()
    assert read_json(untested / "reports" / "run.json")["evaluation"]["split"] == "val"
    assert set(metrics_of(untested)) >= {"val", "history"}
    result = resumed(untested)
    assert result.final_test is not None
    assert [use["completed"] for use in result.final_test["uses"]] == [False, True]


def test_without_test_pictures_the_run_ends_without_a_final_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folders(tmp_path / "photos", {"alpha": 2, "beta": 2})  # one to train on, one for val
    words = ("data.synthetic=null", "data.progressive_validation.min_images_per_class=0")
    cfg = tiny_config(tmp_path / "exp", root, *words, "train.tasks=[classification]")
    assert run_training(cfg).final_test is None
    decisions = read_json(tmp_path / "exp" / "reports" / "run.json")["decisions"]
    assert decisions[-1]["why"] == "the test split is empty"
    capsys.readouterr()
    assert pillsnap("final-test", tmp_path / "exp") == 3
    assert "is empty" in capsys.readouterr().err


def test_the_command_tests_once_and_again_only_by_force(
    finished_run: FinishedRun, untested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pillsnap("final-test", untested) == 0
    found, expected = read_json(untested / RESULTS_NAME), finished_run.result.final_test
    assert expected is not None
    assert found["test_results"] == expected["test_results"]
    assert found["val_results"] == expected["val_results"]
    said = capsys.readouterr().out
    assert "best models, test split" in said
    assert "single_macro_f1: " in said
    assert "NEEDS_IMPROVEMENT" in said
    assert pillsnap("final-test", untested) == 5
    assert "is used once" in capsys.readouterr().err
    assert pillsnap("final-test", untested, "--force") == 0
    assert [use["forced"] for use in read_json(untested / RESULTS_NAME)["uses"]] == [False, True]


@pytest.mark.req("VAL-3", "DAT-1")
def test_the_command_refuses_before_stage_4_is_over(untested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = untested / "checkpoints" / "manifest.json"
    for path in (manifest, manifest.with_name("manifest.copy.json")):
        path.unlink()
    assert pillsnap("final-test", untested) == DataError.exit_code
    assert "has no checkpoints, wanted a completed stage 4" in capsys.readouterr().err
    assert not (untested / LEDGER_NAME).exists()


def test_the_results_are_json_without_nan(finished_run: FinishedRun) -> None:
    text = (finished_run.exp_dir / RESULTS_NAME).read_text(encoding="utf-8")
    json.loads(text, parse_constant=pytest.fail)
