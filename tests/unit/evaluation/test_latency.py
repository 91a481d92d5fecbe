"""How latency is measured: what counts, what does not, and what the file says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pillsnap.cli.main import main
from pillsnap.config.loading import load_config, save_config
from pillsnap.data.images import RgbImage, decode_rgb
from pillsnap.errors import CheckpointError, DataError
from pillsnap.evaluation import latency
from pillsnap.evaluation.latency import NUM_RUNS, NUM_WARMUP, measure_latency, timing
from tests.builders import write_image
from tests.unit.evaluation.final_test_case import REPOSITORY
from tests.unit.inference.builders import write_experiment

pytestmark = pytest.mark.req("MEA-1")

CPU = torch.device("cpu")


class Clock:
    """Stands still but for what `advance` lets pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def test_percentiles_are_of_the_runs_after_the_warm_up() -> None:
    clock = Clock()
    elapsed_s = [9.0] * 20 + np.random.default_rng(0).permutation(np.arange(1, 201)).tolist()
    found = timing(lambda run: clock.advance(elapsed_s[run]), CPU, clock=clock)
    # Linear between neighbours: of 1..200 the p-th percentile is 1 + 199 p / 100.
    assert found == {
        "p50_ms": pytest.approx(100_500),
        "p95_ms": pytest.approx(190_050),
        "p99_ms": pytest.approx(198_010),
        "mean_ms": pytest.approx(100_500),
        "n": 200,
        "warmup": 20,
    }


def test_every_run_is_called_once_and_by_default_as_the_protocol_says() -> None:
    runs: list[int] = []
    timing(runs.append, CPU)
    assert runs == list(range(220))
    assert (NUM_WARMUP, NUM_RUNS) == (20, 200)


def test_on_a_gpu_a_run_ends_when_the_gpu_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: clock.advance(0.25))
    found = timing(lambda _run: None, torch.device("cuda", 0), num_warmup=1, num_runs=3, clock=clock)
    assert found["p50_ms"] == pytest.approx(250)


def experiment_with_pictures(tmp_path: Path, kinds: dict[str, str], *, with_detector: bool = True) -> Path:
    """Write random models and a selection: picture name -> "kind,split"."""
    exp_dir = write_experiment(tmp_path / "exp", with_detector=with_detector)
    root = tmp_path / "data"
    words = [f"data.root={root}", f"paths.exp_dir={exp_dir}", "data.synthetic=null"]
    save_config(load_config(REPOSITORY / "configs" / "demo.yaml", words), exp_dir / "config.yaml")
    lines = ["image_path,mapping_code,image_type,source,split"]
    for name, kind in kinds.items():
        write_image(root / name)
        picture_type, split = kind.split(",")
        lines.append(f"{name},K-000001,{picture_type},aihub576,{split}")
    (exp_dir / "selection.csv").write_text("\n".join(lines) + "\n")
    return exp_dir


PICTURES = {"a.png": "single,val", "b.png": "combo,val", "c.png": "single,train", "d.png": "combo,test"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are decoded."""
    names: list[str] = []

    def decode(path: Path) -> RgbImage:
        names.append(path.name)
        return decode_rgb(path)

    monkeypatch.setattr(latency, "decode_rgb", decode)
    return names


def test_whole_answers_and_bare_models_are_measured_and_written(tmp_path: Path) -> None:
    exp_dir = experiment_with_pictures(tmp_path, PICTURES)
    found = measure_latency(exp_dir, num_warmup=1, num_runs=2)
    for name in ("single", "combo", "detector", "classifier"):
        assert 0 < found[name]["p50_ms"] <= found[name]["p99_ms"]
        assert (found[name]["n"], found[name]["warmup"]) == (2, 1)
    assert found["pictures"] == {"single": 1, "combo": 1}
    assert set(found["checkpoints"]) == {"classification", "detection"}
    assert found["command"] == f"pillsnap latency {exp_dir}"
    assert json.loads((exp_dir / "reports" / "latency.json").read_text()) == found


def test_only_pictures_of_the_val_split_are_read(tmp_path: Path, opened: list[str]) -> None:
    measure_latency(experiment_with_pictures(tmp_path, PICTURES), num_warmup=0, num_runs=1)
    assert set(opened) == {"a.png", "b.png"}


def test_without_a_detector_only_single_answers_are_measured(tmp_path: Path) -> None:
    found = measure_latency(experiment_with_pictures(tmp_path, PICTURES, with_detector=False), num_warmup=0, num_runs=1)
    assert (found["combo"], found["detector"]) == (None, None)
    assert found["single"]["n"] == found["classifier"]["n"] == 1


def test_pictures_of_the_other_kind_serve_where_one_is_missing(tmp_path: Path) -> None:
    exp_dir = experiment_with_pictures(tmp_path, {"b.png": "combo,val"})
    assert measure_latency(exp_dir, num_warmup=0, num_runs=1)["pictures"] == {"single": 1, "combo": 1}


@pytest.mark.parametrize("damage", ["no selection", "no picture", "broken picture"])
def test_without_a_readable_val_picture_nothing_can_be_measured(tmp_path: Path, damage: str) -> None:
    exp_dir = experiment_with_pictures(tmp_path, {"a.png": "single,val"})
    (exp_dir / "selection.csv" if damage == "no selection" else tmp_path / "data" / "a.png").unlink()
    if damage == "broken picture":
        (tmp_path / "data" / "a.png").write_text("none")
    with pytest.raises(DataError, match="names no picture of the val split that can be read below"):
        measure_latency(exp_dir, num_warmup=0, num_runs=1)


def test_without_a_classifier_nothing_can_be_measured(tmp_path: Path) -> None:
    exp_dir = experiment_with_pictures(tmp_path, PICTURES)
    (exp_dir / "checkpoints" / "best.pt").unlink()
    with pytest.raises(CheckpointError, match="no trained model for classification"):
        measure_latency(exp_dir, num_warmup=0, num_runs=1)


def test_the_command_prints_a_line_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = {"p50_ms": 1.5, "p95_ms": 2.5, "p99_ms": 3.5, "mean_ms": 1.75, "n": 200, "warmup": 20}
    monkeypatch.setattr(latency, "timing", lambda *_, **__: fixed)
    exp_dir = experiment_with_pictures(tmp_path, PICTURES)
    with pytest.raises(SystemExit) as left:
        main(["latency", str(exp_dir)])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert all(title in said for title in ("one pill", "several pills", "detector alone", "classifier alone"))
    assert str(exp_dir / "reports" / "latency.json") in said.replace("\n", "")
