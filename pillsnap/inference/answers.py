"""What a pipeline answers: plain data, ready for JSON."""

from __future__ import annotations

from typing import Literal, TypedDict

UNKNOWN_CODE = "unknown"
"""Stands where a drug's code would, for a pill that is refused."""

FallbackReason = Literal["low_confidence", "multi_object_hint", "manual_combo"]


class Candidate(TypedDict):
    """One drug a pill may be; `name` is None where the data set gave none."""

    code: str
    name: str | None
    confidence: float


class Pill(Candidate):
    """One pill of the answer: the drug, the best five candidates, and where it is.

    A refused pill has the code "unknown" and no name; `confidence` is that of the best candidate, which with the others
    in `top5` only says what the pill looks like.
    """

    is_unknown: bool | None
    """None where the experiment has no calibration: nothing is refused."""
    accept_score: float | None
    """How much speaks for the answer being right and the drug known, 0..1."""
    top5: list[Candidate]
    box_xyxy: list[float] | None
    """Pixels of the picture; None in mode single."""
    detection_confidence: float | None


class Answer(TypedDict):
    """What `Pipeline.predict` returns."""

    mode_used: str
    """single or combo."""
    pills: list[Pill]
    image_size_wh: list[int]
    gating_score: float | None
    """How much speaks against one well framed pill, 0..1; None where mode auto was not asked."""
    single_confidence: float | None
    """Confidence of the best candidate for the whole picture; None where it was not classified."""
    fallback_reason: FallbackReason | None
    """Why mode combo was used."""
    elapsed_ms: dict[str, float]
