from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillsnap.data.picking import even_shares, mixed, ranks_within
from pillsnap.data.records import Picture, Records
from pillsnap.data.splits import assign_splits, has_unknown_drug
from pillsnap.data.stage_classes import ComboWalk
from pillsnap.data.stage_pool import Pool
from pillsnap.data.stages import StageLimits, StageSelection, select_stage

pytestmark = pytest.mark.req("STG-1")


def single(code: str, number: int, part: str = "train") -> Picture:
    return _picture(f"{part}/{code}/{number}.png", code, f"{code}|{number % 6}", part, [code])


def combo(codes: list[str], number: int, part: str = "train") -> Picture:
    key = "-".join(codes)
    return _picture(f"{part}/combo/{key}/{number}.png", None, key, part, codes)


def _picture(path: str, code: str | None, group: str, part: str, box_codes: list[str]) -> Picture:
    return Picture(
        image_path=path,
        task="single" if code else "combo",
        code=code,
        group=group,
        source="aihub576",
        part=part,
        width=100,
        height=100,
        boxes_xyxy=[(0, 0, 10, 10)] * len(box_codes),
        box_codes=box_codes,
    )


def data_set(num_drugs: int = 40, per_drug: int = 60, num_combos: int = 40) -> Records:
    """Return drugs of which the first ten occur in combinations of two, three pictures a folder."""
    drugs = [f"K-{number:03d}" for number in range(num_drugs)]
    pairs = [(one, other) for one in range(10) for other in range(one)][:num_combos]
    pictures = [single(drug, number) for drug in drugs for number in range(per_drug)]
    pictures += [combo([drugs[one], drugs[other]], number) for one, other in pairs for number in range(3)]
    return Records.from_pictures(pictures)


def select(
    records: Records,
    max_samples: int | None,
    max_classes: int | None,
    *,
    min_images: int = 0,
    seed: int = 42,
    ignore: frozenset[str] = frozenset(),
) -> StageSelection:
    limits = StageLimits(max_samples=max_samples, max_classes=max_classes, min_images=min_images)
    return select_stage(records, limits, seed=seed, is_unknown=has_unknown_drug(records), ignore=ignore)


def chosen(records: Records, max_samples: int | None, max_classes: int | None, **more: int) -> Records:
    rows = select(records, max_samples, max_classes, **more).rows  # type: ignore[arg-type]
    assert rows is not None
    return records.select(rows)


def classes(records: Records) -> set[str]:
    return {code for row in range(len(records)) for code in records.box_codes(row)}


def singles_per_class(records: Records) -> Counter[str]:
    return Counter(code for code in records.table.column("code").to_pylist() if code is not None)


def test_data_within_the_limits_stay_as_they_are() -> None:
    selection = select(data_set(), 2520, 40, min_images=1000)
    assert selection.rows is None
    assert selection.facts["is_limited"] is False
    assert select(data_set(), None, None).rows is None


def test_the_limits_hold_and_every_class_gets_the_same_number() -> None:
    found = chosen(data_set(), 400, 8)
    assert (len(found), len(classes(found))) == (400, 8)
    assert max(singles_per_class(found).values()) - min(singles_per_class(found).values()) <= 1


def test_the_ratio_of_single_to_combination_pictures_is_kept() -> None:
    records = data_set()  # 2,400 single, 120 combination pictures
    found = Counter(chosen(records, 800, 16).column("task").tolist())
    assert found == {"single": 762, "combo": 38}


def test_a_combination_has_all_its_pills_among_the_chosen_classes() -> None:
    found = chosen(data_set(), 400, 8)
    of_singles = set(singles_per_class(found))
    assert classes(found) == of_singles


def test_no_more_than_half_of_the_classes_are_taken_for_combinations() -> None:
    pool = Pool.of(data_set(), np.ones(2520, bool), frozenset(), 42)
    walk = ComboWalk(pool, pool.is_class, ~pool.is_class)
    assert walk.run(num_wanted=1000, budget=4).sum() == 4


