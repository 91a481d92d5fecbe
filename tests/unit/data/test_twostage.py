from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.classes import ClassMap
from pillsnap.data.records import Picture, Records
from pillsnap.data.twostage import TwoStageData
from pillsnap.errors import DataError

pytestmark = pytest.mark.req("DAT-1")

SPLIT = ["train", "val", "train", "test", "unknown", "val"]


def _picture(number: int, code: str | None, boxes: list[str]) -> Picture:
    return Picture(
        image_path=f"{number}.png",
        task="single" if code else "combo",
        code=code,
        group=str(number),
        source="yolo",
        part="",
        width=9,
        height=9,
        boxes_xyxy=[(0, 0, 1, 1)] * len(boxes),
        box_codes=boxes,
    )


def _data(num_pictures: int = 6) -> TwoStageData:
    rows: list[tuple[str | None, list[str]]] = [
        ("a", ["a"]),
        ("b", []),
        (None, ["a", "b"]),
        ("a", []),
        ("z", ["z"]),
        (None, ["b"]),
    ]
    records = Records.from_pictures(_picture(number, *row) for number, row in enumerate(rows[:num_pictures]))
    return TwoStageData(Path(), records, np.array(SPLIT[:num_pictures], object), ClassMap(("a", "b")), [])


@pytest.mark.parametrize("num_pictures", [0, 1, 6])
def test_the_digest_is_that_of_every_picture_with_its_side(num_pictures: int) -> None:
    data = _data(num_pictures)
    ids = data.records.table.column("sample_id").to_pylist()
    lines = "\n".join(f"{sample}:{side}" for sample, side in zip(ids, SPLIT[:num_pictures], strict=True))
    assert data.digest() == hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()


def test_pictures_are_counted_by_side_and_kind() -> None:
    assert _data().counts() == {
        "train": {"single": 1, "combo": 1},
        "val": {"single": 1, "combo": 1},
        "test": {"single": 1},
        "unknown": {"single": 1},
    }


@pytest.mark.parametrize(("images", "expected"), [("combo", [2]), ("all", [0, 2])])
def test_the_detector_gets_combos_or_all_that_have_boxes(images: str, expected: list[int]) -> None:
    assert _data().labelled_rows("train", images).tolist() == expected


@pytest.mark.parametrize(("view", "expected"), [("frame", [1]), ("box", [1, 5])])
def test_the_classifier_is_judged_on_singles_or_on_every_pill(view: str, expected: list[int]) -> None:
    assert _data().evaluation_items("val", view).rows.tolist() == expected


@pytest.mark.req("FIN-3")
@pytest.mark.parametrize(("view", "expected"), [("frame", [(0, 0)]), ("box", [(0, 0), (1, 1), (1, 2)])])
def test_pills_of_unknown_drugs_have_no_class(view: str, expected: list[tuple[int, int]]) -> None:
    pictures = [_picture(0, "z", ["z"]), _picture(1, None, ["a", "y", "z", "sky"]), _picture(2, "sky", [])]
    records = Records.from_pictures(pictures)
    split = np.array(["unknown"] * 3, object)
    data = TwoStageData(Path(), records, split, ClassMap(("a", "b")), [], ignore=frozenset({"sky"}))
    items = data.evaluation_items("unknown", view)
    assert list(zip(items.rows.tolist(), items.box_numbers.tolist(), strict=True)) == expected
    assert set(items.labels.tolist()) == {-1}


@pytest.mark.req("FIN-3")
def test_without_single_pictures_the_crops_of_unknown_drugs_are_used() -> None:
    records = Records.from_pictures([_picture(0, None, ["a", "z"])])
    data = TwoStageData(Path(), records, np.array(["unknown"], object), ClassMap(("a", "b")), [])
    assert data.unknown_items("frame").box_numbers.tolist() == [1]


def test_the_test_split_is_sealed_until_it_is_opened() -> None:
    data = _data()
    with pytest.raises(DataError, match="The test split was asked for while it is sealed"):
        data.rows("test")
    data.is_test_open = True
    assert data.rows("test").tolist() == [3]
