"""Numbers as people wrote them: 0.28 of 0.40 is exactly 0.7, which in binary it is not.

A measured float is taken for the shortest decimal number that has its value, so that the boundaries of a rule fall
where its author put them.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def exact(value: object) -> Fraction | None:
    """Return a measured figure as an exact fraction; None for NaN, infinity, booleans and what is no number.

    Example:
        >>> exact(0.7) == Fraction(7, 10)
        True
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Fraction):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Fraction(repr(value)) if math.isfinite(value) else None


def shown(value: Fraction) -> float:
    """Return a share as a float that is 1.0 only where the share is: rounding must not complete what is incomplete."""
    rounded = float(value)
    return math.nextafter(1.0, 0.0) if rounded == 1.0 and value < 1 else rounded
