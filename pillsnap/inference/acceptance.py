"""One score for "this answer is right and the drug is known", from how sure the model is and how the pill looks.

score = sigmoid(intercept + w_c * logit(confidence) - w_d * log(distance)), with the calibrated confidence of the named
drug and the distance to its nearest training picture (`familiarity.py`). `evaluation/acceptance.py` fits the weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

CONFIDENCE_LIMITS = (1e-6, 1 - 1e-6)
LEAST_DISTANCE = 1e-3

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The weights of the score."""

    intercept: float
    confidence_weight: float
    """0 or more."""
    distance_weight: float
    """0 or more; 0 where looks tell nothing."""
    largest_distance: float
    """Longer distances, infinite ones too, count as this."""

    def score(self, confidence: Floats, distance: Floats) -> NDArray[np.float32]:
        """Return the scores of N answers, float32 (N,) in 0..1.

        Args:
            confidence: (N,) calibrated probability of the named drug.
            distance: (N,) from `Familiarity.distances`.
        """
        sure, far = evidence(confidence, distance, self.largest_distance)
        return np.asarray(
            expit(self.intercept + self.confidence_weight * sure - self.distance_weight * far), np.float32
        )

    def to_dict(self) -> dict[str, float]:
        """Return plain data."""
        return asdict(self)


def evidence(confidence: Floats, distance: Floats, largest_distance: float) -> tuple[Floats, Floats]:
    """Return the two numbers the score weighs, (N,) each: logit of the confidence, log of the distance."""
    sure = logit(np.clip(np.asarray(confidence, np.float64), *CONFIDENCE_LIMITS))
    far = np.log(np.clip(np.asarray(distance, np.float64), LEAST_DISTANCE, largest_distance))
    return sure, far
