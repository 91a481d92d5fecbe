"""torch.compile with a way back: a failure costs a warning, never the run."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from pillsnap.memory import is_out_of_memory

logger = logging.getLogger("pillsnap")

COMPILE_MODES = ("none", "reduce-overhead", "max-autotune")


def try_torch_compile(model: nn.Module, mode: str) -> nn.Module:
    """Compile a model in place, falling back to the plain one when that fails (UTL-9).

    The model stays the same object, so its state dict keeps its names (no `_orig_mod.` prefix). Compilation happens at
    the first calls; an error there (other than running out of memory, which smaller batches cure) removes the compiled
    version, is logged once, and the call is repeated by the plain model.

    Args:
        model: Any module.
        mode: `none`, `reduce-overhead` or `max-autotune`.

    Returns:
        `model`.

    Raises:
        ValueError: Any other mode.
    """
    if mode not in COMPILE_MODES:
        raise ValueError(f"torch_compile is {mode!r}; wanted one of {', '.join(COMPILE_MODES)}.")
    if mode == "none":
        return model
    try:
        compiled = torch.compile(model._call_impl, mode=mode)
    except RuntimeError as error:
        _warn(mode, error)
        return model

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
            if is_out_of_memory(error, is_memory_scarce=False):
                raise
            _warn(mode, error)
            model._compiled_call_impl = None
        return model(*args, **kwargs)

    # nn.Module.compile() sets this very attribute; setting it here puts the way back around it.
    model._compiled_call_impl = call
    return model


def give_up_compilation(model: nn.Module, error: Exception) -> bool:
    """Go over to the plain model after an error of a compiled one, as in its backward pass, which is compiled late.

    Returns:
        Whether there was something to give up, so that the plain model deserves an attempt.
    """
    if model._compiled_call_impl is None:
        return False
    _warn("as configured", error)
    model._compiled_call_impl = None
    return True


def _warn(mode: str, error: Exception) -> None:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    logger.warning(
        "torch.compile (mode %s) failed: %s. Going on with the plain model. Set optimization.torch_compile=none to "
        "skip the attempt.",
        mode,
        reason,
    )