def test_few_classes_make_many_combinations_whole() -> None:
    pool = Pool.of(data_set(), np.ones(2520, bool), frozenset(), 42)
    walk = ComboWalk(pool, pool.is_class, ~pool.is_class)
    assert walk.run(num_wanted=18, budget=40).sum() == 4  # six pairs of four drugs, three pictures each


def test_combinations_are_spread_over_folders_before_any_repeats() -> None:
    found = chosen(data_set(), 1000, 40)
    folders = Counter(
        group for group, task in zip(found.column("group"), found.column("task"), strict=True) if task == "combo"
    )
    assert max(folders.values()) - min(folders.values()) <= 1


def test_the_same_seed_selects_the_same_and_another_one_something_else() -> None:
    records = data_set()
    first, same = select(records, 400, 8).rows, select(records, 400, 8).rows
    other = select(records, 400, 8, seed=7).rows
    assert first is not None
    assert same is not None
    assert other is not None
    assert first.tolist() == same.tolist() != other.tolist()
    assert (np.diff(first) > 0).all()


@pytest.mark.parametrize(
    ("smaller", "larger"), [((100, 4), (500, 12)), ((500, 12), (1000, 24)), ((100, 4), (2000, 40))]
)
def test_a_larger_stage_takes_more_of_the_same(smaller: tuple[int, int], larger: tuple[int, int]) -> None:
    records = data_set()
    small, large = chosen(records, *smaller), chosen(records, *larger)
    assert classes(small) <= classes(large)
    kept = np.isin(small.column("image_path"), large.column("image_path"))
    assert kept.mean() > 0.85  # rounding and new combinations move the rest


def test_more_pictures_of_one_class_leave_those_taken_of_the_others() -> None:
    few, more = (
        Records.from_pictures(
            single(f"K-{drug}", number) for drug in range(9) for number in range(60 + extra * (drug == 8))
        )
        for extra in (0, 5)
    )
    before, after = (set(chosen(records, 180, 9).column("image_path").tolist()) for records in (few, more))
    assert {path.split("/")[1] for path in before ^ after} <= {"K-8"}


def test_classes_with_too_few_pictures_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    pictures = [single(f"K-{drug}", number) for drug in range(4) for number in range(20)]
    records = Records.from_pictures([*pictures, single("K-rare", 0)])
    selection = select(records, 40, 5, min_images=10)
    assert selection.facts["classes_below_minimum"] == ["K-rare"]
    assert "1 classes have too few pictures and are left out: K-rare" in caplog.text
    assert selection.rows is not None
    assert "K-rare" not in classes(records.select(selection.rows))


def test_where_all_classes_are_small_they_are_used(caplog: pytest.LogCaptureFixture) -> None:
    records = Records.from_pictures([single(f"K-{drug}", number) for drug in range(4) for number in range(5)])
    assert len(classes(chosen(records, 8, 4, min_images=10))) >= 2
    assert "fewer than two classes have the 10 pictures" in caplog.text


def test_so_many_classes_are_taken_that_each_can_have_the_minimum() -> None:
    found = chosen(data_set(num_combos=0), 100, 40, min_images=20)
    assert sorted(singles_per_class(found).values()) == [20] * 5


def test_a_data_set_of_combinations_alone_is_limited_by_its_classes() -> None:
    records = Records.from_pictures([combo([f"K-{a}", f"K-{b}"], 0) for a in range(10) for b in range(a)])
    found = chosen(records, 40, 5)
    assert (len(classes(found)), len(found)) == (5, 10)


def test_ignored_keys_are_no_classes_and_their_pictures_stay() -> None:
    scenery = [single("Unknown", number) for number in range(60)]
    records = Records.from_pictures([*scenery, *(single(f"K-{d}", n) for d in range(6) for n in range(60))])
    rows = select(records, 200, 3, ignore=frozenset({"Unknown"})).rows
    assert rows is not None
    found = singles_per_class(records.select(rows))
    assert (len(found), found["Unknown"]) == (4, 50)


