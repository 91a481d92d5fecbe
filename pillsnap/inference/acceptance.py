"""One score for "this answer is right and the drug is known", from how sure the model is and how the pill looks.

Both have to hold: a pill that looks like no training pill of the named drug is refused however sure the model is, since
it was never taught to doubt a drug it has not seen; and looks alone do not make an unsure answer right. So the score is
a smooth minimum of the calibrated confidence and of the familiarity

    familiarity = sigmoid(intercept - weight * log(distance)),

the chance that a pill at this distance from the training pills of the named drug (`appearance.py`) shows that drug.
`evaluation/acceptance.py` fits it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

LEAST_DISTANCE = 1e-3
LEAST_SHARE = 1e-6
SHARPNESS = 8
"""Of the minimum: a power mean with this exponent, negative. The plain minimum would leave answers apart in only one of
both without an order."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How distance becomes familiarity."""

    intercept: float
    distance_weight: float
    """0 or more; 0 where looks tell nothing."""
    largest_distance: float
    """Longer distances, infinite ones too, count as this."""

    def score(self, confidence: Floats, distance: Floats) -> NDArray[np.float32]:
        """Return the scores of N answers, float32 (N,) in 0..1.

        Args:
            confidence: (N,) calibrated probability of the named drug.
            distance: (N,) from `Appearance.distances`.
        """
        parts = np.stack([np.asarray(confidence, np.float64), self.familiarity(distance)])
        powers = np.clip(parts, LEAST_SHARE, 1) ** -SHARPNESS
        return np.asarray(powers.mean(axis=0) ** (-1 / SHARPNESS), np.float32)

    def familiarity(self, distance: Floats) -> NDArray[np.float64]:
        """Return the chance that pills this far from the training pills of a drug show it, (N,) in 0..1."""
        if not self.distance_weight:
            return np.full(np.shape(distance), expit(self.intercept))
        return np.asarray(expit(self.intercept - self.distance_weight * log_distance(distance, self.largest_distance)))

    def to_dict(self) -> dict[str, float]:
        """Return plain data."""
        return asdict(self)


def log_distance(distance: Floats, largest: float) -> NDArray[np.float64]:
    """Return the log of distances, (N,), kept between the least one that matters and `largest`."""
    return np.log(np.clip(np.asarray(distance, np.float64), LEAST_DISTANCE, largest))
