"""Figures of two runs stand side by side with their intervals; what only one has is a dash on the other side."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from pillsnap.evaluation.compare_figures import figure_tables
from pillsnap.evaluation.plot_comparison import plot_comparison
from tests.unit.evaluation.report_case import files_of
from tests.unit.evaluation.report_findings import EVALUATION, LATENCY, UNKNOWN

pytestmark = pytest.mark.req("RPT-1")


def test_both_sides_have_their_interval_and_the_difference_its_sign() -> None:
    before = {"split": "val", "classification": {"acc": 0.8, "macro_f1": 0.743}}
    tables = figure_tables(files_of(run={"evaluation": before}), files_of(run={"evaluation": EVALUATION}))
    assert tables[0].rows[:3] == [
        ["Accuracy", "80.0%", "76.2% (66.2% to 85.0%)", "-3.8 points"],
        ["Macro F1", "0.743", "0.743 (0.641 to 0.829)", "+0.000"],
        ["Top-5", "–", "100.0% (>99.9% to 100.0%)", "–"],
    ]


def test_the_test_split_is_never_compared() -> None:
    metrics = {"test": {"classification": {"acc": 1.0}}, "val": {"classification": {"acc": 0.5}}}
    assert figure_tables(files_of(metrics=metrics), files_of())[0].rows == [["Accuracy", "50.0%", "–", "–"]]


def test_unknown_pills_times_and_training_have_a_table_each() -> None:
    a = files_of(unknown=UNKNOWN, latency=LATENCY, run={"tasks": {"detection": {"epochs": 3}}})
    b = files_of(latency={"single": {"p95_ms": 20.1}})
    tables = {table.title: table.rows for table in figure_tables(a, b)}
    assert tables["Unknown pills"][0] == ["AUROC, known against unknown", "0.957 (0.931 to 0.978)", "–", "–"]
    assert tables["Time of an answer"][0] == ["One pill, 95th percentile", "30.2 ms", "20.1 ms", "-10.1 ms"]
    assert tables["Training"] == [["detection: epochs", "3", "–"]]


def test_two_empty_runs_have_nothing_to_compare() -> None:
    assert figure_tables(files_of(), files_of()) == []


def test_the_curves_of_both_lie_in_one_picture() -> None:
    epochs: list[dict[str, Any]] = [{"epoch": 1, "acc": 0.5, "val_loss": None}, {"epoch": 2, "acc": 0.6}]
    content = plot_comparison({"A 실험": {"classification": epochs}, "B": {}})
    assert content is not None
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        assert image.width < 600  # one panel: only the accuracy was recorded


def test_without_an_epoch_there_is_no_picture() -> None:
    assert plot_comparison({"A": {}, "B": {"classification": [{"epoch": 1, "val_loss": None}]}}) is None
