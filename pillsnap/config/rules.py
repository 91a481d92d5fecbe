"""The rules a configuration value can be held to, written into the schema as `Annotated[float, above(0)]`.

A rule's text completes "wants a number ...", so that the schema alone yields the error messages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Rule:
    """One condition on a value that already has the right type."""

    text: str
    holds: Callable[[Any], bool]


def at_least(minimum: float) -> Rule:
    """Accept `minimum` and everything above it."""
    return Rule(f"of {minimum} or more", lambda value: bool(value >= minimum))


def above(bound: float) -> Rule:
    """Accept everything above `bound`."""
    return Rule(f"above {bound}", lambda value: bool(value > bound))


def between(low: float, high: float) -> Rule:
    """Accept `low` to `high`, both included."""
    return Rule(f"from {low} to {high}", lambda value: bool(low <= value <= high))


def inside(low: float, high: float) -> Rule:
    """Accept what lies between `low` and `high`, both excluded."""
    return Rule(f"above {low} and below {high}", lambda value: bool(low < value < high))


def from_to_below(low: float, high: float) -> Rule:
    """Accept `low` (included) to `high` (excluded)."""
    return Rule(f"of {low} or more and below {high}", lambda value: bool(low <= value < high))


def multiple_of(step: int) -> Rule:
    """Accept whole multiples of `step`."""
    return Rule(f"that is a multiple of {step}", lambda value: bool(value % step == 0))


def num_items(count: int) -> Rule:
    """Accept a list with exactly `count` items."""
    return Rule(f"of exactly {count} items", lambda items: len(items) == count)


NOT_EMPTY = Rule("of at least one item", lambda items: len(items) > 0)
DISTINCT = Rule("without repeats", lambda items: len(set(items)) == len(items))
NOT_BLANK = Rule("that is not empty", lambda text: bool(text.strip()))
PATH = Rule("as a path", lambda text: bool(text.strip()))

PathText = Annotated[str, PATH]
"""A path; `~` is expanded and `..` folded while loading. Relative paths start at the working directory."""
Name = Annotated[str, NOT_BLANK]
Count = Annotated[int, at_least(1)]
CountOrZero = Annotated[int, at_least(0)]
Share = Annotated[float, between(0, 1)]
