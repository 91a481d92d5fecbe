"""Memory that runs out on a real card, limited to 16 GB: the production models at their production sizes.

Run on a machine with a GPU: `python -m pytest -m gpu tests/faults/test_gpu.py -s`. Skipped without one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pillsnap.training.checkpoint import load_ckpt
from tests.run.tiny import REPOSITORY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.timeout(1800),
]
PRODUCTION = (
    "data.synthetic={num_drugs: 20, singles_per_drug: 200, num_combos: 900, width: 488, height: 640, seed: 42, "
    "num_unknown_drugs: 4}",
    "data.progressive_validation.current_stage=4",
    "model.num_classes=null",
    "model.pretrained=false",
    "detection.pretrained=false",
    "optimization.torch_compile=none",
    "hardware.gpu_memory_limit_gb=16",
    "train.classification.epochs=9",
    "train.detection.epochs=12",
)


def _train(exp_dir: Path, data_root: Path, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "src.train", "--cfg", "config.yaml", f"paths.exp_dir={exp_dir}"]
    done = subprocess.run(
        [*command, f"data.root={data_root}", *PRODUCTION, *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.req("BAT-1", "BAT-2", "BAT-3")
def test_after_the_search_500_steps_run_without_running_out(tmp_path: Path) -> None:
    code, text = _train(tmp_path / "exp", tmp_path / "data")
    assert code == 0, text[-3000:]
    assert "ran out of memory" not in text
    seconds = [float(value) for value in re.findall(r"\d+ run in (\S+) s\.", text)]
    assert len(seconds) == 2
    assert max(seconds) <= 60
    states = [load_ckpt(tmp_path / "exp" / "checkpoints" / name) for name in ("last.pt", "detection_last.pt")]
    assert sum(state["clock"]["step"] for state in states) >= 500


@pytest.mark.req("OOM-3", "OOM-4", "OOM-6")
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_a_batch_that_does_not_fit_the_card_is_cut_and_the_run_finishes(task: str, tmp_path: Path) -> None:
    code, text = _train(
        tmp_path / "exp",
        tmp_path / "data",
        "train.classification.auto_batch_tune=false",
        "train.detection.auto_batch_tune=false",
        f"train.{task}.batch_size=512",
        "train.oom.max_grad_accum=64",
        "train.oom.max_retries=8",
        "train.classification.epochs=1",
        "train.detection.epochs=1",
    )
    assert code == 0, text[-3000:]
    assert re.search(r"ran out of memory \(OutOfMemoryError: CUDA out of memory", text)
    recovered = [float(value) for value in re.findall(r"freeing and deciding took (\S+) s", text)]
    assert recovered
    assert max(recovered) < 2
