"""What runs a model: prepared pictures in, numbers out. Everything before and after is the same for every engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pillsnap.boxes import FloatArray
from pillsnap.data.classes import ClassMap
from pillsnap.data.preprocess import ClassifierInput, normalize
from pillsnap.models.detector_yolo11m import decode_predictions

ImageBatch = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ClassifierEngine:
    """A classifier in evaluation mode, with all that belongs to it."""

    model: nn.Module
    spec: ClassifierInput
    class_map: ClassMap

    def probabilities(self, views_NHWC: ImageBatch) -> FloatArray:
        """Classify a batch in fp32.

        Args:
            views_NHWC: uint8 (N, S, S, 3) RGB, from `frame_view` or `box_view`; N may be 0.

        Returns:
            float32 (N, C) softmax probabilities in the order of the class map.
        """
        if not len(views_NHWC):
            return np.zeros((0, len(self.class_map)), np.float32)
        with torch.no_grad():
            logits: Tensor = self.model(normalize(_as_device_batch(views_NHWC, self.model), self.spec))
            return np.asarray(logits.float().softmax(1).cpu().numpy(), np.float32)


@dataclass(frozen=True, slots=True)
class DetectorEngine:
    """A detector in evaluation mode, with the side of its square input in pixels."""

    model: nn.Module
    size_px: int

    def predictions(self, inputs_NHWC: ImageBatch) -> Tensor:
        """Detect in a batch of letterboxed pictures, in fp32.

        Args:
            inputs_NHWC: uint8 (N, size_px, size_px, 3) RGB, N at least 1.

        Returns:
            float32 (N, 5, A) for `non_max_suppression`, on the model's device.
        """
        with torch.no_grad():
            return decode_predictions(self.model(_as_device_batch(inputs_NHWC, self.model).float() / 255))


def _as_device_batch(images_NHWC: ImageBatch, model: nn.Module) -> Tensor:
    """Return uint8 (N, 3, S, S) on the model's device; the conversion to float is cheaper there."""
    device = next(model.parameters()).device
    return torch.from_numpy(images_NHWC).to(device).permute(0, 3, 1, 2).contiguous()
