"""What a run writes about the pictures it uses, and that it does not train on pictures it is judged by."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from pillsnap.cli.train import main
from pillsnap.jsonfile import read_json
from tests.run.conftest import FinishedRun
from tests.run.tiny import REPOSITORY, tiny_words

DEMO = str(REPOSITORY / "configs" / "demo.yaml")


def _lines(run: FinishedRun) -> list[dict[str, str]]:
    with (run.exp_dir / "selection.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.req("STG-1")
def test_a_run_leaves_its_selection_and_its_facts(finished_run: FinishedRun) -> None:
    facts = read_json(finished_run.exp_dir / "selection.json")
    recorded = read_json(finished_run.exp_dir / "reports" / "run.json")["selection"]
    assert recorded == facts
    assert facts["class_balance"]["splits"]["train"]["num_classes"] == 5
    selected, unknown = facts["selection"]["selected"], facts["selection"]["unknown"]
    assert unknown["selected"] > 0
    assert len(_lines(finished_run)) == selected["single"] + selected["combo"] + unknown["selected"]


@pytest.mark.req("DAT-1")
def test_a_run_leaves_what_it_found_about_leaks(finished_run: FinishedRun) -> None:
    assert read_json(finished_run.exp_dir / "reports" / "leakage.json")["has_leaks"] is False


@pytest.mark.req("DAT-1")
def test_a_copy_on_another_side_ends_a_run_before_it_trains(
    data_root: Path, finished_run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    singles = {
        line["split"]: Path(line["image_path"]) for line in _lines(finished_run) if line["image_type"] == "single"
    }
    single, other = singles["val"], singles["train"]
    copied = shutil.copytree(data_root, tmp_path / "data")
    shutil.copy(copied / single, copied / other)
    code = main(["--cfg", DEMO, *tiny_words(tmp_path / "exp", copied, "data.synthetic=null")])
    said = capsys.readouterr().err
    assert code == 3
    assert single.name in said
    assert other.name in said
    assert not list((tmp_path / "exp" / "checkpoints").iterdir())


@pytest.mark.req("STG-2", "STG-3")
def test_a_run_trains_with_what_its_stage_sets(finished_run: FinishedRun) -> None:
    log = (finished_run.exp_dir / "logs" / "pillsnap.log").read_text()
    assert "large data set: train.auto_batch_vram_headroom 0.88 -> 0.92" in log
    assert "optimization.torch_compile stays none (set by the user; max-autotune otherwise)" in log
