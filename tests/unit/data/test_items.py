from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillsnap.data.cache_files import FILES_KEPT
from pillsnap.data.classes import ClassMap
from pillsnap.data.items import NO_BOX, ClassificationItems, classification_items
from pillsnap.data.records import Picture, Records

pytestmark = pytest.mark.req("DAT-5")

CLASS_MAP = ClassMap(("a", "b", "c"))


def _picture(number: int, code: str | None, box_codes: list[str]) -> Picture:
    return Picture(
        image_path=f"{number:03d}.png",
        task="combo" if code is None else "single",
        code=code,
        group=str(number),
        source="yolo",
        part="",
        width=100,
        height=100,
        boxes_xyxy=[(0, 0, 10, 10)] * len(box_codes),
        box_codes=box_codes,
    )


SINGLES = st.sampled_from(["a", "b", "c", "x"]).flatmap(lambda code: st.sampled_from([(code, []), (code, [code])]))
COMBOS = st.lists(st.sampled_from(["a", "b", "c", "x"]), max_size=4).map(lambda codes: (None, codes))


def _listed_one_by_one(records: Records, rows: list[int], tasks: tuple[str, ...]) -> list[tuple[int, int, int]]:
    found = []
    for row in rows:
        code = records.table.column("code")[row].as_py()
        boxes = records.box_codes(row)
        pills = list(enumerate(boxes)) if code is None else [(0 if boxes else NO_BOX, code)]
        is_wanted = ("combo" if code is None else "single") in tasks
        found += [
            (row, number, CLASS_MAP.codes.index(key)) for number, key in pills if is_wanted and key in CLASS_MAP.codes
        ]
    return found


@given(
    pictures=st.lists(st.one_of(SINGLES, COMBOS), max_size=30),
    tasks=st.sampled_from([("single", "combo"), ("single",), ("combo",)]),
    step=st.sampled_from([1, -1, 2]),
)
@settings(max_examples=100, deadline=None)
def test_the_list_is_the_one_a_plain_loop_makes(
    pictures: list[tuple[str | None, list[str]]], tasks: tuple[str, ...], step: int
) -> None:
    records = Records.from_pictures(_picture(number, *each) for number, each in enumerate(pictures))
    rows = np.arange(len(records))[::step]
    items = classification_items(records, rows, CLASS_MAP, tasks)
    found = list(zip(items.rows.tolist(), items.box_numbers.tolist(), items.labels.tolist(), strict=True))
    assert found == _listed_one_by_one(records, rows.tolist(), tasks)


def _items(count: int = 1000) -> ClassificationItems:
    rows = np.arange(count, dtype=np.int32)
    return ClassificationItems(rows, np.full(count, NO_BOX, np.int32), rows % 7)


def _content(items: ClassificationItems) -> list[list[int]]:
    return [items.rows.tolist(), items.box_numbers.tolist(), items.labels.tolist()]


def test_a_saved_list_travels_as_the_path_of_its_file(tmp_path: Path) -> None:
    saved = _items().saved(tmp_path / "cache")
    message = pickle.dumps(saved)
    assert len(message) < 500
    assert _content(pickle.loads(message)) == _content(_items())


def test_a_list_without_a_file_travels_whole() -> None:
    assert _content(pickle.loads(pickle.dumps(_items()))) == _content(_items())


def test_the_same_list_is_one_file_and_old_lists_are_removed(tmp_path: Path) -> None:
    for count in [*range(1, FILES_KEPT + 4), FILES_KEPT + 3]:
        newest = _items(count).saved(tmp_path)
    assert len(list(tmp_path.iterdir())) == FILES_KEPT
    assert newest.path is not None
    assert len(ClassificationItems.load(newest.path)) == FILES_KEPT + 3


@pytest.mark.parametrize("place", [0, -1], ids=["head", "content"])
def test_a_damaged_file_is_written_again(tmp_path: Path, place: int, caplog: pytest.LogCaptureFixture) -> None:
    path = _items().saved(tmp_path).path
    assert path is not None
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert _content(_items().saved(tmp_path)) == _content(_items())
    assert "it is written again" in caplog.text


def test_a_folder_that_cannot_be_written_costs_memory_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "pillsnap")
    (tmp_path / "file").touch()
    items = _items().saved(tmp_path / "file" / "cache")
    assert items.path is None
    assert "the list of pills stays in memory" in caplog.text


def test_taken_items_are_those_asked_for() -> None:
    assert _items().take(np.array([3, 1])).rows.tolist() == [3, 1]
