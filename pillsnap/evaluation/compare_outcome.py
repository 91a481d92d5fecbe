"""What a comparison of two experiments' answers came to, in words: `pillsnap.gates.comparison` has the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pillsnap.evaluation.report_tables import Table
from pillsnap.evaluation.report_values import interval, number, part, share_text, words


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A comparison in words."""

    title: str
    sentence: str
    note: str
    table: Table | None
    """What both said to the pills both were asked about; None where there are no such pills."""


def outcome_of(found: Mapping[str, Any], names: tuple[str, str] = ("A", "B")) -> Outcome:
    """Say what a comparison means.

    Args:
        found: From `compare_experiments`, or {kind: "none", reason} where there was nothing to compare.
        names: What to call the earlier and the later experiment.
    """
    pair, difference = interval(found, "interval"), number(found, "difference")
    if pair is None or difference is None:
        return Outcome(title="Not compared picture by picture", sentence=words(found, "reason"), note="", table=None)
    low, high = pair
    is_paired = found.get("kind") == "paired"
    title = "No difference beyond chance"
    if low > 0 or high < 0:
        title = _begin(f"{names[1] if low > 0 else names[0]} names more pills correctly")
    basis = f"on the same {part(found, 'b').get('n', 0):,} pills" if is_paired else "on different pictures"
    shares = ", ".join(f"{name} {_accuracy(found, side)}" for name, side in zip(names, ("a", "b"), strict=True))
    sentence = (
        f"{_begin(shares)}, {basis}: a difference of {_points(difference)} points, 95% interval {_points_of(pair)}."
    )
    note = f"Interval by {words(found, 'method')}."
    if not is_paired:
        note = f"{_begin(words(found, 'reason'))}. Look at the pills in both first. {note}"
    pairs = part(found, "pairs")
    return Outcome(title=title, sentence=sentence, note=note, table=_pairs_table(pairs, names) if pairs else None)


def _pairs_table(pairs: Mapping[str, Any], names: tuple[str, str]) -> Table:
    """Return what both said to the pills both were asked about."""
    pair, difference, p = interval(pairs, "interval"), number(pairs, "difference"), number(pairs, "p_value")
    counts = {
        "both right": "both_right",
        f"only {names[0]} right": "only_a_right",
        f"only {names[1]} right": "only_b_right",
        "both wrong": "both_wrong",
    }
    rows = [
        ["pills both were asked about", f"{pairs.get('n', 0):,} in {pairs.get('n_groups', 0):,} groups of pictures"]
    ]
    rows += [[label, f"{pairs.get(key, 0):,}"] for label, key in counts.items()]
    if pair is not None and difference is not None:
        text = f"{_points(difference)} points ({_points_of(pair)})"
        rows.append([f"difference, {names[1]} minus {names[0]}", text])
    if p is not None:
        text = f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"
        rows.append(["McNemar's exact test", f"p = {text}; takes every pill for independent"])
    return Table("", [], rows)


def _begin(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _accuracy(found: Mapping[str, Any], side: str) -> str:
    accuracy = number(part(found, side), "accuracy")
    return "unknown" if accuracy is None else share_text(float(accuracy))


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _points_of(pair: tuple[float, float]) -> str:
    return f"{_points(pair[0])} to {_points(pair[1])}"
