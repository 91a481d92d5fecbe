"""Seeds and the state of the global generators."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

from pillsnap.data.randomness import derive_seed


def set_seed(seed: int, deterministic: bool) -> None:
    """Seed every global generator and choose between speed and repeatability (UTL-2).

    Args:
        seed: Any non-negative integer.
        deterministic: True asks torch for deterministic algorithms (a warning where none exists) and turns cuDNN's
            benchmark off; False lets cuDNN pick the fastest algorithm.
    """
    if deterministic:
        # Without it cuBLAS is not repeatable; read when CUDA starts, so it must be set before.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


def seed_step(seed: int, task: str, step: int) -> None:
    """Seed torch for one optimizer step, so that dropout and stochastic depth belong to the step.

    A replayed, resumed or differently interleaved step then draws the same numbers.
    """
    torch.manual_seed(derive_seed(seed, task, step, bits=63))


def rng_state() -> dict[str, Any]:
    """Return the state of every global generator as tensors and plain data."""
    python_version, python_values, python_gauss = random.getstate()
    # legacy=True is the tuple form; numpy's type stubs cover both forms in one union.
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": [python_version, list(python_values), python_gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` returned; CUDA generators only where the number of devices is the same."""
    python_version, python_values, python_gauss = state["python"]
    random.setstate((python_version, tuple(python_values), python_gauss))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
