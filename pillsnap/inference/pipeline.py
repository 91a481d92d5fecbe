"""From a photograph to drug codes: `single` classifies the whole picture, `combo` finds the pills first.

A pill that is not like the training pills of the drug it would be named after, or that the model is not sure of, is
answered with "unknown" (`calibration.py`).

pipeline = Pipeline.from_experiment(Path("runs/demo"))
pipeline.predict(Path("photo.png"), mode="combo")["pills"][0]["code"]
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pillsnap.boxes import FloatArray, area_xyxy
from pillsnap.config.loading import load_config
from pillsnap.data.images import RgbImage, decode_rgb
from pillsnap.data.preprocess import box_view, frame_view, letterbox
from pillsnap.errors import BrokenImageError, ConfigError
from pillsnap.inference.answers import UNKNOWN_CODE, Answer, Candidate, FallbackReason, Pill
from pillsnap.inference.appearance import describe
from pillsnap.inference.calibration import JSON_FILE as CALIBRATION_FILE
from pillsnap.inference.calibration import Calibration
from pillsnap.inference.checkpoints import (
    CLASSIFIER_FILE,
    DETECTOR_FILE,
    load_classifier,
    load_detector,
    part,
    read_checkpoint,
)
from pillsnap.inference.engines import ClassifierEngine, DetectorEngine, ImageBatch
from pillsnap.inference.nms import non_max_suppression
from pillsnap.inference.routing import choose_route, gating_score

MODES = ("single", "combo", "auto")
NUM_CANDIDATES = 5
MIN_BOX_AREA_PX = 1.0


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes (N, 4) in pixels of the picture and their scores (N,), most confident first."""

    boxes_xyxy: FloatArray
    scores: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceSettings:
    """The `inference` section of the configuration."""

    conf_threshold: float = 0.3
    """Detected boxes with a score not above this are dropped, where the caller names no other."""
    iou_threshold: float = 0.5
    """Boxes that overlap a more confident one by more than this are dropped."""
    max_detections: int = 100
    """Boxes a picture."""
    crop_padding: float = 0.1
    """Fraction of the longer side of a box added at each end of its crop."""


