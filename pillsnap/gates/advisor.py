"""What to do after a stage: go on, optimise, or stop (ADV-1); the user decides (ADV-2).

The advisor speaks of D-14's targets and decides nothing: whether a stage may be left is the gate's business
(`verdict.py`). Where nobody sits at a terminal the choice is recorded as "no choice".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from omegaconf import DictConfig

from pillsnap.gates import messages
from pillsnap.gates.flat import find_figure
from pillsnap.gates.messages import Language, Text, choose_language
from pillsnap.gates.numbers import exact, shown
from pillsnap.gates.suggestions import Suggestion, generate_optimization_suggestions
from pillsnap.gates.targets import STAGES, StageConfig, get_stage_config
from pillsnap.gates.terminal import NO_CHOICE, Terminal, box

PROCEED, OPTIMIZE, STOP = "RECOMMEND_PROCEED", "SUGGEST_OPTIMIZE", "WARN_STOP"
COLORS = {PROCEED: "🟢", OPTIMIZE: "🟡", STOP: "🔴"}
NUM_SHOWN = 3
"""Suggestions in the box; all of them are recorded."""

MOST_OOMS = 5
MOST_CORRUPTION = Fraction(1, 100)
SUFFICIENT, TOLERABLE = Fraction(7, 10), Fraction(5, 10)
"""Scores from which to go on and from which to optimise: those of D-14's class; its YAML's are an older draft."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What the advisor says."""

    stage: int
    recommendation: str
    """RECOMMEND_PROCEED, SUGGEST_OPTIMIZE or WARN_STOP."""
    reason: str
    message: str
    user_options: tuple[str, ...]
    performance_score: float
    """0..1; 1 if and only if every target is met."""
    suggestions: tuple[Suggestion, ...] = ()
    user_choice: str = NO_CHOICE

    @property
    def color(self) -> str:
        """A coloured dot."""
        return COLORS[self.recommendation]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "stage": self.stage,
            "recommendation": self.recommendation,
            "color": self.color,
            "reason": self.reason,
            "message": self.message,
            "performance_score": self.performance_score,
            "suggestions": [suggestion.to_dict() for suggestion in self.suggestions],
            "user_options": list(self.user_options),
            "user_choice": self.user_choice,
        }


@dataclass(frozen=True, kw_only=True)
class OptimizationAdvisor:
    """Weighs a run's figures against its stage's targets, recommends, and asks."""

    language: str = "auto"
    """`auto`, `ko` or `en`."""
    cfg: DictConfig | None = None
    """The run's configuration, from which suggestions compute new values; None: they only name the keys."""
    terminal: Terminal = field(default_factory=Terminal)
    is_interactive: bool = True
    """Ask for a choice where somebody sits at the terminal."""

    def evaluate_and_recommend(self, stage: int, results: Mapping[str, Any]) -> dict[str, Any]:
        """Recommend what to do, show it in the terminal, and ask the user (D-14).

        Args:
            stage: 1 to 4.
            results: Figures by D-14's names (`detection.mAP_0.5`) or the specification's flat ones
                (`detection_mAP_0.5`), `mandatory_checks` (name -> whether it passed), and optionally `repeated_oom`,
                `loss` and `data_corruption_rate` (0..1).

        Returns:
            `recommendation`, `reason`, `color`, `message`, `performance_score` (0..1), `suggestions` (a dict each, as
            `Suggestion.to_dict`), `user_options`, and `user_choice`: "1", "2", "3", or "no choice" without a terminal.

        Raises:
            ConfigError: There is no such stage.
        """
        return self.present(self.recommend(stage, results)).to_dict()

    def recommend(self, stage: int, results: Mapping[str, Any]) -> Recommendation:
        """Return what to do, without showing it.

        Raises:
            ConfigError: There is no such stage.
        """
        config = get_stage_config(stage)
        criticals = list(_criticals(results, self._spoken))
        if criticals:
            what = "; ".join(criticals)
            return self._say(
                config, results, (STOP, "critical_failure", messages.CRITICAL, messages.OPTIONS_CRITICAL), what
            )
        lacking = [name for name in config.mandatory_checks if not _is_passed(results, name)]
        if lacking:
            kind = (STOP, "mandatory_checks_failed", messages.MANDATORY, messages.OPTIONS_MANDATORY)
            return self._say(config, results, kind, ", ".join(lacking))
        return self._say(config, results, _kind_of(performance_score(results, config)))

    def recommend_after_time_cap(self, stage: int, results: Mapping[str, Any]) -> Recommendation:
        """Recommend to go on after a run that its time limit ended in order (STG-4), whatever its figures."""
        kind = (PROCEED, "time_cap_success", messages.TIME_CAP, messages.OPTIONS_SUFFICIENT)
        return self._say(get_stage_config(stage), results, kind)

    def diagnose_and_suggest(self, results: Mapping[str, Any], stage: int) -> list[Suggestion]:
        """Return what to change (D-14's name of `generate_optimization_suggestions`)."""
        return generate_optimization_suggestions(results, stage, cfg=self.cfg, language=self._spoken)

    def present(self, recommendation: Recommendation, gate: Sequence[str] = ()) -> Recommendation:
        """Draw a recommendation in the terminal, and ask for a choice where there is somebody to ask.

        Args:
            recommendation: What to show.
            gate: Lines on the gate's verdict.

        Returns:
            The recommendation with the user's choice.
        """
        self.terminal.show(draw(recommendation, self._spoken, gate))
        if not (self.is_interactive and self.terminal.is_interactive):
            return recommendation
        return replace(recommendation, user_choice=self.terminal.ask(f"\n{messages.PROMPT.to(self._spoken)}"))

    @property
    def _spoken(self) -> Language:
        return choose_language(self.language)

    def _say(self, config: StageConfig, results: Mapping[str, Any], kind: Kind, what: str = "") -> Recommendation:
        recommendation, reason, message, options = kind
        if recommendation == PROCEED and config.stage == STAGES[-1]:
            options = (messages.OPTION_AFTER_LAST_STAGE, *options[1:])
        return Recommendation(
            stage=config.stage,
            recommendation=recommendation,
            reason=reason,
            message=message.to(self._spoken, stage=config.stage, what=what),
            user_options=tuple(option.to(self._spoken, next=config.stage + 1) for option in options),
            performance_score=shown(performance_score(results, config)),
            suggestions=tuple(self.diagnose_and_suggest(results, config.stage)),
        )


