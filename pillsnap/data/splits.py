"""Which pictures train, which validate, which test, and which are of drugs the models never see.

Pictures of one group (one physical pill under one light, one photograph and its copies) never lie on two sides. A
group's side depends on the seed and its own name, not on its place in a list, so adding data moves few of the others.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pillsnap.data import columns
from pillsnap.data.aihub576_units import SOURCE as AIHUB576
from pillsnap.data.records import COMBO, SINGLE, Records
from pillsnap.errors import ConfigError, DataError

logger = logging.getLogger("pillsnap")

SplitColumn = NDArray[np.object_]

TRAIN, VAL, TEST, UNKNOWN = "train", "val", "test", "unknown"
SIDES = (TRAIN, VAL, TEST, UNKNOWN)


def assign_splits(
    records: Records,
    *,
    policy: str,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    unknown_classes: Sequence[str] = (),
) -> SplitColumn:
    """Assign every picture to a split.

    `groups`: pictures of unknown drugs (`unknown_pictures`) become "unknown". Everything else is split by group, single
    pictures class by class. A class keeps a group in train; with two groups it has one in val, with three or more one
    in each split that is wanted.

    `given`: the data set's own parts, but for pictures of `unknown_classes`. Where it has no val or test part, that is
    split off its train part by groups.

    Args:
        records: All pictures of a data set.
        policy: "groups" or "given".
        val_fraction: Share of the pictures for validation, 0 to 1; met as closely as whole groups allow.
        test_fraction: Share of the pictures for the test, likewise; 0 for none.
        seed: Chooses among the possible splits.
        unknown_classes: Class keys that are kept from training: every picture that shows one is "unknown".

    Returns:
        (N,) of "train", "val", "test" or "unknown".

    Raises:
        ConfigError: There is no such policy.
        DataError: Train or val is empty.
    """
    fractions = {VAL: val_fraction, TEST: test_fraction}
    split = np.full(len(records), UNKNOWN, object)
    known = ~unknown_pictures(records, policy, unknown_classes)
    if not known.all():
        logger.info("%d pictures are of drugs that nothing trains on: unknown", (~known).sum())
    if policy == "groups":
        split[known] = _split_by_groups(records, known, fractions, seed)
    elif policy == "given":
        split[known] = _given_split(records, known, fractions, seed)
    else:
        raise ConfigError(f"data.split.policy is {policy!r}; there are 'groups' and 'given'. Set one of them.")
    _require_train_and_val(records, split, val_fraction)
    return split


def unknown_pictures(records: Records, policy: str, unknown_classes: Sequence[str] = ()) -> NDArray[np.bool_]:
    """Tell for each picture, (N,), whether the models are never trained on it because it shows an unknown drug.

    With the policy `groups` drugs that only the released Validation part of AI Hub 576 holds are unknown: that split is
    by drug, so a closed-set test on them can only fail; they serve to test "I do not know this pill". With either
    policy so are `unknown_classes`. A picture of several pills is unknown when one of them is.

    Args:
        records: All pictures, or those a stage uses.
        policy: "groups" or "given".
        unknown_classes: Class keys kept from training; `require_classes` tells which there are.
    """
    found = has_unknown_drug(records) if policy == "groups" else np.zeros(len(records), bool)
    if len(unknown_classes):
        box_numbers, offsets = columns.find_box_codes(records, unknown_classes)
        found |= columns.find(records, "code", unknown_classes) != columns.ABSENT
        found |= columns.sums_of_lists(box_numbers != columns.ABSENT, offsets) > 0
    return found


def require_classes(records: Records, unknown_classes: Sequence[str]) -> None:
    """Make sure that there are pictures of all classes to be kept from training.

    Args:
        records: All pictures of the data set, before a stage takes its own.
        unknown_classes: `data.split.unknown_classes`.

    Raises:
        ConfigError: No picture shows one of them.
    """
    if not len(unknown_classes):
        return
    keys = {*columns.encode(records, "code").values, *columns.encode_box_codes(records)[0].values} - {None}
    missing = [key for key in unknown_classes if key not in keys]
    if missing:
        nearest = difflib.get_close_matches(missing[0], sorted(keys), n=3, cutoff=0.0)
        raise ConfigError(
            f"data.split.unknown_classes names {', '.join(missing[:10])}, which no picture shows; wanted were some of "
            f"the {len(keys)} class keys of the data set. Nearest to {missing[0]}: {', '.join(nearest)}. "
            "`pillsnap data check DIR --json FILE` lists them all; quote keys that look like numbers."
        )


def has_unknown_drug(records: Records) -> NDArray[np.bool_]:
    """Tell for each picture, (N,), whether it shows a drug that only AI Hub's Validation part holds."""
    is_held_out = columns.equals(records, "source", AIHUB576) & columns.equals(records, "part", VAL)
    if not is_held_out.any():
        return is_held_out
    code = columns.encode(records, "code")
    box_code, offsets = columns.encode_box_codes(records)
    num_boxes = np.diff(offsets)
    is_box_held_out = np.repeat(is_held_out, num_boxes)
    known = _values_at(code, ~is_held_out) | _values_at(box_code, ~is_box_held_out)
    is_code_known = np.array([*(value in known for value in code.values), False])[code.numbers]  # the last: null
    is_box_known = np.array([*(value in known for value in box_code.values), False])[box_code.numbers]
    has_unknown_box = columns.sums_of_lists(~is_box_known, offsets) > 0
    return is_held_out & np.where(code.numbers == columns.ABSENT, has_unknown_box, ~is_code_known)