class Pipeline:
    """A classifier and, for pictures of several pills, a detector."""

    def __init__(
        self,
        classifier: ClassifierEngine,
        detector: DetectorEngine | Callable[[], DetectorEngine],
        settings: InferenceSettings | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """Put models together.

        Args:
            classifier: Names the pills.
            detector: Finds them; a function is called for it on the first picture that needs it.
            settings: None takes the specification's values.
            calibration: Of this classifier; None: confidences are the model's own, and nothing is refused.
        """
        self.classifier = classifier
        self.settings = settings or InferenceSettings()
        self.calibration = calibration
        self._detector = detector

    @classmethod
    def from_experiment(cls, exp_dir: Path, device: torch.device | None = None) -> Pipeline:
        """Load the best models of an experiment.

        Args:
            exp_dir: Folder with `checkpoints/best.pt`, its `calibration.json`, and, for modes combo and auto,
                `checkpoints/detection_best.pt`. The latter is read on the first picture in these modes when the
                experiment's `inference.lazy_load_detector` is on or when it does not exist.
            device: None takes CUDA where there is one.

        Raises:
            CheckpointError: A checkpoint is missing, or it or the calibration cannot be used.
        """
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        path = exp_dir / CLASSIFIER_FILE
        checkpoint = read_checkpoint(path, "classification")
        names = ("conf_threshold", "iou_threshold", "max_detections", "crop_padding", "lazy_load_detector")
        values = {name: part(checkpoint, path, "config_snapshot", "inference", name) for name in names}
        is_lazy = values.pop("lazy_load_detector")

        def detector() -> DetectorEngine:
            file = exp_dir / DETECTOR_FILE
            return load_detector(read_checkpoint(file, "detection"), file, device)

        classifier = load_classifier(checkpoint, path, device)
        pipeline = cls(classifier, detector, InferenceSettings(**values), Calibration.load(exp_dir))
        if not is_lazy and (exp_dir / DETECTOR_FILE).is_file():
            pipeline.load_detector()
        return pipeline

    def load_detector(self) -> DetectorEngine:
        """Return the detector, loaded now if it was not yet."""
        if not isinstance(self._detector, DetectorEngine):
            self._detector = self._detector()
        return self._detector

    def classify_crops(self, views_NHWC: ImageBatch) -> FloatArray:
        """Return probabilities (N, C) float32 for prepared views, uint8 (N, S, S, 3), in one batch."""
        return self.classifier.probabilities(views_NHWC)

    def detect(self, images: Sequence[RgbImage], conf_threshold: float | None = None) -> list[Detections]:
        """Find the pills of pictures of any size, in one batch.

        Args:
            images: uint8 (H, W, 3) RGB each.
            conf_threshold: Boxes with a score not above this are dropped; None takes the settings' value.
        """
        if not images:
            return []
        detector = self.load_detector()
        fitted = [letterbox(image, detector.size_px) for image in images]
        raw = detector.predictions(np.stack([pixels for pixels, _ in fitted]))
        settings = self.settings
        conf_threshold = settings.conf_threshold if conf_threshold is None else conf_threshold
        kept = non_max_suppression(raw, conf_threshold, settings.iou_threshold, settings.max_detections)
        return [_in_picture(boxes, geometry.to_image) for boxes, (_, geometry) in zip(kept, fitted, strict=True)]

    def predict(
        self, image: Path | str | RgbImage, mode: str = "single", conf_threshold: float | None = None
    ) -> Answer:
        """Answer one photograph.

        Args:
            image: A picture file, or uint8 (H, W, 3) RGB.
            mode: `single`: one pill, the whole picture is classified. `combo`: any number of pills. `auto`: both are
                tried, and the detector's boxes decide (`routing.py`).
            conf_threshold: Least score of a detected box, 0..1; None takes the settings' value. Mode single always
                answers.

        Raises:
            ConfigError: Unknown mode or threshold out of range.
            BrokenImageError: The picture cannot be decoded, or the array is not one.
            CheckpointError: Mode combo or auto, but the experiment has no usable detector.
        """
        _require_choice(mode, conf_threshold)
        if mode != "single":
            self.load_detector()  # before the clock starts: only the first picture waits for it
        clock = _Clock()
        with clock.measure("decode"):
            pixels = decode_rgb(Path(image)) if isinstance(image, (Path, str)) else _checked_rgb(image)
        found: Detections | None = None
        if mode != "single":
            with clock.measure("detect"):
                found = self.detect([pixels], conf_threshold)[0]
        height, width = pixels.shape[:2]
        gate: float | None = None
        reason: FallbackReason | None = "manual_combo" if mode == "combo" else None
        single = [] if mode == "combo" else self._pills(pixels, None, clock)
        if mode == "auto":
            assert found is not None
            frame_fit = self.classifier.spec.frame_fit
            gate = gating_score(found.boxes_xyxy, found.scores, (width, height), frame_fit)
            confidence, is_refused = single[0]["confidence"], bool(single[0]["is_unknown"])
            reason = choose_route(gate, len(found.scores), confidence, is_refused=is_refused).fallback_reason
        return Answer(
            mode_used="single" if reason is None else "combo",
            pills=single if reason is None else self._pills(pixels, found, clock),
            image_size_wh=[width, height],
            gating_score=gate,
            single_confidence=single[0]["confidence"] if single else None,
            fallback_reason=reason,
            elapsed_ms=clock.read(),
        )

    def _pills(self, pixels: RgbImage, found: Detections | None, clock: _Clock) -> list[Pill]:
        """Answer the pills in boxes, or the whole picture where there are no boxes to look at (`found` is None)."""
        boxes_xyxy = None if found is None else found.boxes_xyxy
        with clock.measure("classify"):
            probabilities_NC = self.classify_crops(self._views(pixels, boxes_xyxy))
        scores: list[float | None] = [None] * len(probabilities_NC)
        if self.calibration is not None and len(probabilities_NC):
            with clock.measure("compare"):
                probabilities_NC = self.calibration.probabilities(probabilities_NC)
                scores = list(self._scores(pixels, boxes_xyxy, probabilities_NC, self.calibration))
        return [
            self._pill(row, score, None if found is None else (found.boxes_xyxy[index], found.scores[index]))
            for index, (row, score) in enumerate(zip(probabilities_NC, scores, strict=True))
        ]

    def _scores(
        self, pixels: RgbImage, boxes_xyxy: FloatArray | None, probabilities_NC: FloatArray, calibration: Calibration
    ) -> list[float]:
        frame_fit = self.classifier.spec.frame_fit
        boxes = [None] if boxes_xyxy is None else list(boxes_xyxy)
        looks = np.stack([describe(pixels, box, frame_fit) for box in boxes])
        best = probabilities_NC.argmax(axis=1)
        confidence = probabilities_NC[np.arange(len(best)), best]
        return [float(score) for score in calibration.scores(confidence, best, looks)]

    def _views(self, pixels: RgbImage, boxes_xyxy: FloatArray | None) -> ImageBatch:
        spec = self.classifier.spec
        if boxes_xyxy is None:
            return frame_view(pixels, spec)[None]
        views = [box_view(pixels, box, spec, self.settings.crop_padding) for box in boxes_xyxy]
        return np.stack(views) if views else np.zeros((0, spec.size_px, spec.size_px, 3), np.uint8)

    def _pill(
        self, probabilities_C: FloatArray, score: float | None, place: tuple[FloatArray, np.floating[Any]] | None
    ) -> Pill:
        """Return one pill of the answer; `place` is its box and the detector's score."""
        class_map = self.classifier.class_map
        # Ties are broken by the class number, so that an answer never depends on the sort's implementation.
        best = np.argsort(-probabilities_C, kind="stable")[:NUM_CANDIDATES]
        codes = [class_map.codes[number] for number in best]
        top5 = [
            Candidate(code=code, name=class_map.names.get(code), confidence=float(probabilities_C[number]))
            for code, number in zip(codes, best, strict=True)
        ]
        is_unknown = None if score is None or self.calibration is None else score < self.calibration.threshold
        return Pill(
            code=UNKNOWN_CODE if is_unknown else top5[0]["code"],
            name=None if is_unknown else top5[0]["name"],
            confidence=top5[0]["confidence"],
            is_unknown=is_unknown,
            accept_score=score,
            top5=top5,
            box_xyxy=None if place is None else [float(value) for value in place[0]],
            detection_confidence=None if place is None else float(place[1]),
        )


def predict_pipeline(
    image: Path | str | RgbImage,
    mode: str = "single",
    conf_threshold: float = 0.3,
    *,
    exp_dir: str | Path | None = None,
) -> Answer:
    """Answer one photograph with the best models of an experiment; loaded models are kept for the next call.

    Args:
        image: A picture file, or uint8 (H, W, 3) RGB.
        mode: `single`, `combo` or `auto`.
        conf_threshold: Least score of a detected box, 0..1.
        exp_dir: The experiment; None takes `paths.exp_dir` of `config.yaml` in the current folder.

    Raises:
        ConfigError: Unknown mode, threshold out of range, or no usable `config.yaml`.
        CheckpointError: The experiment has no usable model for this mode.
        BrokenImageError: The picture cannot be decoded.
    """
    _require_choice(mode, conf_threshold)
    folder = default_exp_dir() if exp_dir is None else Path(exp_dir)
    # The time of writing is part of the key: a training that goes on replaces its best checkpoints.
    files = (folder / CLASSIFIER_FILE, folder / DETECTOR_FILE, folder / CALIBRATION_FILE)
    written = tuple(file.stat().st_mtime_ns if file.is_file() else None for file in files)
    return _loaded_pipeline(folder.resolve(), written).predict(image, mode, conf_threshold)


def default_exp_dir() -> Path:
    """Return the experiment that `config.yaml` in the current folder names."""
    return Path(load_config(Path("config.yaml")).paths.exp_dir)


@functools.lru_cache(maxsize=2)
def _loaded_pipeline(exp_dir: Path, written: tuple[int | None, ...]) -> Pipeline:
    return Pipeline.from_experiment(exp_dir)


def _require_choice(mode: str, conf_threshold: float | None) -> None:
    if mode not in MODES:
        raise ConfigError(f"mode is {mode!r}. Choose one of: {', '.join(MODES)}.")
    if conf_threshold is not None and not 0 <= conf_threshold <= 1:
        raise ConfigError(f"conf_threshold is {conf_threshold}. Give a number from 0 to 1.")


def _checked_rgb(image: RgbImage) -> RgbImage:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise BrokenImageError(
            f"the picture is an array of {image.dtype} with shape {image.shape}; uint8 (height, width, 3) in RGB order "
            "was wanted. Convert it, or pass the path of the file."
        )
    return image


def _in_picture(boxes_N5: torch.Tensor, to_image: Callable[[FloatArray], FloatArray]) -> Detections:
    values = boxes_N5.cpu().numpy().astype(np.float32)
    boxes_xyxy = to_image(values[:, :4])
    visible = area_xyxy(boxes_xyxy) >= MIN_BOX_AREA_PX  # a box in the grey margin has none in the picture
    return Detections(boxes_xyxy[visible], values[visible, 4])


class _Clock:
    """Milliseconds of named phases since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._phases: dict[str, float] = {}

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._phases[phase] = self._phases.get(phase, 0.0) + 1000 * (time.perf_counter() - start)

    def read(self) -> dict[str, float]:
        return {**self._phases, "total": 1000 * (time.perf_counter() - self._start)}
