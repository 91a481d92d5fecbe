"""Taking figures out of files that may lack any part, and saying them in text.

A report is written for whole runs, broken-off ones and those of older versions alike: what is not there is None here
and "not measured" on the page. Text never claims more than the figure: 99.97 % is not "100 %".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

NOT_MEASURED = "not measured"
# Ends of names that are units; the longer ones first.
_UNITS = {"_img_s": "pictures/s", "_ms": "ms", "_gb": "GB", "_s": "s", "_hours": "hours"}


def part(facts: object, *keys: str) -> Mapping[str, Any]:
    """Return the mapping at the end of a path of keys; an empty one where the path ends early."""
    for key in keys:
        facts = facts.get(key) if isinstance(facts, Mapping) else None
    return facts if isinstance(facts, Mapping) else {}


def rows(facts: object, key: str) -> list[Mapping[str, Any]]:
    """Return the mappings in the list under `key`; none where there is no list."""
    found = facts.get(key) if isinstance(facts, Mapping) else None
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def number(facts: Mapping[str, Any], *names: str) -> float | int | None:
    """Return the first of the named values that is a finite number; None where none is. True and False are none."""
    for name in names:
        value = facts.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return value
    return None


def words(facts: Mapping[str, Any], name: str) -> str:
    """Return the value under `name` as text, empty where there is none."""
    value = facts.get(name)
    return "" if value is None else str(value)


def interval(facts: Mapping[str, Any], *names: str) -> tuple[float, float] | None:
    """Return the first of the named values that is a pair [low, high] of finite numbers."""
    for name in names:
        pair = facts.get(name)
        if isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2:
            low, high = (number({"value": value}, "value") for value in pair)
            if low is not None and high is not None:
                return float(low), float(high)
    return None


def share_text(value: float) -> str:
    """Return a share from 0 to 1 as per cent; only all is said to be 100 %, and only nothing 0 %."""
    if 0.9995 <= value < 1:
        return ">99.9%"
    return "<0.1%" if 0 < value < 0.0005 else f"{value:.1%}"


def share_interval_text(pair: tuple[float, float]) -> str:
    """Return two shares as "66.3% to 85.0%"."""
    return f"{share_text(pair[0])} to {share_text(pair[1])}"


def plain_text(value: object) -> str:
    """Return a value of any kind short and plain, for a table that mixes figures of many units."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain_text(item) for item in value) or "none"
    return str(value)


def figure_name(name: str) -> str:
    """Return the dotted name of a figure in words: "detection: mAP@0.5" for `detection.mAP_0.5`."""
    group, _, key = name.partition(".") if not name.startswith("mAP") else ("", "", name)
    key = key.replace("mAP_0.5_0.95", "mAP@0.5:0.95").replace("mAP_", "mAP@").replace("macro_f1", "macro F1")
    for ending, unit in _UNITS.items():
        if key.endswith(ending):
            key = f"{key.removesuffix(ending)} ({unit})"
            break
    text = key.replace("_", " ")
    return f"{group.replace('_', ' ')}: {text}" if group and text else text or group.replace("_", " ")


def wanted_text(wanted: str) -> str:
    """Return a wanted value such as ">=0.40" as people write it: "≥ 0.40"."""
    return wanted.replace(">=", "≥ ").replace("<=", "≤ ").replace("  ", " ")


def count_text(count: int, one: str, many: str) -> str:
    """Return a count with its noun: "1 check", "1,200 checks"."""
    return f"{count:,} {one if count == 1 else many}"


def time_of(text: object) -> datetime | None:
    """Return an ISO time with its zone; None where the text is none, or has no zone to compare it by."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.astimezone(UTC) if time.tzinfo else None


def minute_text(text: object) -> str:
    """Return an ISO time to the minute, in UTC; other text as it is, nothing as the empty text."""
    time = time_of(text)
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else "" if text is None else str(text)


def href_of(exp_dir: Path, name: object) -> str:
    """Return the link from the page in `reports/` to a file of the experiment; empty where it is not there."""
    if not isinstance(name, str) or not name or not (exp_dir / name).exists():
        return ""
    try:
        inside = (exp_dir / name).resolve().relative_to(exp_dir.resolve())
    except ValueError:  # evidence outside the experiment would be a dead link on another computer
        return ""
    return f"../{quote(inside.as_posix())}"