def _values_at(encoded: columns.Encoded, mask: NDArray[np.bool_]) -> set[str]:
    found = np.unique(encoded.numbers[mask])
    return {encoded.values[number] for number in found if number != columns.ABSENT}


def leaking_groups(records: Records, split: SplitColumn) -> list[str]:
    """Return the groups with pictures in more than one of train, val and test, sorted."""
    group = columns.encode(records, "group")
    num_sides = np.zeros(len(group.values), np.int64)
    for side in (TRAIN, VAL, TEST):
        num_sides += np.bincount(group.numbers[split == side], minlength=len(group.values)) > 0
    return sorted(group.values[number] for number in np.flatnonzero(num_sides > 1))


@dataclass(slots=True)
class _Group:
    """Pictures that stay together: their number and, of the single ones, the classes."""

    name: str
    order: bytes  # a seeded hash of the name
    num_pictures: int = 0
    has_combo: bool = False
    codes: dict[str, int] = field(default_factory=dict)

    @property
    def stratum(self) -> str | None:
        """The class within which the group is split; None for groups with combos, which are split together."""
        return None if self.has_combo else min(self.codes, key=lambda code: (-self.codes[code], code))


def _split_by_groups(
    records: Records, is_used: NDArray[np.bool_], fractions: dict[str, float], seed: int
) -> SplitColumn:
    """Split the pictures `is_used` marks and return their sides, (number of marks,)."""
    encoded = columns.encode(records, "group")
    groups = _groups(records, is_used, encoded, seed)
    strata: dict[str | None, list[_Group]] = defaultdict(list)
    for group in groups:
        strata[group.stratum].append(group)
    split_of: dict[str, str] = {}
    for members in strata.values():
        split_of.update(_split_stratum(members, fractions))
    _keep_every_class_in_train(groups, split_of)
    lonely = sorted(str(code) for code, members in strata.items() if code is not None and len(members) == 1)
    if lonely:
        logger.warning(
            "%d classes have one group of pictures each; it trains, so they are not validated: %s",
            len(lonely),
            ", ".join(lonely[:10]),
        )
    return np.array([split_of.get(name) for name in encoded.values], object)[encoded.numbers[is_used]]


