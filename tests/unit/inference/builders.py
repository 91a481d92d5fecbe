"""Pipelines without training: fake models that read colours, and experiments with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pillsnap.data.classes import ClassMap
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.inference.acceptance import Acceptance
from pillsnap.inference.appearance import Appearance, describe
from pillsnap.inference.calibration import Calibration
from pillsnap.inference.engines import ClassifierEngine, DetectorEngine
from pillsnap.inference.pipeline import Pipeline
from pillsnap.models.classifier_efficientnetv2_s import build_classification_model, classifier_input
from pillsnap.models.detector_yolo11m import build_yolo_model

BACKBONE = "mobilenetv3_small_050"
MODEL = {"backbone": BACKBONE, "global_pool": None, "output_stride": None}
COLOURS = ClassMap(("K-000001", "K-000002", "K-000003"), {"K-000001": "빨간약", "K-000002": "Green"})
SPEC = ClassifierInput(size_px=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), frame_fit="letterbox")
DETECTOR_SIZE_PX = 128
SIDES_PX = (36, 38, 40, 42, 44)
INFERENCE = {
    "lazy_load_detector": True,
    "conf_threshold": 0.25,
    "iou_threshold": 0.4,
    "max_detections": 7,
    "crop_padding": 0.2,
}


class ColourClassifier(nn.Module):
    """Class 0, 1, 2 for red, green and blue pictures; notes the size of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))
        self.batch_sizes: list[int] = []

    def forward(self, images_BCHW: Tensor) -> Tensor:
        self.batch_sizes.append(len(images_BCHW))
        return self.gain * images_BCHW.mean((2, 3))


class FixedDetector(nn.Module):
    """Answers every picture with the same boxes, (N, 5): xyxy in pixels of the input, and score."""

    def __init__(self, boxes_N5: list[list[float]]) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        x_min, y_min, x_max, y_max, scores = torch.tensor(boxes_N5).reshape(-1, 5).T
        self.raw = torch.stack([(x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min, scores])

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, None]:
        return self.raw.expand(len(images_BCHW), -1, -1), None


def painted_picture() -> NDArray[np.uint8]:
    """300 x 200 (the detector sees it at 128 / 300): a red square, a green one, grey between them."""
    image = np.full((200, 300, 3), 114, np.uint8)
    image[30:90, 15:75] = (250, 0, 0)
    image[105:165, 210:270] = (0, 250, 0)
    return image


RED_BOX, GREEN_BOX = [15.0, 30.0, 75.0, 90.0], [210.0, 105.0, 270.0, 165.0]


def input_box(box_xyxy: list[float], score: float) -> list[float]:
    """A box of `painted_picture` in the detector's 128 px input, where the picture is 85 px high."""
    scale, top = 128 / 300, (128 - 85) // 2
    x_min, y_min, x_max, y_max = (value * scale for value in box_xyxy)
    return [x_min, y_min + top, x_max, y_max + top, score]


def colour_pipeline(
    boxes_N5: list[list[float]], calibration: Calibration | None = None
) -> tuple[Pipeline, ColourClassifier]:
    classifier = ColourClassifier().eval()
    engine = ClassifierEngine(classifier, SPEC, COLOURS)
    detector = DetectorEngine(FixedDetector(boxes_N5).eval(), DETECTOR_SIZE_PX)
    return Pipeline(engine, detector, calibration=calibration), classifier


def pill_picture(rgb: tuple[int, int, int], size_wh: tuple[int, int] = (40, 40)) -> NDArray[np.uint8]:
    """200 x 200, white: a rectangle of this colour and size in the middle."""
    image = np.full((200, 200, 3), 245, np.uint8)
    half_w, half_h = size_wh[0] // 2, size_wh[1] // 2
    image[100 - half_h : 100 + half_h, 100 - half_w : 100 + half_w] = rgb
    return image


def looks_of_colours() -> Appearance:
    """Training pills of the classes of `COLOURS`: squares of 36 to 44 pixels in red, green and blue."""
    rgbs = ((220, 30, 30), (30, 200, 30), (30, 30, 220))
    seen = [(describe(pill_picture(rgb, (side, side))), number) for number, rgb in enumerate(rgbs) for side in SIDES_PX]
    return Appearance.fit(np.stack([looks for looks, _ in seen]), np.array([number for _, number in seen]))


def colour_calibration(threshold: float = 0.5, temperature: float = 1.0) -> Calibration:
    """The looks decide: a pill at the distance of 6 counts as even."""
    weights = Acceptance(intercept=3 * float(np.log(6)), distance_weight=3.0, largest_distance=1e4)
    return Calibration(temperature=temperature, acceptance=weights, threshold=threshold, appearance=looks_of_colours())


def checkpoint_of(task: str, model: nn.Module, **changes: Any) -> dict[str, Any]:
    """A checkpoint as training writes it, as far as inference reads it."""
    snapshot = {"model": dict(MODEL), "detection": {"model_size": "n"}, "inference": dict(INFERENCE)}
    return {
        "task": task,
        "model_state": model.state_dict(),
        "ema_state": None,
        "config_snapshot": snapshot,
        "class_map": COLOURS.to_dict(),
        **changes,
    }


def random_classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_classification_model(BACKBONE, len(COLOURS), channels_last=False, pretrained=False).eval()


def random_detector(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = build_yolo_model("n", 1, lazy_load=False, pretrained=False)
    assert model is not None
    return model.eval()


def write_experiment(exp_dir: Path, *, with_detector: bool = True, **classifier_changes: Any) -> Path:
    """Write the best checkpoints of an experiment whose models are random, and return its folder."""
    folder = exp_dir / "checkpoints"
    folder.mkdir(parents=True)
    classifier = random_classifier()
    spec = classifier_input(classifier, 32, "letterbox").to_dict()
    torch.save(
        checkpoint_of("classification", classifier, classifier_input=spec, **classifier_changes), folder / "best.pt"
    )
    if with_detector:
        detection = checkpoint_of("detection", random_detector(), image_size=64)
        torch.save(detection, folder / "detection_best.pt")
    return exp_dir
