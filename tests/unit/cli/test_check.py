"""`pillsnap check` from the command line: what it prints, and its exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pillsnap.cli.main import main
from pillsnap.config.loading import save_config
from pillsnap.gates import checks
from pillsnap.gates.checks import Producer
from pillsnap.gates.evidence import Outcome, not_run, outcome
from pillsnap.gates.subject import CheckOptions, Subject
from pillsnap.gates.targets import get_stage_config
from pillsnap.jsonfile import read_json
from tests.run.tiny import tiny_config
from tests.unit.gates.experiment_case import ExperimentCase

Plant = Callable[..., None]


def _passing(subject: Subject) -> Outcome:
    return outcome(True, "as it [should] be", value=1, wanted=">= 1", file="reports/run.json")


@pytest.fixture
def exp_dir(tmp_path: Path) -> Path:
    """An experiment whose figures are good enough for stage 1."""
    case = ExperimentCase(tmp_path / "exp")
    save_config(tiny_config(case.dir, tmp_path / "data"), case.dir / "config.yaml")
    return case.dir


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Puts producers in place of those of stage 1; all pass where nothing else is said."""

    def plant(**producers: Callable[[Subject], Outcome]) -> None:
        names = get_stage_config(1).mandatory_checks
        monkeypatch.setattr(
            checks, "PRODUCERS", {name: Producer(producers.get(name, _passing), "it was run") for name in names}
        )

    return plant


def _run(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main(["check", *map(str, words)])
    return left.value.code


@pytest.mark.req("GNG-1", "CRT-2")
def test_a_go_is_exit_code_0(exp_dir: Path, plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant()
    assert _run("--stage", 1, "--exp", exp_dir, "--lang", "en") == 0
    out = capsys.readouterr().out
    assert f"Stage 1 is a go for {exp_dir}." in out
    assert "as it [should] be" in out
    assert read_json(exp_dir / "reports" / "verdict.json")["go"] is True
    assert (exp_dir / "reports" / "advice.json").is_file()


@pytest.mark.req("GNG-1", "CRT-2")
def test_a_check_that_was_not_run_is_exit_code_5(
    exp_dir: Path, plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(onnx_conversion_success=lambda subject: not_run("nothing was exported"))
    assert _run("--stage", 1, "--exp", exp_dir) == 5
    text = capsys.readouterr()
    assert "CHECK_NOT_RUN:onnx_conversion_success" in text.err
    assert re.search(r"onnx_conversion_success\W+not run\W+nothing was exported", text.out)


@pytest.mark.req("GNG-1", "CRT-2")
def test_only_runs_one_check_and_leaves_the_others_as_they_were(exp_dir: Path, plant: Plant) -> None:
    plant()
    _run("--stage", 1, "--exp", exp_dir)
    before = read_json(exp_dir / "reports" / "checks.json")["checks"]
    plant(pipeline_complete=lambda subject: outcome(False, "broken"))
    assert _run("--stage", 1, "--exp", exp_dir, "--only", "pipeline_complete") == 5
    after = read_json(exp_dir / "reports" / "checks.json")["checks"]
    assert after.pop("pipeline_complete")["status"] == "failed"
    del before["pipeline_complete"]
    assert after == before


@pytest.mark.req("CRT-2")
def test_options_reach_the_producers(exp_dir: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CheckOptions] = []

    def look(subject: Subject) -> Outcome:
        seen.append(subject.options)
        return _passing(subject)

    plant(pipeline_complete=look)
    monkeypatch.setenv("MY_KEY", "secret")
    urls = ("--api-url", "http://a", "--public-url", "https://b", "--prometheus-url", "http://c")
    words = ("--minutes", 2, "--api-key-env", "MY_KEY", "--local-stand-in", "--only", "pipeline_complete")
    _run("--stage", 1, "--exp", exp_dir, *urls, *words)
    assert seen == [
        CheckOptions(
            minutes=2,
            api_url="http://a",
            api_key="secret",
            public_url="https://b",
            is_public_url_stand_in=True,
            prometheus_url="http://c",
        )
    ]
    assert "secret" not in repr(seen)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--only", "nope"), "no check named nope"),
        (("--api-url", "nowhere"), "no address of a service"),
        (("--baseline", "/nowhere"), "/nowhere"),
    ],
    ids=["check", "address", "baseline"],
)
def test_bad_input_is_exit_code_2(
    exp_dir: Path, plant: Plant, capsys: pytest.CaptureFixture[str], words: tuple[str, str], text: str
) -> None:
    plant()
    assert _run("--stage", 1, "--exp", exp_dir, *words) == 2
    assert text in capsys.readouterr().err


def test_a_folder_that_is_no_experiment_is_exit_code_2(tmp_path: Path) -> None:
    assert _run("--stage", 1, "--exp", tmp_path) == 2


def test_there_is_no_stage_5(exp_dir: Path) -> None:
    assert _run("--stage", 5, "--exp", exp_dir) == 2
