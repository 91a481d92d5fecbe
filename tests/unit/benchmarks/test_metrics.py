"""The cost of judging a split, measured on a small one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import metrics

pytestmark = pytest.mark.req("VAL-1")

SMALL = ["--pills", "300", "--classes", "20", "--batch", "64", "--threads", "1"]


def test_every_step_is_timed_and_the_small_case_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics.main([*SMALL, "--json", str(tmp_path / "m.json")]) == 0
    content = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert list(content["seconds"]) == ["answers", "figures_and_plots", "at_a_temperature", "table", "table_file"]
    assert content["small_case"]["ours"] == pytest.approx(content["small_case"]["scikit_learn"], abs=1e-6)
    assert content["figures"]["n"] == 300
    assert "resident memory" in capsys.readouterr().out


def test_more_than_wanted_ends_with_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "WANTED_GIB", 1e-6)
    assert metrics.main(SMALL) == 1


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics.main([*SMALL, "--json", str(tmp_path / "none" / "m.json")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_numbers_below_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        metrics.main(["--pills", "0"])
    assert "--pills is 0; wanted 1 or more" in capsys.readouterr().err


def test_memory_does_not_grow_with_pills_times_classes(tmp_path: Path) -> None:
    # 20,000 x 5,000 take 0.19 GiB as float16 and 0.37 GiB as float32; a process of its own, for a peak of its own.
    command = [sys.executable, "-m", "benchmarks.metrics", "--pills", "20000", "--threads", "1"]
    subprocess.run([*command, "--json", str(tmp_path / "m.json")], check=True, capture_output=True)
    content = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert content["peak_gib"] - content["peak_gib_before"] < 0.16
