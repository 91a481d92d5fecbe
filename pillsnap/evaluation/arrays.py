"""Model outputs and labels as NumPy arrays, whatever device and type they were on."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Values: TypeAlias = ArrayLike | torch.Tensor
FloatValues: TypeAlias = NDArray[np.floating]
IntValues: TypeAlias = NDArray[np.integer]


def as_array(values: Values) -> NDArray[Any]:
    """Return `values` as a NumPy array of its own type."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def as_floats(values: Values) -> FloatValues:
    """Return `values` as a NumPy array of floats; float32 and float64 stay what they are and are not copied."""
    if isinstance(values, torch.Tensor):
        tensor = values.detach().cpu()
        values = (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()
    array = np.asarray(values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def as_ints(values: Values) -> IntValues:
    """Return `values` as a NumPy array of integers.

    Raises:
        ValueError: `values` are not whole numbers by type, for example floats.
    """
    array = as_array(values)
    if array.size == 0:
        return array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"class numbers have type {array.dtype}; wanted integers from 0 to C-1. Convert them, for example by "
            "`.argmax(1)` for predictions or a class map for labels."
        )
    return array
