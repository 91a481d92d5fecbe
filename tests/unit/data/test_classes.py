from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pillsnap.data.aihub576 import read_aihub576
from pillsnap.data.classes import ClassMap
from pillsnap.data.records import Records
from pillsnap.data.yolo import read_yolo
from pillsnap.errors import DataError, PillError
from tests.builders import write_aihub, write_yolo

pytestmark = pytest.mark.req("DAT-5")

CLASS_MAP = ClassMap(("K-000002", "K-000010"), {"K-000002": "약 2정"})


def test_numbers_follow_the_sorted_keys_of_singles_and_combos(tmp_path: Path) -> None:
    scan = read_aihub576(write_aihub(tmp_path, singles={"K-000003": 1}, combos={"K-000001-000002": 1}))
    class_map = ClassMap.from_records(scan.records, scan.names)
    assert class_map.codes == ("K-000001", "K-000002", "K-000003")
    assert class_map.names["K-000003"] == "약 3정"
    assert [class_map.index(code) for code in (*class_map.codes, "K-000004")] == [0, 1, 2, None]


def test_ignored_keys_get_no_number(tmp_path: Path) -> None:
    scan = read_yolo(write_yolo(tmp_path))
    class_map = ClassMap.from_records(scan.records, {}, frozenset({"alpha"}))
    assert (class_map.codes, class_map.index("alpha"), len(class_map)) == (("beta",), None, 1)


def test_names_of_other_drugs_are_not_kept(tmp_path: Path) -> None:
    scan = read_aihub576(write_aihub(tmp_path, singles={"K-000003": 1}, combos={}))
    assert ClassMap.from_records(scan.records, {"K-000003": "x", "K-000009": "y"}).names == {"K-000003": "x"}


def test_no_pictures_give_no_classes() -> None:
    assert len(ClassMap.from_records(Records.from_pictures([]), {})) == 0


def test_the_digest_is_that_of_the_keys_in_order() -> None:
    assert CLASS_MAP.digest == hashlib.sha256(b"K-000002\nK-000010").hexdigest()
    assert CLASS_MAP.digest != ClassMap(("K-000010", "K-000002")).digest


def test_a_saved_map_comes_back_the_same(tmp_path: Path) -> None:
    CLASS_MAP.save(tmp_path / "class_map.json")
    assert ClassMap.load(tmp_path / "class_map.json") == CLASS_MAP
    assert "약 2정" in (tmp_path / "class_map.json").read_text(encoding="utf-8")


def test_a_key_with_two_numbers_is_an_error() -> None:
    with pytest.raises(DataError, match=r"lists 3 class keys, some of them twice: \['a'\]"):
        ClassMap(("a", "b", "a"))


def test_something_else_than_a_class_map_is_an_error() -> None:
    with pytest.raises(DataError, match=r"got the keys \['classes'\] where `codes`"):
        ClassMap.from_dict({"classes": []})


def test_a_map_that_was_edited_is_an_error() -> None:
    content = CLASS_MAP.to_dict()
    content["codes"].reverse()
    with pytest.raises(DataError, match="changed after it was saved"):
        ClassMap.from_dict(content)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PillError, match=r"class_map\.json"):
        ClassMap.load(tmp_path / "class_map.json")
