from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillsnap.data.aihub576 import read_aihub576
from pillsnap.data.records import Picture, Records
from pillsnap.data.splits import SplitColumn, assign_splits, leaking_groups
from pillsnap.errors import ConfigError, DataError
from tests.builders import write_aihub

pytestmark = pytest.mark.req("DAT-1")


def picture(path: str, code: str | None, group: str, part: str = "", box_codes: Iterable[str] = ()) -> Picture:
    codes = list(box_codes)
    return Picture(
        image_path=path,
        task="single" if code else "combo",
        code=code,
        group=group,
        source="yolo",
        part=part,
        width=100,
        height=100,
        boxes_xyxy=[(0, 0, 10, 10)] * len(codes),
        box_codes=codes,
    )


def singles(num_groups: dict[str, int], pictures_per_group: int = 1) -> list[Picture]:
    return [
        picture(f"{code}/{group}/{number}.jpg", code, f"{code}|{group}")
        for code, count in num_groups.items()
        for group in range(count)
        for number in range(pictures_per_group)
    ]


def split(pictures: list[Picture], policy: str = "groups", val: float = 0.1, test: float = 0.1) -> SplitColumn:
    records = Records.from_pictures(pictures)
    return assign_splits(records, policy=policy, val_fraction=val, test_fraction=test, seed=42)


def by_path(pictures: list[Picture], column: SplitColumn) -> dict[str, str]:
    return dict(zip(sorted(picture.image_path for picture in pictures), column, strict=True))


def test_groups_never_lie_on_two_sides() -> None:
    pictures = singles({"a": 20, "b": 7, "c": 3}, pictures_per_group=4)
    records = Records.from_pictures(pictures)
    assert leaking_groups(records, split(pictures)) == []


def test_a_large_set_gets_the_fractions_it_asks_for() -> None:
    counts = Counter(split(singles({"a": 100, "b": 50}, 3), val=0.1, test=0.2))
    assert counts == {"train": 315, "val": 45, "test": 90}


@pytest.mark.parametrize(
    ("num_groups", "expected"),
    [(1, {"train": 1}), (2, {"train": 1, "val": 1}), (3, {"train": 1, "val": 1, "test": 1}), (5, None)],
)
def test_a_small_class_trains_first_then_validates_then_tests(num_groups: int, expected: dict[str, int] | None) -> None:
    pictures = singles({"a": num_groups, "b": 10})
    found = Counter(name for path, name in by_path(pictures, split(pictures)).items() if path.startswith("a/"))
    assert found == (expected or {"train": 3, "val": 1, "test": 1})


def test_without_a_test_fraction_nothing_is_kept_for_the_test() -> None:
    assert set(split(singles({"a": 10, "b": 10}), test=0.0)) == {"train", "val"}


def test_a_class_of_one_group_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    split(singles({"a": 10, "lonely": 1}))
    assert "1 classes have one group of pictures each; it trains, so they are not validated: lonely" in caplog.text


def test_adding_pictures_of_a_drug_leaves_the_other_drugs_where_they_are() -> None:
    before, after = singles({"b": 12, "c": 12}), singles({"a": 9, "b": 12, "c": 12})
    old, new = by_path(before, split(before)), by_path(after, split(after))
    assert {path: new[path] for path in old} == old


def test_adding_one_group_moves_few_others() -> None:
    before, after = singles({"a": 100}), singles({"a": 101})
    old, new = by_path(before, split(before)), by_path(after, split(after))
    assert sum(new[path] != old[path] for path in old) <= 2


def test_another_seed_is_another_split() -> None:
    records = Records.from_pictures(singles({"a": 40}))
    columns = [
        assign_splits(records, policy="groups", val_fraction=0.2, test_fraction=0.2, seed=seed) for seed in (1, 1, 2)
    ]
    assert (columns[0] == columns[1]).all()
    assert (columns[0] != columns[2]).any()


