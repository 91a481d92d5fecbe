"""The criteria of the four stages (D-14), read from `stage_targets.yaml`, and the score of what was measured.

What is not measured is not met: its part of the score is 0.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from typing import Any, Literal

import yaml

from pillsnap.errors import ConfigError
from pillsnap.gates.numbers import exact

TARGETS_FILE = "stage_targets.yaml"
STAGES = (1, 2, 3, 4)

Comparison = Literal[">=", "<=", "<"]
_SIGNS: dict[str, Comparison] = {"≥": ">=", "≤": "<=", "<": "<"}
_HOLDS: dict[Comparison, Callable[[Fraction, Fraction], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
}
# `≥0.30`, `≤100ms`, `≥99.9%`, `≤10:1`, `loss_variance < 0.1`
_CRITERION = re.compile(r"(?:(?P<quantity>[\w/]+)\s+)?(?P<sign>[≥≤<])\s*(?P<bound>\d+(?:\.\d+)?)(?P<unit>ms|%|:1)?")


@dataclass(frozen=True, slots=True)
class Target:
    """One figure and what it must be."""

    name: str
    """Section and figure, such as `detection.mAP_0.5`; an advanced metric has no section."""
    comparison: Comparison
    bound: Fraction
    """In the figure's own unit."""
    written: str
    """The number as the specification writes it."""
    unit: str = ""
    """`ms`, `%` or `:1` where the specification writes one."""
    quantity: str = ""
    """What is compared, where the specification names it."""

    @property
    def wanted(self) -> str:
        """The criterion in plain characters, such as `>=0.40` or `<=100ms`."""
        return f"{self.comparison}{self.written}{self.unit}"

    @property
    def is_share(self) -> bool:
        """Whether the figure lies in 0..1: 92 for 92 % is then a mistake, not a success."""
        return self.comparison == ">=" and self.bound <= 1

    def figure(self, value: object) -> Fraction | None:
        """Return a measured value exactly; None for what cannot be such a figure (NaN, below 0, a share above 1)."""
        number = exact(value)
        if number is None or number < 0 or (self.is_share and number > 1):
            return None
        return number

    def is_met(self, value: object) -> bool:
        """Tell whether a measured value meets it; what cannot be such a figure does not."""
        number = self.figure(value)
        return number is not None and _HOLDS[self.comparison](number, self.bound)

    def ratio(self, value: object) -> Fraction:
        """Return how much of it is reached, 0..1: value/bound, or bound/value where less is better; met is 1."""
        number = self.figure(value)
        if number is None:
            return Fraction(0)
        if _HOLDS[self.comparison](number, self.bound):
            return Fraction(1)
        return number / self.bound if self.comparison == ">=" else self.bound / number


@dataclass(frozen=True, slots=True)
class StageConfig:
    """The criteria of one stage, in the order of the specification."""

    stage: int
    mandatory_checks: tuple[str, ...]
    performance_targets: tuple[Target, ...]
    advanced_metrics: tuple[Target, ...]

    def score(self, figures: Mapping[str, Any]) -> Fraction:
        """Return the mean of the targets' ratios, 0..1; 1 if and only if every target is met.

        Args:
            figures: Measured figures by the targets' names; what is missing counts as 0.
        """
        ratios = [target.ratio(figures.get(target.name)) for target in self.performance_targets]
        return sum(ratios, Fraction(0)) / len(ratios)


def get_stage_config(stage: int) -> StageConfig:
    """Return the criteria of a stage.

    Raises:
        ConfigError: There is no such stage.
    """
    return _stages()[require_stage(stage)]


def get_stage_target(stage: int, name: str) -> Target:
    """Return one performance target of a stage, such as `detection.mAP_0.5`.

    Raises:
        ConfigError: There is no such stage, or it has no such target.
    """
    targets = {target.name: target for target in get_stage_config(stage).performance_targets}
    if name not in targets:
        raise ConfigError(f"stage {stage} has no target {name!r}; it has {', '.join(targets)}. Name one of these.")
    return targets[name]


def require_stage(stage: object) -> int:
    """Return `stage` where it is one.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(stage, bool) or stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}; the stages are 1, 2, 3 and 4. Name one of these.")
    return int(stage)


@functools.cache
def _stages() -> dict[int, StageConfig]:
    text = resources.files("pillsnap.gates").joinpath(TARGETS_FILE).read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return {stage: _parse_stage(stage, content[f"stage_{stage}"]) for stage in STAGES}


def _parse_stage(stage: int, content: Mapping[str, Any]) -> StageConfig:
    checks: Sequence[str] = content["mandatory_checks"]
    targets = tuple(
        parse_target(f"{section}.{name}", text)
        for section, figures in content["performance_targets"].items()
        for name, text in figures.items()
    )
    advanced = tuple(parse_target(name, text) for name, text in content["advanced_metrics"].items())
    return StageConfig(stage, tuple(checks), targets, advanced)


def parse_target(name: str, text: str) -> Target:
    """Read a criterion as the specification writes it.

    Args:
        name: Section and figure.
        text: Such as `≥0.30`, `≤100ms` or `loss_variance < 0.1`.

    Raises:
        ValueError: The text is of no such form.
    """
    found = _CRITERION.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{TARGETS_FILE}: {name} is {text!r}; wanted ≥, ≤ or < with a number, such as ≥0.30. Write it so."
        )
    written = found["bound"]
    return Target(name, _SIGNS[found["sign"]], Fraction(written), written, found["unit"] or "", found["quantity"] or "")
