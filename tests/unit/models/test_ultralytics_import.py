import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, warnings
import numpy, torch
from PIL import Image
import pillsnap.models.detector_yolo11m as detector

def process_settings():
    return dict(os.environ), torch.save, Image.open, list(warnings.filters), numpy.get_printoptions()["linewidth"]

assert "ultralytics" not in sys.modules, "imported too early"
before = process_settings()
detector.build_yolo_model("n", 1, lazy_load=False, pretrained=False)
assert "ultralytics" in sys.modules
after = process_settings()
assert before == after, (before, after)
"""


@pytest.mark.req("ADR-2")
def test_building_a_detector_writes_nothing_and_changes_no_setting(tmp_path: Path) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    environment = {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=scratch, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [*home.rglob("*"), *scratch.rglob("*")] == []