def test_combos_are_split_by_folder_with_one_for_val_and_test() -> None:
    combos = [
        picture(f"combo/{group}/{n}.png", None, f"g{group}", box_codes="ab") for group in range(3) for n in (0, 1)
    ]
    pictures = singles({"a": 10, "b": 10}) + combos
    found = [name for path, name in by_path(pictures, split(pictures)).items() if path.startswith("combo/")]
    assert Counter(found) == {"train": 2, "val": 2, "test": 2}


def test_a_class_whose_singles_share_groups_with_combos_still_trains() -> None:
    shared = [picture(f"combo/{n}.jpg", None, f"photo{n}", box_codes="ab") for n in range(30)]
    shared += [picture(f"single/{n}.jpg", f"rare{n}", f"photo{n}") for n in range(30)]
    pictures = shared + singles({"c": 10})
    found = by_path(pictures, split(pictures))
    assert {found[f"single/{n}.jpg"] for n in range(30)} == {"train"}


@given(
    num_groups=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 12), min_size=1),
    pictures_per_group=st.integers(1, 3),
    val=st.floats(0.05, 0.4),
    test=st.floats(0.0, 0.4),
)
@settings(max_examples=60, deadline=None)
def test_every_class_keeps_a_group_in_train(
    num_groups: dict[str, int], pictures_per_group: int, val: float, test: float
) -> None:
    pictures = singles({**num_groups, "z": 5}, pictures_per_group)
    records = Records.from_pictures(pictures)
    column = split(pictures, val=val, test=test)
    assert leaking_groups(records, column) == []
    codes = records.column("code")
    for code, count in num_groups.items():
        sides = set(column[codes == code])
        assert "train" in sides
        assert ("val" in sides) == (count >= 2)
        assert ("test" in sides) == (count >= 3 and test > 0)


@pytest.mark.req("FIN-3")
def test_validation_drugs_of_the_released_split_are_unknown_and_never_tested(tmp_path: Path) -> None:
    scan = read_aihub576(
        write_aihub(
            tmp_path,
            singles={"K-000001": 18, "K-000002": 18},
            combos={"K-000001-000002": 3},
            val_singles={"K-000009": 2},
            val_combos={"K-000001-000009": 1},
        )
    )
    column = assign_splits(scan.records, policy="groups", val_fraction=0.1, test_fraction=0.1, seed=42)
    is_val_part = scan.records.column("part") == "val"
    assert set(column[is_val_part]) == {"unknown"}
    assert "unknown" not in set(column[~is_val_part])


@pytest.mark.req("FIN-3")
@pytest.mark.parametrize("policy", ["groups", "given"])
def test_every_picture_with_a_class_kept_from_training_is_unknown(policy: str) -> None:
    pictures = singles({"a": 10, "b": 10, "c": 10})
    pictures += [
        picture(f"combo/{codes}/{n}.jpg", None, f"{codes}{n}", "", codes) for codes in ("ab", "bc") for n in "12"
    ]
    column = assign_splits(
        Records.from_pictures(pictures),
        policy=policy,
        val_fraction=0.1,
        test_fraction=0.1,
        seed=42,
        unknown_classes=["c"],
    )
    found = by_path(pictures, column)
    assert {path for path, side in found.items() if side == "unknown"} == {
        path for path in found if path.startswith(("c/", "combo/bc"))
    }
    assert set(found.values()) == {"train", "val", "test", "unknown"}


@pytest.mark.req("FIN-3")
def test_a_given_part_of_classes_kept_from_training_alone_is_missing() -> None:
    pictures = [picture(f"a/{n}.jpg", "a", f"a{n}", "train") for n in range(20)]
    pictures += [picture(f"c/{n}.jpg", "c", f"c{n}", "val") for n in range(5)]
    column = assign_splits(
        Records.from_pictures(pictures),
        policy="given",
        val_fraction=0.1,
        test_fraction=0.1,
        seed=42,
        unknown_classes=["c"],
    )
    assert Counter(column) == {"train": 16, "val": 2, "test": 2, "unknown": 5}