def with_unknown_drugs(per_drug: int) -> Records:
    """Return twenty known drugs of forty pictures, and ten unknown ones of `per_drug`."""
    known = [single(f"K-{drug}", number) for drug in range(20) for number in range(40)]
    unknown = [single(f"K-9{drug}", number, "val") for drug in range(10) for number in range(per_drug)]
    return Records.from_pictures([*known, *unknown])


@pytest.mark.req("STG-1", "FIN-3")
@pytest.mark.parametrize("limit", [200, 800], ids=["limited", "everything fits"])
def test_few_pictures_of_unknown_drugs_are_all_kept_beside_the_limit(limit: int) -> None:
    records = with_unknown_drugs(per_drug=40)
    selection = select(records, limit, 20)
    rows = np.arange(len(records)) if selection.rows is None else selection.rows
    is_unknown = has_unknown_drug(records.select(rows))
    assert ((~is_unknown).sum(), is_unknown.sum()) == (limit, 400)
    assert selection.facts["unknown"] == {"found": 400, "selected": 400}


@pytest.mark.req("STG-1", "FIN-3")
@pytest.mark.parametrize("limit", [200, 800], ids=["limited", "everything fits"])
def test_of_many_pictures_of_unknown_drugs_some_of_each_drug_are_kept(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillsnap.data.stages.MIN_UNKNOWN", 50)
    records = with_unknown_drugs(per_drug=40)
    first, again = select(records, limit, 20), select(records, limit, 20)
    assert first.rows is not None
    found = records.select(first.rows)
    is_unknown = has_unknown_drug(found)
    assert (~is_unknown).sum() == limit
    assert set(singles_per_class(found.select(is_unknown)).values()) == {max(50, limit // 10) // 10}
    assert again.rows is not None
    assert first.rows.tolist() == again.rows.tolist()
    assert select(found, limit, 20).rows is None  # the listed pictures alone make the same run


def test_a_selection_can_be_split_into_whole_groups() -> None:
    found = chosen(data_set(), 400, 8)
    column = assign_splits(found, policy="groups", val_fraction=0.1, test_fraction=0.1, seed=42)
    codes = found.column("code")
    assert all({"train", "val", "test"} <= set(column[codes == code]) for code in singles_per_class(found))


def test_a_selection_without_whole_combinations_says_so(caplog: pytest.LogCaptureFixture) -> None:
    triples = [combo(["K-0", "K-1", "K-2"], number) for number in range(3)]
    records = Records.from_pictures([*triples, *(single(f"K-{d}", n) for d in range(9) for n in range(10))])
    select(records, 20, 2)
    assert "no combination picture has all its pills among the chosen classes" in caplog.text


def test_pictures_without_pills_can_be_limited() -> None:
    records = Records.from_pictures([combo([], number) for number in range(9)])
    assert len(chosen(records, 4, 50)) == 4


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=12), total=st.integers(0, 400))
@settings(max_examples=100, deadline=None)
def test_shares_are_even_and_nobody_gets_more_than_they_have(sizes: list[int], total: int) -> None:
    shares = even_shares(np.array(sizes), total, np.arange(len(sizes))[::-1])
    assert (shares <= np.array(sizes)).all()
    assert shares.sum() == min(total, sum(sizes))
    wanting = shares[shares < np.array(sizes)]
    assert len(wanting) == 0 or shares.max() - wanting.min() <= 1


def test_places_within_groups_follow_the_order() -> None:
    ranks = ranks_within(np.array([7, 3, 7, 7, 3]), np.array([5, 9, 1, 3, 2], np.uint64))
    assert ranks.tolist() == [2, 1, 0, 1, 0]


def test_hashes_differ_for_all_values_and_between_seeds() -> None:
    values = np.arange(10_000, dtype=np.uint64)
    assert len(np.unique(mixed(values, 1))) == len(values)
    assert not np.intersect1d(mixed(values, 1), mixed(values, 2)).size
