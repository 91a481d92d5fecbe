"""Local weight files: reading them without running code, and fitting them to a model without guessing.

A file fits when every tensor of the model is in it with its shape and nothing is left over. Only the final layers,
whose size depends on the number of classes, may be left at their random start, and that is logged.
"""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pillsnap.atomicfile import zip_damage
from pillsnap.errors import ModelError

logger = logging.getLogger(__name__)

SHOWN_KEYS = 5
# Where the tensors lie in the files people have: PillSnap's own checkpoints (EMA first), then the common wrappers.
WRAPPERS = ("ema_state", "model_state", "state_dict", "model")
# Old files lack this counter, and nothing but a BatchNorm without momentum reads it.
OPTIONAL_SUFFIX = "num_batches_tracked"


class PickledObjectsError(ModelError):
    """The file holds Python objects besides tensors, which are not loaded because loading them runs their code."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file or a PyTorch file, on the CPU.

    Args:
        path: The file; a checkpoint of PillSnap or a dictionary with `state_dict` or `model` in it is unwrapped.

    Returns:
        Parameter name -> tensor; prefixes of torch.compile and DataParallel are removed.

    Raises:
        ModelError: The file is missing, damaged or holds no tensors.
        PickledObjectsError: The file holds more than tensors and plain data.
    """
    if not path.is_file():
        raise ModelError(f"the weights file {path} does not exist. Give the path of a .pt, .pth or .safetensors file.")
    try:
        content = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, SafetensorError) as error:
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            raise PickledObjectsError(
                f"the weights file {path} holds more than tensors ({first_sentence(error)}). A state dict was wanted: "
                "save it again as torch.save(model.state_dict(), path)."
            ) from error
        raise ModelError(
            f"the weights file {path} ({path.stat().st_size} bytes) cannot be read: {first_sentence(error)}. "
            "Copy it again from its source."
        ) from error
    return _tensors_of(content, path)


def load_fitting(model: nn.Module, state: Mapping[str, Tensor], class_prefixes: tuple[str, ...], source: str) -> None:
    """Load `state` into `model`; tensors below `class_prefixes` are skipped where they do not fit.

    Args:
        model: Changed in place.
        state: Parameter name -> tensor.
        class_prefixes: Beginnings of the names of layers whose size depends on the number of classes.
        source: Where the weights come from, for the messages.

    Raises:
        ModelError: Any other tensor is missing, left over or of another shape: these are another model's weights.
    """
    wanted = model.state_dict()
    state = {**{name: wanted[name] for name in wanted if name.endswith(OPTIONAL_SUFFIX)}, **state}
    skipped = {
        name
        for name in {*wanted, *state}
        if any(name.startswith(prefix) for prefix in class_prefixes)
        and (name not in wanted or name not in state or state[name].shape != wanted[name].shape)
    }
    _require_fit(_without(wanted, skipped), _without(state, skipped), source)
    if skipped:
        logger.info(
            "%s: %d of %d tensors loaded; those of the class layers keep their random start, because the number of "
            "classes differs: %s",
            source,
            len(wanted.keys() - skipped),
            len(wanted),
            ", ".join(sorted(skipped)),
        )
    model.load_state_dict({**wanted, **_without(state, skipped)})


def _without(tensors: Mapping[str, Tensor], skipped: set[str]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name not in skipped}


def _require_fit(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if not (missing or unexpected or shapes):
        return
    findings = [
        f"{len(found)} {kind} ({', '.join(found[:SHOWN_KEYS])}{', ...' if len(found) > SHOWN_KEYS else ''})"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if found
    ]
    raise ModelError(
        f"the weights in {source} belong to another model: {'; '.join(findings)}. "
        "Name the model they were made with, or give the weights of this one."
    )


def _torch_load(path: Path) -> Any:
    if zipfile.is_zipfile(path) and (damage := zip_damage(path)):
        raise ValueError(damage)
    return torch.load(path, map_location="cpu", weights_only=True)


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(
            f"the weights file {path} holds no state dict (found: {type(content).__name__}). "
            "A dictionary from parameter names to tensors was wanted."
        )
    return {str(name).removeprefix("module.").removeprefix("_orig_mod."): value for name, value in content.items()}


def first_sentence(error: Exception) -> str:
    """Return the first sentence of an error: PyTorch's go on for paragraphs."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return first_line.partition(". ")[0].rstrip(".")
