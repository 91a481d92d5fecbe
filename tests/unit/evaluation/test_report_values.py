"""Values are taken from files of any shape, and text never claims more than a figure says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillsnap.errors import PillError
from pillsnap.evaluation.report_files import read_lines, read_table
from pillsnap.evaluation.report_values import (
    count_text,
    figure_name,
    interval,
    minute_text,
    number,
    part,
    plain_text,
    rows,
    share_text,
    time_of,
)

pytestmark = pytest.mark.req("RPT-1")


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.0%"), (0.0001, "<0.1%"), (0.5, "50.0%"), (0.9994, "99.9%"), (0.99996, ">99.9%"), (1.0, "100.0%")],
)
def test_only_all_is_a_hundred_per_cent_and_only_nothing_is_none(share: float, text: str) -> None:
    assert share_text(share) == text


@pytest.mark.parametrize("value", [None, "0.5", True, float("nan"), float("inf"), [1]], ids=str)
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert number({"a": value}, "a") is None
    assert number({"a": value, "b": 2}, "a", "b") == 2


@pytest.mark.parametrize("pair", [None, [1], [1, None], "ab", [0.1, 0.2, 0.3]], ids=str)
def test_an_interval_has_two_numbers(pair: object) -> None:
    assert interval({"a": pair}, "a") is None
    assert interval({"a": pair, "b": [1, 2]}, "a", "b") == (1.0, 2.0)


def test_a_path_that_ends_early_is_empty() -> None:
    assert part({"a": {"b": {"c": 1}}}, "a", "b") == {"c": 1}
    assert part({"a": 3}, "a", "b") == {}
    assert rows({"a": [{"b": 1}, 2]}, "a") == [{"b": 1}]
    assert rows([], "a") == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (False, "no"),
        (1234.5, "1,234"),
        (0.12345, "0.1235"),
        (5000, "5,000"),
        ({"a": 1}, "a 1"),
        ([], "none"),
        ([1, "b"], "1, b"),
        ("x", "x"),
    ],
    ids=str,
)
def test_any_value_has_a_text(value: object, text: str) -> None:
    assert plain_text(value) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("detection.mAP_0.5", "detection: mAP@0.5"),
        ("detection.mAP_0.5_0.95", "detection: mAP@0.5:0.95"),
        ("mAP_0.5", "mAP@0.5"),
        ("classification.macro_f1", "classification: macro F1"),
        ("detection.inference_time_ms", "detection: inference time (ms)"),
        ("optimization.throughput_img_s", "optimization: throughput (pictures/s)"),
        ("class_imbalance_ratio", "class imbalance ratio"),
    ],
)
def test_a_figure_is_named_in_words(name: str, text: str) -> None:
    assert figure_name(name) == text


def test_times_are_in_utc_and_other_text_stays() -> None:
    assert minute_text("2026-01-02T09:04:05+09:00") == "2026-01-02 00:04 UTC"
    assert (minute_text("soon"), minute_text(None)) == ("soon", "")
    assert time_of("2026-01-02T03:04:05") is None


def test_counts_have_their_noun() -> None:
    assert (count_text(1, "drug", "drugs"), count_text(1200, "drug", "drugs")) == ("1 drug", "1,200 drugs")


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"code\n\xff\xfe")
    with pytest.raises(PillError, match=r"a\.csv cannot be read: .*; wanted a CSV table in UTF-8"):
        read_table(tmp_path / "a.csv")


def test_lines_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(PillError, match=r"cannot be read: .*; wanted one JSON object a line"):
        read_lines(tmp_path)