def _groups(records: Records, is_used: NDArray[np.bool_], encoded: columns.Encoded, seed: int) -> list[_Group]:
    """Return the groups of the pictures `is_used` marks in the order of their seeded hashes."""
    code = columns.encode(records, "code")
    numbers = encoded.numbers[is_used].astype(np.int64)
    is_combo = columns.equals(records, "task", COMBO)[is_used]
    num_pictures = np.bincount(numbers, minlength=len(encoded.values))
    has_combo = np.bincount(numbers[is_combo], minlength=len(encoded.values)) > 0
    groups = {
        number: _Group(encoded.values[number], _order(encoded.values[number], seed), count, combo)
        for number, (count, combo) in enumerate(zip(num_pictures.tolist(), has_combo.tolist(), strict=True))
        if count
    }
    width = len(code.values)
    pairs, counts = np.unique(numbers[~is_combo] * width + code.numbers[is_used][~is_combo], return_counts=True)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        groups[pair // width].codes[code.values[pair % width]] = count
    return sorted(groups.values(), key=lambda group: group.order)


def _order(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}|{name}".encode(), digest_size=16).digest()


def _split_stratum(groups: list[_Group], fractions: dict[str, float]) -> dict[str, str]:
    """Split groups, given in hash order, as close to the fractions as whole groups allow; at least one trains."""
    wanted = [name for name, fraction in fractions.items() if fraction > 0][: len(groups) - 1]
    total = sum(group.num_pictures for group in groups)
    rest = list(groups)
    split_of = {}
    for number, name in enumerate(wanted):
        num_reserved = len(wanted) - number  # one for each split that follows, and one for train
        chosen = _closest_to(fractions[name] * total, rest, len(rest) - num_reserved)
        split_of.update({group.name: name for group in chosen})
        rest = [group for group in rest if group.name not in split_of]
    split_of.update({group.name: TRAIN for group in rest})
    return split_of


def _closest_to(target: float, groups: list[_Group], max_groups: int) -> list[_Group]:
    """Take groups in order while each brings the number of pictures closer to `target`; at least one."""
    chosen: list[_Group] = []
    total = 0
    for group in groups:
        if len(chosen) < max_groups and abs(total + group.num_pictures - target) < abs(total - target):
            chosen.append(group)
            total += group.num_pictures
    return chosen or [min(groups, key=lambda group: group.num_pictures)]


def _keep_every_class_in_train(groups: list[_Group], split_of: dict[str, str]) -> None:
    """Move a group to train for each class of single pictures that has none there (it shares groups with others)."""
    trained = {code for group in groups if split_of[group.name] == TRAIN for code in group.codes}
    for group in groups:
        if not set(group.codes) <= trained:
            split_of[group.name] = TRAIN
            trained |= set(group.codes)


def _given_split(records: Records, is_used: NDArray[np.bool_], fractions: dict[str, float], seed: int) -> SplitColumn:
    """Return the sides of the pictures `is_used` marks, (number of marks,)."""
    part = columns.encode(records, "part")
    split = np.array([name or TRAIN for name in part.values], object)[part.numbers]
    split[~is_used] = UNKNOWN
    missing = {name: fraction for name, fraction in fractions.items() if fraction > 0 and not (split == name).any()}
    is_train = np.asarray(split == TRAIN, bool)
    if missing and is_train.any():
        logger.info("the data set has no %s part; split off its train part by groups", " and no ".join(missing))
        split[is_train] = _split_by_groups(records, is_train, missing, seed)
    untrained = _single_codes(records, split == VAL) - _single_codes(records, split == TRAIN)
    if untrained:
        logger.warning(
            "%d classes of the given val part have no picture in train and can only be answered wrongly: %s",
            len(untrained),
            ", ".join(sorted(untrained)[:10]),
        )
    return split[is_used]


def _single_codes(records: Records, mask: NDArray[np.bool_]) -> set[str]:
    return _values_at(columns.encode(records, "code"), mask & columns.equals(records, "task", SINGLE))


def _require_train_and_val(records: Records, split: SplitColumn, val_fraction: float) -> None:
    counts = count_sides(split)
    if TRAIN in counts and VAL in counts:
        return
    num_groups = len(columns.encode(records, "group").values)
    found = f"{len(records)} pictures in {num_groups} groups gave {counts}"
    if TRAIN not in counts:
        raise DataError(
            f"No picture is left to train on: {found}. The data set's train part must hold pictures (drugs that only "
            "AI Hub's Validation part holds, and data.split.unknown_classes, are kept as unknown). Move pictures "
            "there, or, for other data sets, set data.split.policy=groups."
        )
    raise DataError(
        f"No picture is left to validate on: {found}. Val needs data.split.val_fraction above 0 (it is "
        f"{val_fraction}) and a class with two groups of pictures or more. Add pictures, raise the fraction, or "
        "give the data set a val part and set data.split.policy=given."
    )


def count_sides(split: SplitColumn) -> dict[str, int]:
    """Return how many pictures each side has; those without a picture are left out."""
    counts = {side: int(np.count_nonzero(split == side)) for side in SIDES}
    return {side: count for side, count in counts.items() if count}