@pytest.mark.req("FIN-3")
def test_keeping_one_class_from_training_leaves_the_others_where_they_are() -> None:
    pictures = singles({"a": 10, "b": 10, "c": 10})
    records = Records.from_pictures(pictures)
    options = {"policy": "groups", "val_fraction": 0.1, "test_fraction": 0.1, "seed": 42}
    before = assign_splits(records, **options)  # type: ignore[arg-type]
    after = assign_splits(records, **options, unknown_classes=["c"])  # type: ignore[arg-type]
    is_other = records.column("code") != "c"
    assert before[is_other].tolist() == after[is_other].tolist()


@pytest.mark.req("FIN-3")
def test_validation_pictures_of_training_drugs_join_the_group_split(tmp_path: Path) -> None:
    scan = read_aihub576(
        write_aihub(
            tmp_path,
            singles={"K-000001": 18, "K-000002": 18},
            combos={},
            val_combos={"K-000001-000002": 3},
        )
    )
    column = assign_splits(scan.records, policy="groups", val_fraction=0.1, test_fraction=0.1, seed=42)
    assert "unknown" not in set(column)


def test_a_data_set_of_validation_drugs_alone_cannot_train(tmp_path: Path) -> None:
    scan = read_aihub576(write_aihub(tmp_path, singles={}, combos={}, val_singles={"K-000009": 3}))
    with pytest.raises(DataError, match=r"No picture is left to train on: 3 pictures in 3 groups.*Move pictures"):
        assign_splits(scan.records, policy="groups", val_fraction=0.1, test_fraction=0.1, seed=42)


def test_the_given_parts_are_kept() -> None:
    parts = {"1": "train", "2": "val", "3": "test", "4": "train"}
    pictures = [picture(f"{name}.jpg", "a", name, part) for name, part in parts.items()]
    assert split(pictures, "given").tolist() == list(parts.values())


def test_missing_parts_are_split_off_train_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pillsnap")
    pictures = [picture(f"{n}.jpg", "a", str(n), "train") for n in range(20)]
    assert Counter(split(pictures, "given")) == {"train": 16, "val": 2, "test": 2}
    assert "the data set has no val and no test part; split off its train part by groups" in caplog.text


def test_pictures_without_a_part_train() -> None:
    pictures = [picture(f"{n}.jpg", "a", str(n), "val" if n == 0 else "") for n in range(4)]
    assert split(pictures, "given", test=0.0).tolist() == ["val", "train", "train", "train"]


def test_groups_in_two_given_parts_are_named() -> None:
    parts = {"1": "train", "2": "val", "3": "test"}
    pictures = [picture(f"{name}.jpg", "a", f"group{name > '2'}", part) for name, part in parts.items()]
    column = split(pictures, "given")
    assert leaking_groups(Records.from_pictures(pictures), column) == ["groupFalse"]


def test_classes_that_only_the_given_val_part_has_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    pictures = [picture("1.jpg", "a", "1", "train"), picture("2.jpg", "b", "2", "val")]
    split(pictures, "given", test=0.0)
    assert "1 classes of the given val part have no picture in train" in caplog.text


def test_a_data_set_too_small_to_validate_is_an_error() -> None:
    with pytest.raises(DataError, match=r"No picture is left to validate on: 2 pictures in 2 groups.*Add pictures"):
        split(singles({"a": 1, "b": 1}))


def test_a_given_data_set_without_train_is_an_error() -> None:
    with pytest.raises(DataError, match="No picture is left to train on"):
        split([picture("1.jpg", "a", "1", "val")], "given")


def test_an_unknown_policy_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="data.split.policy is 'random'; there are 'groups' and 'given'"):
        split(singles({"a": 3}), "random")


def test_no_pictures_leak_no_groups() -> None:
    assert leaking_groups(Records.from_pictures([]), np.array([], object)) == []
