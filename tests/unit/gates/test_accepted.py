import logging
from dataclasses import replace
from pathlib import Path

import pytest

from pillsnap.errors import PillError
from pillsnap.gates.accepted import AcceptedRun, accepted_path, last_accepted, note_accepted, read_accepted


def note(folder: Path, name: str, stage: int, checkpoint: str = "a" * 64) -> AcceptedRun:
    (folder / name).mkdir(parents=True, exist_ok=True)
    exp_dir = str((folder / name).resolve())
    run = AcceptedRun(
        time="2026-01-31", stage=stage, exp_dir=exp_dir, accuracy=0.9, checkpoint=checkpoint, git_sha="nogit"
    )
    note_accepted(run)
    return run


@pytest.mark.req("GNG-1")
def test_the_newest_run_of_the_same_stage_is_found(tmp_path: Path) -> None:
    note(tmp_path, "first", 2)
    newest = note(tmp_path, "second", 2)
    note(tmp_path, "lower", 1)
    note(tmp_path, "higher", 3)
    assert last_accepted(tmp_path / "now", 2) == newest


@pytest.mark.req("GNG-1")
def test_without_one_of_the_same_stage_the_nearest_lower_one_is_found(tmp_path: Path) -> None:
    nearest = note(tmp_path, "two", 2)
    note(tmp_path, "one", 1)
    assert last_accepted(tmp_path / "now", 4) == nearest


@pytest.mark.req("GNG-1")
def test_a_run_of_a_higher_stage_is_no_baseline(tmp_path: Path) -> None:
    note(tmp_path, "higher", 3)
    assert last_accepted(tmp_path / "now", 2) is None


def test_the_same_folder_with_other_weights_is_another_run(tmp_path: Path) -> None:
    run = note(tmp_path, "exp", 1)
    assert last_accepted(tmp_path / "exp", 1, run.checkpoint) is None
    assert last_accepted(tmp_path / "exp", 1, "b" * 64) == run


def test_half_a_line_is_left_out_and_continued_on_a_new_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = note(tmp_path, "first", 1)
    path = accepted_path(tmp_path / "first")
    with path.open("a") as file:
        file.write('{"time": "2026-')
    second = note(tmp_path, "second", 1)
    with caplog.at_level(logging.WARNING, "pillsnap"):
        assert list(read_accepted(path)) == [first, second]
    assert "accepted_runs.jsonl:2 is no entry" in caplog.text


@pytest.mark.parametrize("line", ["[1]", '{"stage": 1}', "nonsense"])
def test_a_line_of_something_else_is_left_out(tmp_path: Path, line: str) -> None:
    path = tmp_path / "accepted_runs.jsonl"
    path.write_text(f"{line}\n")
    assert list(read_accepted(path)) == []


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "accepted_runs.jsonl").mkdir()
    with pytest.raises(PillError, match="cannot be read"):
        note(tmp_path, "exp", 1)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    run = note(tmp_path, "exp", 1)
    with pytest.raises(PillError, match="cannot be written"):
        note_accepted(replace(run, exp_dir=str(tmp_path / "gone" / "exp")))
