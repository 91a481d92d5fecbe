"""Trained models out of an experiment's folder, ready to answer.

A checkpoint carries all that is needed to use its model: the weights (EMA where there are some), the class map, the
input and the resolved configuration it was trained with. Nothing is taken from the configuration of today.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pillsnap.atomicfile import zip_damage
from pillsnap.data.classes import ClassMap
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.errors import CheckpointError, DataError
from pillsnap.inference.engines import ClassifierEngine, DetectorEngine
from pillsnap.memory import is_out_of_memory
from pillsnap.models.classifier_efficientnetv2_s import build_classification_model
from pillsnap.models.detector_yolo11m import build_yolo_model
from pillsnap.models.weights import first_sentence

CLASSIFIER_FILE = Path("checkpoints", "best.pt")
DETECTOR_FILE = Path("checkpoints", "detection_best.pt")

Checkpoint = Mapping[str, Any]


def read_checkpoint(path: Path, task: str) -> Checkpoint:
    """Read the checkpoint of one task, on the CPU.

    Args:
        path: The file, `<experiment>/checkpoints/...`.
        task: `classification` or `detection`, what it must have been written for.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint, or of the other task. Running out of memory is
            raised as it is.
    """
    exp_dir = path.parent.parent
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist: this experiment has no trained model for {task}. Train one with "
            f"`python -m src.train --cfg config.yaml paths.exp_dir={exp_dir} train.tasks=[{task}]`, "
            "or name the folder of another experiment."
        )
    try:
        if damage := zip_damage(path):
            raise ValueError(damage)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        if is_out_of_memory(error, is_memory_scarce=False):  # says nothing about the file
            raise
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is not a readable checkpoint: {first_sentence(error)}. "
            f"Copy it again from its source, or continue the training with `train.resume=last paths.exp_dir={exp_dir}`."
        ) from error
    found = content.get("task") if isinstance(content, Mapping) else None
    if found != task:
        raise CheckpointError(
            f"{path} holds {f'a checkpoint for {found}' if found else 'no PillSnap checkpoint'}, "
            f"but one for {task} was wanted. Put the experiment's own file back."
        )
    return dict(content)


def load_classifier(checkpoint: Checkpoint, path: Path, device: torch.device) -> ClassifierEngine:
    """Rebuild the classifier of a checkpoint in evaluation mode; `path` is for messages.

    Raises:
        CheckpointError: The checkpoint lacks a part, or its weights belong to another backbone or class map.
    """
    try:
        class_map = ClassMap.from_dict(part(checkpoint, path, "class_map"))
        spec = ClassifierInput.from_dict(part(checkpoint, path, "classifier_input"))
    except (DataError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} holds a class map or input description that cannot be used: {error}. Train again."
        ) from error
    settings = part(checkpoint, path, "config_snapshot", "model")
    backbone = str(part(settings, path, "backbone"))
    model = build_classification_model(
        backbone,
        len(class_map),
        channels_last=False,
        pretrained=False,
        global_pool=part(settings, path, "global_pool"),
        output_stride=part(settings, path, "output_stride"),
    )
    _load_weights(model, checkpoint, path, f"{backbone} with {len(class_map)} classes")
    return ClassifierEngine(model.eval().to(device), spec, class_map)


def load_detector(checkpoint: Checkpoint, path: Path, device: torch.device) -> DetectorEngine:
    """Rebuild the detector of a checkpoint in evaluation mode; `path` is for messages.

    Raises:
        CheckpointError: The checkpoint lacks a part, or its weights belong to another model.
    """
    model_size = str(part(checkpoint, path, "config_snapshot", "detection", "model_size"))
    model = build_yolo_model(model_size, num_classes=1, lazy_load=False, pretrained=False)
    assert model is not None
    _load_weights(model, checkpoint, path, f"YOLO11{model_size}")
    return DetectorEngine(model.eval().to(device), int(part(checkpoint, path, "image_size")))


def part(checkpoint: Checkpoint, path: Path, *keys: str) -> Any:
    """Return a nested value of a checkpoint, or raise `CheckpointError` naming what it lacks."""
    value: Any = checkpoint
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            raise CheckpointError(
                f"{path} lacks {'.'.join(keys)}, which every checkpoint of this version has. "
                "It was written by another program or version: train again."
            )
        value = value[key]
    return value


def _load_weights(model: nn.Module, checkpoint: Checkpoint, path: Path, wanted: str) -> None:
    state = checkpoint.get("ema_state") or part(checkpoint, path, "model_state")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise CheckpointError(
            f"the weights in {path} do not fit the {wanted} that the same file names "
            f"({lines[min(1, len(lines) - 1)].strip()[:300]}). The file was changed after it was written: train again."
        ) from error
