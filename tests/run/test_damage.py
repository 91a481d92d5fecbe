"""Whole runs over damaged data: to the end within the limit, and above it a stop that can be gone on from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from pillsnap.config.loading import load_config
from pillsnap.data.synthetic import SyntheticSpec, SyntheticSummary, draw_dataset
from pillsnap.errors import TooMuchDamageError
from pillsnap.jsonfile import read_json
from pillsnap.training.checkpoint import load_ckpt
from pillsnap.training.run import run_training
from tests.builders import write_folders
from tests.run.tiny import REPOSITORY, tiny_words

pytestmark = pytest.mark.req("DAT-2")
WORDS = (
    "data.synthetic=null",
    "train.batch_size=32",
    "train.classification.epochs=1",
    "train.detection.epochs=1",
    "train.detection.augment.close_mosaic_epochs=0",
    "data.progressive_validation.current_stage=1",
)


@pytest.fixture(scope="module")
def blemished(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSummary:
    """Draw 520 single and 30 combination pictures with every kind of blemish; five files are damaged, 0.9 %."""
    spec = SyntheticSpec(num_drugs=5, singles_per_drug=104, num_combos=30, width=160, height=200, blemishes=True)
    return draw_dataset(tmp_path_factory.mktemp("blemished") / "data", spec, num_processes=1)


def _config(exp_dir: Path, root: Path, *more: str) -> DictConfig:
    words = [word for word in tiny_words(exp_dir, root, *WORDS, *more) if not word.startswith("data.synthetic.")]
    return load_config(REPOSITORY / "configs" / "demo.yaml", words)


@pytest.fixture(scope="module")
def tolerant_run(blemished: SyntheticSummary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exp_dir = tmp_path_factory.mktemp("tolerant") / "exp"
    run_training(_config(exp_dir, blemished.root))
    return exp_dir


def test_a_data_set_with_1_percent_of_damaged_files_trains_to_the_end(
    blemished: SyntheticSummary, tolerant_run: Path
) -> None:
    metrics = read_json(tolerant_run / "reports" / "metrics.json")
    assert metrics["skipped"] == {"broken_json": 2, "empty_image": 2, "truncated_image": 1}
    details = metrics["skipped_details"]
    assert 0.008 < details["share"] < 0.01
    named = {path for paths in details["examples"].values() for path in paths}
    damaging = ("broken_json", "empty_image", "truncated_image")
    assert named == {path for kind in damaging for path in blemished.faults[kind]}
    found_by_the_reader = set(details["index_problems"])
    assert found_by_the_reader >= set(blemished.faults) - {"hidden_file", "truncated_image"}
    assert read_json(tolerant_run / "reports" / "damaged.json")["damaged"] == 5


def test_above_the_limit_a_run_saves_lists_the_files_and_can_be_gone_on_with(
    blemished: SyntheticSummary, tolerant_run: Path, tmp_path: Path
) -> None:
    # What the reader sees is below this limit; with the picture that only decoding finds, the share is above it.
    with pytest.raises(TooMuchDamageError) as caught:
        run_training(_config(tmp_path / "exp", blemished.root, "data.max_corruption=0.008"))
    assert caught.value.exit_code == 3
    text = str(caught.value)
    [truncated] = blemished.faults["truncated_image"]
    assert re.search(r"5 files in .* are damaged, 0\.9\d% of the pictures", text)
    assert f"truncated_image: {truncated}" in text
    assert "The state was saved in" in text
    listed = read_json(tmp_path / "exp" / "reports" / "damaged.json")["kinds"]
    assert [entry["path"] for entry in listed["truncated_image"]] == [truncated]
    with pytest.raises(TooMuchDamageError):
        run_training(_config(tmp_path / "exp", blemished.root, "data.max_corruption=0.008", "train.resume=last"))
    run_training(_config(tmp_path / "exp", blemished.root, "train.resume=last"))
    _assert_same_weights(tmp_path / "exp", tolerant_run)


def test_a_stopped_run_goes_on_when_its_files_were_mended(blemished: SyntheticSummary, tmp_path: Path) -> None:
    root = shutil.copytree(blemished.root, tmp_path / "data")
    [truncated] = blemished.faults["truncated_image"]
    words = ("data.max_corruption=0.008", "train.tasks=[classification]")
    with pytest.raises(TooMuchDamageError):
        run_training(_config(tmp_path / "exp", root, *words))
    sound = next(path for path in sorted((root / truncated).parent.iterdir()) if path.stat().st_size > 5000)
    shutil.copyfile(sound, root / truncated)
    run_training(_config(tmp_path / "exp", root, *words, "train.resume=last"))
    assert "truncated_image" not in read_json(tmp_path / "exp" / "reports" / "metrics.json")["skipped"]


def test_what_the_reader_sees_stops_a_run_before_it_begins(blemished: SyntheticSummary, tmp_path: Path) -> None:
    with pytest.raises(TooMuchDamageError, match=r"4 files in .* 0\.7\d% of the pictures \(2 "):
        run_training(_config(tmp_path / "exp", blemished.root, "data.max_corruption=0.005"))
    assert list((tmp_path / "exp" / "checkpoints").iterdir()) == []


def _assert_same_weights(found: Path, expected: Path) -> None:
    for name in ("last.pt", "detection_last.pt"):
        a, b = (load_ckpt(exp_dir / "checkpoints" / name)["model_state"] for exp_dir in (found, expected))
        assert all(torch.equal(a[key], value) for key, value in b.items()), name


def test_a_file_met_in_validation_and_in_the_final_evaluation_is_told_with_its_places(tmp_path: Path) -> None:
    for part, count in (("train", 8), ("val", 4)):
        write_folders(tmp_path / "photos" / part, {"aspirin": count, "ibuprofen": count})
    broken = min((tmp_path / "photos" / "val").rglob("*.jpg"))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    words = (
        "data.reader=folders",
        "train.tasks=[classification]",
        "data.split.policy=given",
        "data.split.leakage=warn",
        "data.max_corruption=0.1",
    )
    run_training(_config(tmp_path / "exp", tmp_path / "photos", *words))
    metrics = read_json(tmp_path / "exp" / "reports" / "metrics.json")
    assert metrics["skipped"] == {"truncated_image": 1}
    places = metrics["skipped_details"]["by_place"]
    assert places == {"classification": {"truncated_image": 1}, "evaluation": {"truncated_image": 1}}
