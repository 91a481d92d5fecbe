"""Logits come back from the store nearly as they went in, and most exactly where it matters."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from pillsnap.errors import PillError
from pillsnap.evaluation.logit_store import LogitStore
from tests.unit.evaluation.classifier_case import softmax

pytestmark = pytest.mark.req("VAL-1")


def logits_of(num_rows: int, num_classes: int = 12, offset: float = 100.0) -> np.ndarray:
    return (np.random.default_rng(0).normal(0, 4, (num_rows, num_classes)) + offset).astype(np.float32)


def test_logits_come_back_within_half_precision_of_their_distance_to_the_largest() -> None:
    logits = logits_of(3000)  # more rows than are read at once
    found = LogitStore.of(logits).logits(0, 3000)
    distance = logits.max(axis=1, keepdims=True) - logits
    assert (np.abs(found - logits) <= distance / 1024 + 1e-4).all()


def test_probabilities_equal_softmax_at_any_temperature() -> None:
    logits = logits_of(3000)
    classes = np.argsort(-logits, axis=1)[:, :5]
    for temperature in (0.5, 1.0, 2.5):
        wanted = np.take_along_axis(softmax(logits / temperature), classes, axis=1)
        np.testing.assert_allclose(LogitStore.of(logits).probabilities(classes, temperature), wanted, atol=2e-3)


def test_the_log_of_sums_is_minus_the_log_of_the_largest_probability() -> None:
    logits = logits_of(40)
    wanted = -np.log(softmax(logits / 2).max(axis=1))
    np.testing.assert_allclose(LogitStore.of(logits).log_sums(2.0), wanted, atol=2e-3)


def test_likelihoods_are_those_of_softmax_at_the_temperature() -> None:
    logits, labels = logits_of(3000), np.arange(3000) % 12
    wanted = -np.log(softmax(logits / 2)[np.arange(3000), labels])
    np.testing.assert_allclose(LogitStore.of(logits).likelihoods(labels, 2.0), wanted, atol=6e-3)


def test_columns_are_the_distances_of_single_classes() -> None:
    store = LogitStore.of(logits_of(3000))
    np.testing.assert_array_equal(store.columns([7, 0]), store.distances[:, [7, 0]].astype(np.float32))


def test_blocks_cover_all_rows_once() -> None:
    store = LogitStore.of(logits_of(50))
    blocks = list(store.blocks(num_rows=20))
    assert [(rows.start, rows.stop) for rows, _ in blocks] == [(0, 20), (20, 40), (40, 50)]
    np.testing.assert_array_equal(np.concatenate([values for _, values in blocks]), store.distances)


def test_hopeless_classes_stay_finite() -> None:
    store = LogitStore.of(np.array([[0.0, -1e30, 2e5]], np.float32))
    assert np.isfinite(store.distances).all()
    assert store.probabilities(np.array([[2, 0, 1]])).tolist() == [[1.0, 0.0, 0.0]]


def test_an_empty_store_has_no_rows() -> None:
    store = LogitStore(3)
    store.finish(np.empty(0, np.float32))
    assert len(store) == 0
    assert store.log_sums().shape == (0,)


def test_the_file_is_in_the_temporary_folder_and_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = LogitStore.of(logits_of(5))
    assert list(tmp_path.iterdir()) == []
    assert len(store) == 5


def test_a_full_disk_is_told_with_the_way_out() -> None:
    store = LogitStore(4)
    store._file.close()
    store._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    with pytest.raises(PillError, match=r"No space left on device; wanted 8 bytes a pill\. Free space .* TMPDIR"):
        store.append(np.zeros((1, 4), np.float16))
