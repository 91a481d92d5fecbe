from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from pillsnap.data.balance import class_balance, gini, verify_class_balance
from pillsnap.data.classes import ClassMap
from pillsnap.data.records import Picture, Records

pytestmark = pytest.mark.req("STG-1", "CRT-2")


def test_the_figures_of_pills_per_class() -> None:
    figures = class_balance({"a": 30, "b": 3, "c": 9}, minimum=10)
    assert (figures.num_classes, figures.num_pills, figures.median_pills) == (3, 42, 9.0)
    assert (figures.min_pills, figures.max_pills, figures.imbalance_ratio) == (3, 30, 10.0)
    assert figures.below_minimum == ["b", "c"]


@pytest.mark.parametrize("counts", [[5, 5, 5], [1, 2, 3, 4], [0, 0, 10], [7]])
def test_gini_is_half_the_mean_difference_over_the_mean(counts: list[int]) -> None:
    differences = [abs(one - other) for one in counts for other in counts]
    expected = np.mean(differences) / (2 * np.mean(counts))
    assert gini(np.array(counts)) == pytest.approx(expected)


def test_nothing_is_shared_out_evenly() -> None:
    figures = class_balance({})
    assert (figures.gini, figures.imbalance_ratio, figures.num_classes) == (0.0, None, 0)


def _verify(train: dict[str, int], minimum: int = 2) -> dict[str, object]:
    rows = [(code, "train") for code, count in train.items() for _ in range(count)] + [("a", "val"), ("a", "unknown")]
    records = Records.from_pictures(
        Picture(
            image_path=f"{number:04d}.png", task="single", code=code, group="g", source="yolo", part="",
            width=9, height=9,
        )
        for number, (code, _) in enumerate(rows)
    )  # fmt: skip
    split = np.array([side for _, side in rows], object)
    return verify_class_balance(records, split, ClassMap(("a", "b")), minimum=minimum)


def test_even_classes_are_balanced_and_the_result_is_plain_data() -> None:
    found = _verify({"a": 10, "b": 4})
    assert found["class_balance_verification"] is True
    assert found["unknown_pictures"] == 1
    assert json.loads(json.dumps(found))["splits"]["val"]["num_pills"] == 1


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ({"a": 41, "b": 4}, "the largest class has 41 pills, the smallest 4 (10.2:1)"),
        ({"a": 4}, "the largest class has 4 pills, the smallest 0 (without bound)"),
        ({"a": 4, "b": 1}, "1 classes have fewer than 2 pills: b"),
    ],
)
def test_what_is_uneven_is_said(train: dict[str, int], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pillsnap")
    found = _verify(train)
    assert found["class_balance_verification"] is False
    assert reason in str(found["reasons"])
    assert reason in caplog.text
