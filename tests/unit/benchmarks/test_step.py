"""The step benchmark at a toy size; in a process of its own, because ultralytics' trainer changes much of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import step

REPOSITORY = Path(__file__).parents[3]
TOY = ["--rounds=1", "--steps=2", "--model=test_resnet", "--image-size=32", "--batch-size=4", "--num-classes=5"]
TOY += ["--detection-image-size=64", "--detection-batch-size=2"]


@pytest.mark.slow
def test_a_toy_run_writes_every_figure_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path, home = tmp_path / "step.json", tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-m", "benchmarks.step", "--json", str(path), *TOY]
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "TMPDIR": str(home)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ours", "classification", "detection"]
    found = json.loads(path.read_text())
    for name in ("classification", "detection"):
        result = found[name]
        assert result["ratio_median"] > 0
        assert isinstance(result["snapshot_cost_percent"], float)
        assert {side: len(seconds) for side, seconds in result["seconds"].items()} == {
            "ours": 1,
            "peer": 1,
            "without_snapshots": 1,
        }
        # The same loss from the same weights: both sides do the same work.
        assert result["first_loss"]["ours"] == pytest.approx(result["first_loss"]["peer"], rel=1e-4)
        assert result["settings"]["steps"] == 2
    assert found["detection"]["peer"] == {
        "optimizer": "AdamW",
        "accumulate": 1,
        "ema": True,
        "channels_last": False,
    }
    assert {"machine", "versions", "date", "command", "threads", "clock"} <= found.keys()
    assert [file.name for file in home.rglob("*") if "ltralytics" in file.name or "pillsnap" in file.name] == []


@pytest.fixture
def _allocator_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "keep_freed_memory", lambda: False)  # cannot be undone in a process


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--rounds", "0"], "0 is not 1 or more"),
        (["--only", "segmentation"], "invalid choice"),
        (["--batch-size", "6", "--micro-batch", "4"], "no multiple of --micro-batch"),
        (["--detection-image-size", "100"], "no multiple of 32"),
        (["--json", "/nowhere/x.json"], "there is no folder"),
        (["--clock", "cpu", "--threads", "2"], "needs --threads 1"),
    ],
    ids=["no rounds", "unknown", "uneven", "size", "no folder", "clock"],
)
def test_bad_arguments_are_refused(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        step.main(words)
    assert error.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.usefixtures("_allocator_as_it_is")
def test_an_unknown_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert step.main(["--only=classification", "--model=no_such_net"]) == 2
    assert "no_such_net" in capsys.readouterr().err


@pytest.mark.usefixtures("_allocator_as_it_is")
def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(step, "_run", interrupted)
    assert step.main([]) == 130
    assert "interrupted" in capsys.readouterr().err
