from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pillsnap.cli.synth import synth
from pillsnap.errors import ConfigError

TINY = ["--drugs", "4", "--singles", "10", "--combos", "3", "--width", "160", "--height", "200"]


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(synth)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_it_ends_with_counts_seconds_and_the_folder(tmp_path: Path) -> None:
    last = run(str(tmp_path / "pills"), *TINY).splitlines()[-1]
    assert last.startswith("4 drugs, 40 single and 3 combination pictures, ")
    assert " labels drawn in " in last
    assert last.endswith(f" s: {tmp_path / 'pills'}")
    assert len(list(tmp_path.rglob("*.png"))) == 43


def test_without_a_terminal_progress_is_plain_lines(tmp_path: Path) -> None:
    lines = run(str(tmp_path), *TINY, "--processes", "1").splitlines()
    assert "drawn 43/43 pictures" in lines
    assert 3 <= sum(line.startswith("drawn ") for line in lines) <= 10


def test_a_second_call_finds_the_data_set_there(tmp_path: Path) -> None:
    run(str(tmp_path), *TINY)
    assert "labels already there: " in run(str(tmp_path), *TINY)


def test_planted_faults_are_counted_on_screen(tmp_path: Path) -> None:
    output = run(str(tmp_path), *TINY, "--blemishes", "--data-level", "--unknown-drugs", "1")
    assert "planted truncated_image: 1, e.g. data/" in output
    assert "planted stray_image: 1, e.g. data/train/images/combination/TS_1_combo/" in output


def test_a_terminal_shows_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = run(str(tmp_path), *TINY)
    assert "drawing" in output
    assert "drawn 43/43" not in output


def test_a_spec_that_cannot_be_drawn_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_drugs is 1; wanted 2 to 5000"):
        run(str(tmp_path), "--drugs", "1", "--combos", "0")