Kind = tuple[str, str, Text, Sequence[Text]]
"""Recommendation, reason, message and options."""


def performance_score(results: Mapping[str, Any], config: StageConfig) -> Fraction:
    """Return the mean of the ratios to a stage's targets, 0..1, exactly; what is missing counts as 0."""
    return config.score({target.name: find_figure(results, target.name) for target in config.performance_targets})


def _kind_of(score: Fraction) -> Kind:
    if score == 1:
        return PROCEED, "all_targets_met", messages.ALL_MET, messages.OPTIONS_ALL_MET
    if score >= SUFFICIENT:
        return PROCEED, "sufficient_performance", messages.SUFFICIENT, messages.OPTIONS_SUFFICIENT
    if score >= TOLERABLE:
        return OPTIMIZE, "performance_below_target", messages.BELOW, messages.OPTIONS_BELOW
    return STOP, "performance_too_low", messages.TOO_LOW, messages.OPTIONS_TOO_LOW


def _criticals(results: Mapping[str, Any], language: Language) -> Iterator[str]:
    """Yield what D-14 wants every stage to stop for; a figure that is there but no number is as bad as a large one."""
    if _is_above(results.get("repeated_oom"), Fraction(MOST_OOMS)):
        yield messages.REPEATED_OOM.to(language, value=_plain(results["repeated_oom"]), most=MOST_OOMS)
    if results.get("loss") is not None and exact(results["loss"]) is None:
        yield messages.LOSS_NOT_FINITE.to(language)
    if _is_above(results.get("data_corruption_rate"), MOST_CORRUPTION):
        value = _plain(results["data_corruption_rate"])
        yield messages.CORRUPTION.to(language, value=value, most=float(MOST_CORRUPTION))


def _is_above(value: object, most: Fraction) -> bool:
    number = exact(value)
    return value is not None and (number is None or number > most)


def _plain(value: object) -> str:
    number = exact(value)
    return str(value) if number is None else f"{float(number):g}"


def _is_passed(results: Mapping[str, Any], name: str) -> bool:
    """Tell whether a check passed; anything but a plain yes, or evidence that says so, is a no."""
    checks = results.get("mandatory_checks")
    value = checks.get(name) if isinstance(checks, Mapping) else None
    if isinstance(value, Mapping):
        return value.get("status") == "passed"
    return isinstance(value, bool | np.bool_) and bool(value)


def draw(recommendation: Recommendation, language: Language, gate: Sequence[str] = ()) -> str:
    """Draw the box the specification shows: the message, the score, suggestions and options."""
    head = [f"{recommendation.color} {recommendation.message}", *gate]
    score = messages.SCORE.to(language, score=f"{recommendation.performance_score:.3f}")
    suggestions: list[str] = []
    for number, suggestion in enumerate(recommendation.suggestions[:NUM_SHOWN], start=1):
        suggestions += [f"  {number}. {suggestion.text}", f"     {suggestion.why}", f"     {suggestion.how}"]
    options = [f"  {option}" for option in recommendation.user_options]
    parts = [head, [score], [], [messages.OPTIONS.to(language), *options]]
    if suggestions:
        parts[2] = [messages.SUGGESTIONS.to(language), *suggestions]
    return box(messages.TITLE.to(language), parts)
