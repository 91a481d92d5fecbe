from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from pillsnap.cli.synth import _duration, _PlainLines, synth
from pillsnap.data.images import image_size_wh
from pillsnap.errors import ConfigError

TINY = ["--drugs", "4", "--singles", "10", "--combos", "3", "--size", "160x200"]


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


def test_the_cost_of_a_picture_is_told(tmp_path: Path) -> None:
    line = next(line for line in run(str(tmp_path), *TINY).splitlines() if line.startswith("cost per picture: "))
    found = re.fullmatch(r"cost per picture: (\d\.\d{3}) s of a core, (\d+) KB", line)
    assert found
    assert 0 < float(found[1]) < 1
    assert int(found[2]) == round(sum(path.stat().st_size for path in tmp_path.rglob("*.png")) / 43 / 1000)


def test_without_a_terminal_progress_is_plain_lines(tmp_path: Path) -> None:
    lines = run(str(tmp_path), *TINY, "--processes", "1").splitlines()
    assert "drawn 43/43 pictures" in lines
    assert 3 <= sum(line.startswith("drawn ") for line in lines) <= 10


def test_progress_estimates_what_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0, 75.0, 90.0, 1000.0, 10_000.0])
    monkeypatch.setattr("pillsnap.cli.synth.time.monotonic", lambda: next(clock))
    tell = _PlainLines(Console(soft_wrap=True, highlight=False))
    for done in (100, 110, 165, 180, 595, 1000):
        tell(done, 1000)
    assert capsys.readouterr().out.splitlines() == [
        "going on after 100/1000 pictures drawn earlier",
        "drawn 165/1000 pictures, about 13.9 min left",
        "drawn 595/1000 pictures, about 13.5 min left",
        "drawn 1000/1000 pictures",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (119, "119 s"), (120, "2.0 min"), (9000, "2.5 h")])
def test_a_duration_is_told_in_its_own_unit(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


@pytest.mark.parametrize("size", ["976", "976*1280", "x1280", "-976x1280", "976x1280x3", "9.5x20"])
def test_a_size_that_is_none_is_shown_with_an_example(size: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--size is '.*'; wanted width and height .* Set --size 976x1280"):
        run(str(tmp_path), f"--size={size}")


@pytest.mark.parametrize("size", ["160x200", "160X200", "160×200"])
def test_a_size_is_width_and_height(size: str, tmp_path: Path) -> None:
    run(str(tmp_path), *TINY[:-1], size)
    assert {image_size_wh(path) for path in tmp_path.rglob("*.png")} == {(160, 200)}


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
