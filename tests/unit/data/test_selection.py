from __future__ import annotations

import csv
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from pillsnap.config.loading import load_config
from pillsnap.data.loaders import classification_evaluation_loader
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.records import Records
from pillsnap.data.selection import select_for_stage, selected_records, stage_limits
from pillsnap.data.selection_file import CSV_NAME, write_selection
from pillsnap.data.splits import assign_splits
from pillsnap.data.stages import StageLimits, StageSelection
from pillsnap.data.twostage import load_data
from pillsnap.errors import ConfigError
from tests.builders import write_aihub
from tests.unit.config.builders import ROOT_CONFIG

pytestmark = pytest.mark.req("STG-1")

STAGE_1 = "data.progressive_validation.stage_1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aihub")
    singles = {f"K-{number:06d}": 24 for number in range(1, 11)}
    combos = {f"K-{one:06d}-{other:06d}": 3 for one in range(1, 4) for other in range(one + 1, 4)}
    return write_aihub(folder, singles=singles, combos=combos, val_singles={"K-000099": 10})


def config(root: Path, tmp_path: Path, *overrides: str) -> DictConfig:
    words = [f"data.root={root}", f"paths.exp_dir={tmp_path}/exp", *overrides]
    return load_config(ROOT_CONFIG, [f"{STAGE_1}.max_samples=120", f"{STAGE_1}.max_classes=6", *words])


@pytest.mark.req("FIN-3")
def test_a_class_kept_from_training_is_unknown_at_a_limited_stage(root: Path, tmp_path: Path) -> None:
    data = load_data(config(root, tmp_path, "data.split.unknown_classes=[K-000009]"))
    assert "K-000009" not in data.class_map.codes
    codes = data.records.table.column("code").to_pylist()
    found = {code: side for code, side in zip(codes, data.split, strict=True) if side == "unknown"}
    assert set(found) == {"K-000009", "K-000099"}
    assert (data.split != "unknown").sum() == 120


@pytest.mark.req("FIN-3")
def test_a_class_kept_from_training_that_no_picture_shows_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown_classes names K-03, which no picture shows.*Nearest to K-03: K-0"):
        load_data(config(root, tmp_path, "data.split.unknown_classes=[K-000003, K-03]"))


def test_the_limits_are_those_of_the_current_stage() -> None:
    cfg = load_config(ROOT_CONFIG, ["data.progressive_validation.current_stage=3"])
    assert stage_limits(cfg) == StageLimits(max_samples=100_000, max_classes=1000, min_images=10)


def test_a_run_uses_what_its_stage_selects(root: Path, tmp_path: Path) -> None:
    data = load_data(config(root, tmp_path))
    assert len(data.class_map) == 6
    assert (data.split != "unknown").sum() == 120
    assert data.selection["is_limited"] is True
    assert data.num_indexed == 24 * 10 + 9 + 10


def test_without_limits_a_run_uses_everything(root: Path, tmp_path: Path) -> None:
    data = load_data(config(root, tmp_path, f"{STAGE_1}.max_samples=null", f"{STAGE_1}.max_classes=null"))
    assert (len(data.records), data.selection["is_limited"]) == (24 * 10 + 9 + 10, False)


def test_the_file_lists_every_picture_with_its_side(root: Path, tmp_path: Path) -> None:
    cfg = config(root, tmp_path)
    data = load_data(cfg)
    write_selection(data, cfg, tmp_path / CSV_NAME)
    with (tmp_path / CSV_NAME).open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["image_path", "mapping_code", "image_type", "source", "split"]
    assert [line["image_path"] for line in lines] == data.records.column("image_path").tolist()
    assert [line["split"] for line in lines] == data.split.tolist()
    assert all((root / line["image_path"]).exists() for line in lines)


def test_the_facts_tell_how_it_came_about(root: Path, tmp_path: Path) -> None:
    cfg = config(root, tmp_path)
    data = load_data(cfg)
    facts = write_selection(data, cfg, tmp_path / CSV_NAME)
    assert json.loads((tmp_path / "selection.json").read_text()) == json.loads(json.dumps(facts))
    assert (facts["stage"], facts["seed"], facts["limits"]["max_samples"]) == (1, 42, 120)
    assert facts["split"]["digest"] == data.digest()
    assert facts["selection"]["selected"]["classes"] == 6
    assert facts["class_balance"]["splits"]["train"]["num_classes"] == 6


def test_the_listed_pictures_alone_make_the_same_run(root: Path, tmp_path: Path) -> None:
    cfg = config(root, tmp_path)
    data = load_data(cfg)
    again = select_for_stage(data.records, cfg)
    options = cfg.data.split
    split = assign_splits(
        data.records,
        policy=options.policy,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )
    assert again.rows is None
    assert split.tolist() == data.split.tolist()


def test_two_writings_are_the_same_bytes(root: Path, tmp_path: Path) -> None:
    cfg = config(root, tmp_path)
    for name in ("one.csv", "two.csv"):
        write_selection(load_data(cfg), cfg, tmp_path / name)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_selected_pictures_are_mapped_from_a_file(root: Path, tmp_path: Path) -> None:
    cfg = config(root, tmp_path)
    records = load_data(cfg).records
    (path,) = Path(cfg.paths.cache_dir).glob("stage-*.arrow")
    assert path.name.encode() in pickle.dumps(records)
    assert len(pickle.dumps(records)) < 1000
    assert pickle.loads(pickle.dumps(records)).table.equals(records.table)


def test_a_damaged_file_of_the_selected_pictures_is_written_again(root: Path, tmp_path: Path) -> None:
    cfg = config(root, tmp_path)
    first = load_data(cfg).records.table.to_pylist()
    (path,) = Path(cfg.paths.cache_dir).glob("stage-*.arrow")
    path.write_bytes(path.read_bytes()[:-5])
    assert load_data(cfg).records.table.to_pylist() == first


def test_a_file_that_is_damaged_at_once_costs_memory_only(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    records = load_data(config(root, tmp_path)).records
    monkeypatch.setattr(Records, "write", lambda _self, path: path.write_bytes(b"not a table" * 99))
    assert len(selected_records(records, StageSelection(rows=np.arange(5)), tmp_path)) == 5
    assert "the pictures of the stage stay in memory" in caplog.text


def test_without_a_place_for_the_file_they_stay_in_memory(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pillsnap")
    (tmp_path / "file").touch()
    records = load_data(config(root, tmp_path, "dataloader.ram_optimization.cache_labels=false")).records
    rows = StageSelection(rows=records.column("width").nonzero()[0][:5])
    assert len(selected_records(records, rows, None)) == 5
    assert len(selected_records(records, rows, tmp_path / "file" / "cache")) == 5
    assert "the pictures of the stage stay in memory" in caplog.text


@pytest.mark.req("FIN-3")
def test_the_loader_of_unknown_pills_serves_them_without_a_class(root: Path, tmp_path: Path) -> None:
    cfg = config(root, tmp_path, "dataloader.num_workers=0", "train.classification.batch_size=8")
    half = (0.5, 0.5, 0.5)
    spec = ClassifierInput(size_px=32, mean=half, std=half, frame_fit="center")
    batches = list(classification_evaluation_loader(load_data(cfg), cfg, spec, "unknown"))
    assert [batch.labels_B.tolist() for batch in batches] == [[-1] * 8, [-1] * 2]
