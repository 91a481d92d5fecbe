import json
import logging
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from pillsnap.errors import CheckpointError, PillError
from pillsnap.inference.appearance import describe
from pillsnap.inference.calibration import ARRAYS_FILE, JSON_FILE, Calibration
from tests.unit.inference.builders import colour_calibration, pill_picture


@pytest.fixture
def exp_dir(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"weights")
    colour_calibration(threshold=0.7, temperature=2.0).save(tmp_path, tmp_path / "checkpoints" / "best.pt")
    return tmp_path


def change(exp_dir: Path, **values: object) -> None:
    path = exp_dir / JSON_FILE
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


@pytest.mark.req("FIN-3")
def test_what_is_saved_comes_back(exp_dir: Path) -> None:
    saved, loaded = colour_calibration(threshold=0.7, temperature=2.0), Calibration.load(exp_dir)
    assert loaded is not None
    assert (loaded.temperature, loaded.threshold, loaded.acceptance) == (2.0, 0.7, saved.acceptance)
    looks = np.stack([describe(pill_picture((200, 60, 30)))] * 3)
    arguments = (np.array([0.5, 0.9, 0.2]), np.arange(3), looks)
    np.testing.assert_array_equal(loaded.scores(*arguments), saved.scores(*arguments))


@pytest.mark.req("VAL-1")
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_probabilities_are_those_of_divided_logits(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (20, 7))
    found = colour_calibration(temperature=temperature).probabilities(softmax(logits, axis=1).astype(np.float32))
    np.testing.assert_allclose(found, softmax(logits / temperature, axis=1), rtol=1e-4, atol=1e-7)


def test_no_pills_have_no_probabilities() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert colour_calibration(temperature=2.0).probabilities(empty).shape == (0, 3)


def test_an_experiment_without_a_calibration_has_none(tmp_path: Path) -> None:
    assert Calibration.load(tmp_path) is None


@pytest.mark.req("FIN-3", "CKP-1")
def test_other_weights_are_not_calibrated(exp_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    (exp_dir / "checkpoints" / "best.pt").write_bytes(b"other weights")
    with caplog.at_level(logging.WARNING, "pillsnap"):
        assert Calibration.load(exp_dir) is None
    assert "fitted to other weights than best.pt holds" in caplog.text


def test_looks_measured_another_way_are_not_compared(exp_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(exp_dir, recipe=0)
    with caplog.at_level(logging.WARNING, "pillsnap"):
        assert Calibration.load(exp_dir) is None
    assert "looks by recipe 0, this version by" in caplog.text


@pytest.mark.parametrize(
    "changes", [{"threshold": None}, {"weights": {}}, {"arrays": "0"}, {"temperature": "warm"}], ids=str
)
def test_a_damaged_calibration_is_no_reason_to_name_everything(exp_dir: Path, changes: dict[str, object]) -> None:
    change(exp_dir, **changes)
    with pytest.raises(CheckpointError, match="the calibration in .* cannot be used"):
        Calibration.load(exp_dir)


@pytest.mark.parametrize("content", [None, b"PK\x03\x04"], ids=["missing", "cut off"])
def test_looks_that_are_missing_or_damaged_are_an_error(exp_dir: Path, content: bytes | None) -> None:
    (exp_dir / ARRAYS_FILE).unlink()
    if content is not None:
        (exp_dir / ARRAYS_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=ARRAYS_FILE):
        Calibration.load(exp_dir)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PillError, match=r"calibration\.npz cannot be written"):
        colour_calibration().save(tmp_path / "gone", tmp_path)
