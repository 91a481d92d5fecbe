"""The endurance benchmark at a small size, and its verdict on made-up samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import endurance
from benchmarks.endurance import Usage, main


def _usage(mb_per_sample: float, files: list[int]) -> Usage:
    steps = [100 * (number + 1) for number in range(len(files))]
    return Usage(steps, [500 + mb_per_sample * number for number in range(len(files))], files)


def test_the_slope_is_per_thousand_steps() -> None:
    growth = _usage(0.05, [7] * 20).growth(warmup_steps=1000)
    assert growth["mb_per_1000_steps"] == pytest.approx(0.5)
    assert growth["open_files_per_1000_steps"] == pytest.approx(0)
    assert growth["grew"] is False


def test_what_grows_in_the_warm_up_is_left_out() -> None:
    usage = _usage(0.0, [7] * 20)
    usage.resident_mb[:9] = [100.0] * 9
    assert usage.growth(warmup_steps=1000)["mb_per_1000_steps"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("mb_per_sample", "files"),
    [(0.11, [7] * 20), (0.0, [7] * 15 + [8] * 5)],
    ids=["a megabyte in a thousand steps", "a file left open"],
)
def test_growth_is_noticed(mb_per_sample: float, files: list[int]) -> None:
    assert _usage(mb_per_sample, files).growth(warmup_steps=0)["grew"] is True


def test_a_file_open_for_a_moment_is_no_growth() -> None:
    assert _usage(0.0, [7] * 19 + [8]).growth(warmup_steps=0)["grew"] is False


def test_six_hundred_steps_write_every_sample(tmp_path: Path) -> None:
    path = tmp_path / "endurance.json"
    # So few steps say little about growth: the line may rise while allocators still fill up.
    assert main(["--steps", "600", "--warmup", "200", "--json", str(path)]) in (0, endurance.GREW)
    found = json.loads(path.read_text())
    assert found["steps"] == [100, 200, 300, 400, 500, 600]
    assert len(found["resident_mb"]) == len(found["open_files"]) == 6
    assert found["mb_per_1000_steps"] < 50
    assert {"open_files_per_1000_steps", "grew", "seconds", "machine", "versions", "date", "command"} <= found.keys()


def test_growth_ends_with_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"seconds": 1.0, "open_files": [7, 9], **_usage(0.2, [7] * 20).growth(0)}
    monkeypatch.setattr(endurance, "measure", lambda *_: result)
    assert main([]) == 1
    assert "memory +2.000 MB per 1,000 steps" in capsys.readouterr().out


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: int) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(endurance, "measure", interrupted)
    assert main([]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--steps", "1200"], "fewer than three samples"),
        (["--steps", "many"], "invalid int value"),
        (["--json", "/nowhere/x.json"], "there is no folder"),
    ],
    ids=["too few", "no number", "no folder"],
)
def test_bad_arguments_are_refused(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert text in capsys.readouterr().err
