"""A real failed allocation: training under an address-space limit with a batch that does not fit.

A process of its own, because the limit and glibc's setting for it stay with a process.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pillsnap.training.checkpoint import load_ckpt
from tests.run.tiny import REPOSITORY, tiny_words

# 128 samples of 96 pixels at once need about 0.6 GB with this network, 64 need half of it.
LIMIT_GB = 0.45
WORDS = (
    "data.synthetic.singles_per_drug=24",
    "model.image_size=96",
    "train.batch_size=128",
    "train.classification.auto_batch_tune=false",
    "train.detection.auto_batch_tune=false",
    f"hardware.gpu_memory_limit_gb={LIMIT_GB}",
)


@pytest.mark.req("OOM-3", "OOM-5", "OOM-6")
def test_a_batch_that_does_not_fit_is_cut_and_the_run_finishes(tmp_path: Path) -> None:
    words = tiny_words(tmp_path / "exp", tmp_path / "data", *WORDS)
    command = [sys.executable, "-m", "src.train", "--cfg", "configs/demo.yaml", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    log = (tmp_path / "exp" / "logs" / "pillsnap.log").read_text(encoding="utf-8")
    assert re.search(
        r"\[train\] step 1 ran out of memory \(RuntimeError: .*DefaultCPUAllocator: can't allocate memory.*\)\. "
        r"microbatching, attempt 1 of 4: micro-batches 128 x 1 -> 64 x 2, G 128 -> 128",
        log,
    )
    recovered = re.findall(r"\[train\] step \d went through .* freeing and deciding took (\S+) s", log)
    assert recovered
    assert max(map(float, recovered)) < 2

    state = load_ckpt(tmp_path / "exp" / "checkpoints" / "last.pt")
    assert state["recovery"]["cut"]["batch_size"] < 128
    assert state["recovery"]["cut"]["lr_scale"] == 1
    assert state["epoch"] == 2
    decisions = json.loads((tmp_path / "exp" / "reports" / "run.json").read_text(encoding="utf-8"))["decisions"]
    assert ("train: cut", "128 x 1", "64 x 2") in [(each["what"], each["from"], each["to"]) for each in decisions]


@pytest.mark.req("OOM-3")
def test_a_limit_nothing_fits_in_ends_with_exit_code_4_and_advice(tmp_path: Path) -> None:
    words = tiny_words(tmp_path / "exp", tmp_path / "data", *WORDS, "hardware.gpu_memory_limit_gb=0.18")
    command = [sys.executable, "-m", "src.train", "--cfg", "configs/demo.yaml", *words, "train.oom.cooldown_sec=0"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "ran out of memory" in done.stderr
    assert "Traceback" not in done.stderr
