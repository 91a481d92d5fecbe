"""What to change after a run that missed its targets (ADV-1): the figure that says so, a key, and its new value.

Each suggestion speaks of one figure and changes one thing, so that the next run tells whether it helped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from pillsnap.gates.changes import Change, Settings
from pillsnap.gates.messages import NOT_MEASURED, WANTED, Language, choose_language
from pillsnap.gates.suggestion_rules import RULES, Case, Rule
from pillsnap.gates.targets import require_stage


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One thing to change, and why."""

    text_ko: str
    text_en: str
    figure: str
    """The figure it comes from."""
    value: float | None
    """Its value; None where it was not measured."""
    wanted: str
    """What the value had to be."""
    key: str
    """The configuration key to change."""
    new_value: Any
    """None where the run's configuration is not known."""
    override: str | None
    """The same as words for a shell, ready to paste; several where one key alone would contradict another."""
    language: Language = "en"

    @property
    def text(self) -> str:
        """What to do, in the language asked for."""
        return self.text_ko if self.language == "ko" else self.text_en

    @property
    def why(self) -> str:
        """The figure it comes from: its name, its value, and what was wanted."""
        value = NOT_MEASURED.to(self.language) if self.value is None else f"{self.value:.4g}"
        return f"{self.figure} {value}" + (f" ({WANTED.to(self.language)} {self.wanted})" if self.wanted else "")

    @property
    def how(self) -> str:
        """What to paste, or the key to look at."""
        return f"→ {self.override or self.key}"

    def __str__(self) -> str:
        """Return one line: what to do, why, and how."""
        return f"{self.text}: {self.why} {self.how}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for `reports/advice.json`."""
        names = ("text", "text_en", "text_ko", "figure", "value", "wanted", "key", "new_value", "override")
        return {name: getattr(self, name) for name in names}


def generate_optimization_suggestions(
    results: Mapping[str, Any], stage: int, *, cfg: DictConfig | None = None, language: str = "auto"
) -> list[Suggestion]:
    """Return what to change after a run, the most important first (ADV-1, D-14).

    Args:
        results: Figures by D-14's names (`detection.mAP_0.5`) or the specification's flat ones (`detection_mAP_0.5`).
        stage: 1 to 4.
        cfg: The run's configuration, from which new values are computed; None: only the keys are named.
        language: `auto`, `ko` or `en`, of the `text`.

    Returns:
        At most one suggestion a key; none for a key that has no room left in the direction wanted.

    Raises:
        ConfigError: There is no such stage.
    """
    case = Case(require_stage(stage), results, None if cfg is None else Settings(cfg))
    spoken = choose_language(language)
    suggestions: dict[str, Suggestion] = {}
    for rule, change in _changes(case):
        suggestions.setdefault(change.key, _suggestion(case, rule, change, spoken))
    return list(suggestions.values())


def _changes(case: Case) -> Iterator[tuple[Rule, Change]]:
    for rule in RULES:
        if rule.applies(case):
            change = Change(rule.key, None) if case.settings is None else rule.change(case)(case.settings)
            if change is not None:
                yield rule, change


def _suggestion(case: Case, rule: Rule, change: Change, language: Language) -> Suggestion:
    value = case.value(rule.figure)
    return Suggestion(
        text_ko=rule.text.ko,
        text_en=rule.text.en,
        figure=rule.figure,
        value=None if value is None else float(value),
        wanted=case.wanted(rule.figure) if rule.wanted is None else rule.wanted(case),
        key=change.key,
        new_value=change.new_value,
        override=None if case.settings is None else change.override,
        language=language,
    )
