"""One hard case (DAT-6): how a picture was read, what was answered, and why that is worth a second look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pillsnap.inference.routing import MULTI_PILL_GATE

# Why a case is kept, the gravest first; the gallery and a full file keep this order.
REASONS = {
    "unknown_accepted": "a drug nothing trained on was given a name",
    "wrong": "the best answer is another drug",
    "misroute": "the other way of reading the picture may have been right",
    "known_refused": "a drug the model knows was answered with unknown",
    "auto_combo": "mode auto took the picture for one of several pills",
    "low_confidence": "one pill, and the confidence in it is low",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How a picture was read: the routing part of an answer."""

    mode_asked: str
    """single, combo or auto."""
    mode_used: str
    """single or combo."""
    gating_score: float | None = None
    """How much speaks for several pills, 0..1; None where mode auto was not asked."""
    single_confidence: float | None = None
    """Confidence of the whole picture read as one pill, 0..1."""
    fallback_reason: str | None = None
    """Why combo was used: low_confidence, multi_object_hint, manual_combo; None: it was not."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a `HardCase` that it fills."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class HardCase:
    """One line of the file."""

    image_path: str
    """Relative to the data root; absolute for a photograph from elsewhere."""
    box: list[float] | None
    """x_min, y_min, x_max, y_max of the pill in pixels; None: the whole picture."""
    mode_asked: str
    mode_used: str
    gating_score: float | None
    single_confidence: float | None
    fallback_reason: str | None
    true_code: str | None
    """None where nobody knows."""
    pred_code: str
    """The most probable drug, also where it was refused; empty where no pill was found."""
    top5: list[dict[str, Any]]
    """`code`, `name` (or None) and `confidence` of the most probable drugs, the first first."""
    accepted: bool | None
    """Whether the drug was named; None without a calibration."""
    reasons: list[str]
    """Of `REASONS`."""
    true_name: str | None = None
    """Name of the true drug: the class map has none of a drug that nothing trained on."""
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    thumbnail: str | None = None
    """The picture, relative to the folder of the file."""
    crop: str | None = None
    """The pill in it."""

    @property
    def severity(self) -> tuple[int, float]:
        """Sorts cases: the gravest reason first, and of one reason what was most surely said."""
        order = list(REASONS)
        confidence = self.top5[0]["confidence"] if self.top5 else 0.0
        return min((order.index(reason) for reason in self.reasons), default=len(order)), -confidence


def routing_reasons(
    reading: Reading, confidence: float | None, least_confidence: float, *, num_pills: int, shows_one: bool | None
) -> list[str]:
    """Return the reasons that follow from how a picture was read (DAT-6).

    Args:
        reading: How it was read.
        confidence: Of the pill's best answer, 0..1; None where no pill was found.
        least_confidence: `logging.hard_cases.confidence`.
        num_pills: Pills answered.
        shows_one: Whether the picture is labelled as one of a single pill; None: it has no label, and a route is
            suspected to be wrong by the gating score, or by finding fewer than two pills where several were expected.
    """
    reasons = []
    is_single = reading.mode_used == "single"
    if is_single and confidence is not None and confidence < least_confidence:
        reasons.append("low_confidence")
    if reading.mode_asked == "auto" and not is_single:
        reasons.append("auto_combo")
    if shows_one is None:
        gate = reading.gating_score
        is_suspect = gate is not None and gate >= MULTI_PILL_GATE if is_single else num_pills < 2
        is_suspect &= reading.mode_asked != "combo"  # who asked for combo knows what the picture shows
    else:
        is_suspect = shows_one != is_single
    if is_suspect:
        reasons.append("misroute")
    return reasons


def label_reasons(pred_code: str, true_code: str, *, is_known: bool, accepted: bool | None) -> list[str]:
    """Return the reasons that follow from knowing the drug; without a calibration every answer counts as accepted."""
    if not is_known:
        return [] if accepted is False else ["unknown_accepted"]
    reasons = [] if pred_code == true_code else ["wrong"]
    return [*reasons, "known_refused"] if accepted is False else reasons


def case_of_answer(
    answer: Mapping[str, Any],
    image_path: str,
    mode_asked: str,
    least_confidence: float,
    *,
    shows_one: bool | None = None,
) -> HardCase | None:
    """Return the case that a pipeline's answer is, None where nothing about it is worth keeping.

    A picture is one case: that of the pill the answer is least sure of.

    Args:
        answer: What `Pipeline.predict` returned.
        image_path: As in `HardCase`.
        mode_asked: single, combo or auto.
        least_confidence: `logging.hard_cases.confidence`.
        shows_one: See `routing_reasons`.
    """
    reading = reading_of(answer, mode_asked)
    pills: Sequence[Mapping[str, Any]] = answer["pills"]
    pill = min(pills, key=lambda one: float(one["confidence"]), default=None)
    confidence = None if pill is None else float(pill["confidence"])
    reasons = routing_reasons(reading, confidence, least_confidence, num_pills=len(pills), shows_one=shows_one)
    if not reasons:
        return None
    is_unknown = None if pill is None else pill.get("is_unknown")
    return HardCase(
        image_path=image_path,
        box=None if pill is None or pill["box_xyxy"] is None else list(pill["box_xyxy"]),
        **reading.to_dict(),
        true_code=None,
        pred_code="" if pill is None else pill["top5"][0]["code"],
        top5=[] if pill is None else [dict(candidate) for candidate in pill["top5"]],
        accepted=None if is_unknown is None else not is_unknown,
        reasons=reasons,
    )


def reading_of(answer: Mapping[str, Any], mode_asked: str) -> Reading:
    """Return how a pipeline's answer came about."""
    return Reading(
        mode_asked=mode_asked,
        mode_used=answer["mode_used"],
        gating_score=answer.get("gating_score"),
        single_confidence=answer.get("single_confidence"),
        fallback_reason=answer.get("fallback_reason"),
    )
