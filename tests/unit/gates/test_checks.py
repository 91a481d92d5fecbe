from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pillsnap.errors import ConfigError, DataError
from pillsnap.gates import checks
from pillsnap.gates.checks import CHEAP, PRODUCERS, Producer, run_checks
from pillsnap.gates.evidence import Check, Evidence, Outcome, not_run, outcome
from pillsnap.gates.subject import Subject
from pillsnap.gates.targets import STAGES, get_stage_config
from tests.unit.gates.checked import replace


def _passing(subject: Subject) -> Outcome:
    return outcome(True, "fine", value=3, wanted=">= 1", unit="tasks", file="reports/run.json")


def _raising(error: BaseException) -> Callable[[Subject], Outcome]:
    def produce(subject: Subject) -> Outcome:
        raise error

    return produce


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts producers in the place of all there are."""

    def plant(**producers: Callable[[Subject], Outcome]) -> None:
        table = {name: Producer(produce, "it was run") for name, produce in producers.items()}
        monkeypatch.setattr(checks, "PRODUCERS", table)

    return plant


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize("stage", STAGES)
def test_every_mandatory_check_has_a_producer(stage: int) -> None:
    assert set(get_stage_config(stage).mandatory_checks) <= set(PRODUCERS)


@pytest.mark.req("CRT-2")
def test_there_is_no_producer_that_no_stage_asks_for() -> None:
    assert {name for stage in STAGES for name in get_stage_config(stage).mandatory_checks} == set(PRODUCERS)


@pytest.mark.req("CRT-2")
def test_the_cheap_checks_of_a_sound_experiment_pass_but_for_what_was_not_exported(experiment: Path) -> None:
    evidence = run_checks(experiment, CHEAP)
    found = {name: evidence.check(name).status for name in CHEAP}
    assert found == {**dict.fromkeys(CHEAP, "passed"), "onnx_conversion_success": "not run"}
    assert Evidence.load(experiment).to_dict() == evidence.to_dict()


@pytest.mark.req("CRT-2")
def test_a_check_says_what_ran_when_and_on_which_checkpoints(experiment: Path, planted: Callable[..., None]) -> None:
    planted(one=_passing)
    check = run_checks(experiment, ["one"]).check("one")
    assert (check.what, check.value, check.wanted, check.unit) == ("it was run", 3, ">= 1", "tasks")
    assert check.time is not None
    assert check.time.endswith("+00:00")
    assert set(check.checkpoint) == {"best.pt", "detection_best.pt"}


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DataError("the data set is gone"), "the data set is gone"),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
        (MemoryError("no more"), "MemoryError: no more"),
    ],
    ids=["user's", "disk", "GPU", "RAM"],
)
def test_an_error_to_be_mended_is_a_failed_check(
    experiment: Path, planted: Callable[..., None], error: BaseException, text: str
) -> None:
    planted(one=_raising(error))
    check = run_checks(experiment, ["one"]).check("one")
    assert (check.status, check.message) == ("failed", text)


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x"), AssertionError()])
def test_a_bug_is_no_failed_check(experiment: Path, planted: Callable[..., None], error: BaseException) -> None:
    planted(one=_raising(error))
    with pytest.raises(type(error)):
        run_checks(experiment, ["one"])


@pytest.mark.req("CRT-2")
def test_a_kill_loses_one_check(experiment: Path, planted: Callable[..., None]) -> None:
    planted(one=_passing, two=_raising(KeyboardInterrupt()), three=_passing)
    with pytest.raises(KeyboardInterrupt):
        run_checks(experiment, ["one", "two", "three"])
    assert list(Evidence.load(experiment).checks) == ["one"]


@pytest.mark.req("CRT-2")
def test_checks_of_earlier_calls_stay(experiment: Path, planted: Callable[..., None]) -> None:
    planted(one=_passing, two=_passing)
    run_checks(experiment, ["one"])
    assert list(run_checks(experiment, ["two"]).checks) == ["one", "two"]


@pytest.mark.req("CRT-2")
def test_reuse_leaves_out_what_passed_and_runs_the_rest(experiment: Path, planted: Callable[..., None]) -> None:
    planted(one=_passing, two=lambda subject: not_run("nothing to run"))
    run_checks(experiment, ["one", "two"])
    planted(one=_raising(AssertionError()), two=_passing)
    evidence = run_checks(experiment, ["one", "two"], reuse=True)
    assert (evidence.is_passed("one"), evidence.is_passed("two")) == (True, True)


@pytest.mark.req("CRT-2")
def test_reuse_runs_again_what_passed_with_other_weights(experiment: Path, planted: Callable[..., None]) -> None:
    planted(one=_passing)
    run_checks(experiment, ["one"])
    replace(experiment / "checkpoints" / "best.pt", b"trained on")
    planted(one=_raising(DataError("run again")))
    assert run_checks(experiment, ["one"], reuse=True).check("one").status == "failed"


def test_each_check_is_told_as_it_comes(experiment: Path, planted: Callable[..., None]) -> None:
    planted(one=_passing, two=_passing)
    told: list[tuple[str, Check]] = []
    evidence = run_checks(experiment, ["two", "one"], on_check=lambda name, check: told.append((name, check)))
    assert told == [("two", evidence.check("two")), ("one", evidence.check("one"))]


def test_an_unknown_name_is_bad_input(experiment: Path) -> None:
    with pytest.raises(ConfigError, match="no check named nope. Choose from: pipeline_complete,"):
        run_checks(experiment, ["nope"])


def test_a_folder_that_is_no_experiment_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of an experiment"):
        run_checks(tmp_path, ["pipeline_complete"])


def test_evidence_that_cannot_be_written_is_an_error(experiment: Path) -> None:
    (experiment / "reports" / "checks").write_text("a file where a folder is wanted")
    check = run_checks(experiment, ["detection_model_loading"]).check("detection_model_loading")
    assert check.status == "failed"
    assert "wanted a place for evidence" in check.message
