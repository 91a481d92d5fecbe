"""Which pictures a stage of the roll-out works with (STG-1): seeded, even over the classes, combos in proportion.

How a limit is met, in this order:

1. A class with fewer than `min_images` pictures is left out, unless that would leave fewer than two.
2. Classes are taken in a seeded order of their keys. Combination photographs need all their pills among them, and
   fifty of five thousand drugs taken blindly would hold no whole combination: so pills of combinations come first, as
   few as make up their share of the pictures and at most half of all (more where combinations are most of the data).
3. Every class gets the same number of single pictures, or all it has; the pictures are taken in a seeded order of
   their ids, so that every group of a class keeps its share.
4. Combinations keep their ratio to single pictures; one of each group comes before a second of any.

All orders are the same for every stage: a larger stage takes more of the same, so stages are nested but for what
rounding moves. Pictures of drugs the models never see (`unknown`) do not count against the limits: they are chosen in
the same way, apart, evenly over all their drugs, and about as many as validate, so that every stage measures refusal.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.picking import even_shares, mixed, ranks_within
from pillsnap.data.records import Records
from pillsnap.data.stage_classes import ClassChoice
from pillsnap.data.stage_pool import Pool

logger = logging.getLogger("pillsnap")

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

MIN_UNKNOWN = 1000  # pictures of unknown drugs that are always kept: a false accept rate of 1 % is known to +-0.6 %


@dataclass(frozen=True, kw_only=True, slots=True)
class StageLimits:
    """The most a stage may use; null: no limit."""

    max_samples: int | None
    max_classes: int | None
    min_images: int = 0
    """A class with fewer pictures than this is left out, and each class that is taken gets at least so many."""
    unknown_share: float = 0.1
    """Pictures of unknown drugs that are kept beside the others, as a share of those; at least `MIN_UNKNOWN`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSelection:
    """What a stage uses of a picture table."""

    rows: Rows | None
    """Its row numbers, ascending; None: all of them."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Plain data for logs and files: what was there, what was taken, why less than allowed."""


def select_stage(
    records: Records, limits: StageLimits, *, seed: int, is_unknown: Mask, ignore: frozenset[str] = frozenset()
) -> StageSelection:
    """Choose the pictures of a stage; with fewer than the limits nothing changes.

    Args:
        records: All pictures.
        limits: What the stage may use.
        seed: Decides between the possible choices.
        is_unknown: (N,) marks drugs the models never see (`splits.unknown_pictures`).
        ignore: Class keys that are no drugs: their pictures are kept in proportion and count as no class.

    Returns:
        The rows, and the facts about them.
    """
    known = Pool.of(records, ~is_unknown, ignore, seed)
    facts: dict[str, Any] = {"found": known.counts()}
    is_limited = not _fits(known, limits)
    rows = _select(known, limits, facts) if is_limited else known.rows
    unknown_rows = np.flatnonzero(is_unknown)
    most = max(MIN_UNKNOWN, round(limits.unknown_share * len(rows)))
    if len(unknown_rows) > most:
        unknown = Pool.of(records, is_unknown, ignore, seed)
        unknown_rows = _select(unknown, StageLimits(max_samples=most, max_classes=None), {})
    if is_unknown.any():
        facts["unknown"] = {"found": int(is_unknown.sum()), "selected": len(unknown_rows)}
    facts["selected"] = known.counts(rows)
    facts["is_limited"] = is_limited
    if is_limited:
        _log(facts)
    if len(rows) + len(unknown_rows) == len(records):
        return StageSelection(rows=None, facts=facts)
    return StageSelection(rows=np.sort(np.concatenate([rows, unknown_rows])), facts=facts)


def _fits(pool: Pool, limits: StageLimits) -> bool:
    fits_samples = limits.max_samples is None or len(pool) <= limits.max_samples
    return fits_samples and (limits.max_classes is None or pool.num_classes <= limits.max_classes)


def _select(pool: Pool, limits: StageLimits, facts: dict[str, Any]) -> Rows:
    """Choose classes, then pictures; note in `facts` what was left out."""
    is_eligible = pool.is_class & (pool.num_pills >= limits.min_images)
    if is_eligible.sum() < 2:
        if is_eligible.sum() < pool.num_classes:
            logger.warning(
                "fewer than two classes have the %d pictures that data.progressive_validation.min_images_per_class "
                "asks for: all %d classes are used",
                limits.min_images,
                pool.num_classes,
            )
        is_eligible = pool.is_class
    facts["classes_below_minimum"] = [pool.codes[number] for number in np.flatnonzero(pool.is_class & ~is_eligible)]
    choice = ClassChoice.of(pool, is_eligible, _max_classes(pool, limits, int(is_eligible.sum())), limits.max_samples)
    singles = np.flatnonzero(choice.is_usable_single(pool))
    combos = np.flatnonzero(choice.is_usable_combo(pool))
    num_singles, num_combos = _numbers(pool, limits.max_samples, len(singles), len(combos))
    picked = [_even_singles(pool, singles, num_singles), _spread_combos(pool, combos, num_combos)]
    return pool.rows[np.concatenate(picked)]


def _max_classes(pool: Pool, limits: StageLimits, num_eligible: int) -> int:
    """Return how many classes are taken: so many that each can have `min_images` pictures."""
    most = num_eligible if limits.max_classes is None else min(num_eligible, limits.max_classes)
    if limits.max_samples is None or limits.min_images == 0:
        return most
    return min(most, max(2, limits.max_samples // limits.min_images))


def _numbers(pool: Pool, max_samples: int | None, num_singles: int, num_combos: int) -> tuple[int, int]:
    """Return how many single and how many combination pictures to take, in the data's ratio where it can be met."""
    share = pool.combo_share
    if max_samples is None:
        wanted_combos = num_combos
    else:
        wanted_combos = min(num_combos, round(max_samples * share))
        num_singles = min(num_singles, max_samples - wanted_combos)
    if share < 1:  # never more combos than fit the singles there are
        wanted_combos = min(wanted_combos, round(num_singles * share / (1 - share)))
    return num_singles, wanted_combos


def _even_singles(pool: Pool, places: Rows, total: int) -> Rows:
    """Take `total` of the single pictures at `places`, as evenly over the classes as they allow."""
    classes = pool.single_class[places]
    order = np.argsort(mixed(np.arange(len(pool.codes), dtype=np.uint64), pool.seed))
    shares = even_shares(np.bincount(classes, minlength=len(pool.codes)), total, order)
    return places[ranks_within(classes, pool.order[places]) < shares[classes]]


def _spread_combos(pool: Pool, places: Rows, total: int) -> Rows:
    """Take `total` of the combination pictures at `places`, one of each group before a second of any."""
    order = pool.order[places]
    turn = ranks_within(pool.group[places], order)
    return places[np.lexsort((order, turn))[:total]]


def _log(facts: dict[str, Any]) -> None:
    found, selected = facts["found"], facts["selected"]
    logger.info(
        "the stage uses %d of %d single and %d of %d combination pictures, %d of %d classes",
        selected["single"],
        found["single"],
        selected["combo"],
        found["combo"],
        selected["classes"],
        found["classes"],
    )
    small = facts["classes_below_minimum"]
    if small:
        logger.warning("%d classes have too few pictures and are left out: %s", len(small), ", ".join(small[:10]))
    if found["combo"] and not selected["combo"]:
        logger.warning("no combination picture has all its pills among the chosen classes: none is used")
