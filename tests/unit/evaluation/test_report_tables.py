"""Facts become text a reader understands, whatever their shape."""

from __future__ import annotations

import pytest

from pillsnap.evaluation.report_tables import Table, duration_text, grid_of, tables_of, text_of

pytestmark = pytest.mark.req("RPT-1")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("samples", 38400, "38,400"),
        ("seed", 20260102, "20260102"),
        ("lr", 0.0002, "0.0002"),
        ("throughput", 151.2345, "151.2"),
        ("main", 2103.7, "2,104"),
        ("data_wait_share", 0.0831, "8.3%"),
        ("seconds", 305.2, "5 min 05 s"),
        ("stopped_early", False, "no"),
        ("best", None, "–"),
        ("started", "2026-01-02T12:04:05+09:00", "2026-01-02 03:04:05 UTC"),
        ("started", "2026-01-02T12:04:05", "2026-01-02 12:04:05"),
        ("what", "workersTATOsomething", "workersTATOsomething"),
        ("what", "0123456789Tis not a time", "0123456789Tis not a time"),
        ("tasks", ["classification", "detection"], "classification, detection"),
        ("spec", {"n": 1, "lr": 0.5}, "n 1, learning rate 0.5"),
        ("other", {1}, "{1}"),
    ],
)
def test_values_are_shown_with_their_unit(key: str, value: object, text: str) -> None:
    assert text_of(key, value) == text


@pytest.mark.parametrize(("seconds", "text"), [(3.25, "3.2 s"), (61, "1 min 01 s"), (7384, "2 h 03 min")])
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_plain_values_nested_ones_and_rows_become_tables() -> None:
    facts = {
        "seed": 42,
        "versions": {"torch": "2.15"},
        "tasks": {"classification": {"epochs": 3, "best": 0.9}, "detection": {"epochs": 2}},
        "events": [{"what": "resume"}],
    }
    assert list(tables_of("", facts)) == [
        Table("", [], [["seed", "42"]]),
        Table("versions", [], [["torch", "2.15"]]),
        Table("tasks", ["", "epochs", "best"], [["classification", "3", "0.9"], ["detection", "2", "–"]]),
        Table("events", ["what"], [["resume"]]),
    ]


def test_titles_carry_the_way_down() -> None:
    titles = [table.title for table in tables_of("data", {"spec": {"size": {"width": 3}, "n": 1}})]
    assert titles == ["data: spec", "data: spec: size"]


def test_rows_without_names_have_no_name_column() -> None:
    assert grid_of("by epoch", [{"epoch": 1, "acc": 0.5}]) == Table("by epoch", ["epoch", "accuracy"], [["1", "0.5"]])
