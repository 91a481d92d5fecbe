"""A whole run one of whose workers hangs: the log says where."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from pillsnap.data.datasets import ClassificationTrainingDataset, Key
from pillsnap.data.images import RgbImage
from pillsnap.training.run import run_training
from tests.run.tiny import tiny_config


def test_a_run_whose_worker_hangs_logs_the_stacks_and_goes_on_when_it_comes_back(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_path = tmp_path / "exp" / "logs" / "pillsnap.log"
    draw, calls = ClassificationTrainingDataset.draw, []

    def wait_for_a_picture_that_never_comes() -> None:
        deadline = time.monotonic() + 60
        while "picture_that_never_comes" not in log_path.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.02)

    def stuck(self: ClassificationTrainingDataset, key: Key, sample_id: int, out: RgbImage) -> Any:
        calls.append(key)
        if len(calls) == 40:
            wait_for_a_picture_that_never_comes()
        return draw(self, key, sample_id, out)

    monkeypatch.setattr(ClassificationTrainingDataset, "draw", stuck)
    words = ("train.tasks=[classification]", "train.classification.epochs=1", "dataloader.num_workers=1")
    run_training(tiny_config(tmp_path / "exp", data_root, *words, f"train.stall_minutes={0.5 / 60}"))
    log = log_path.read_text(encoding="utf-8")
    assert "in train_step" in log
    assert "in wait_for_a_picture_that_never_comes" in log
    assert re.search(r"WARNING no step .*last: classification step 4\); the stacks of 2 process", log)
