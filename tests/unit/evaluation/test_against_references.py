"""Every figure against the library that others would compute it with, on 200 random cases each."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO  # type: ignore[import-untyped]
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score

from pillsnap.evaluation.classification import classification_figures, evaluate_classification_metrics
from pillsnap.evaluation.detection import evaluate_detection_metrics
from pillsnap.evaluation.unknown import auroc
from tests.unit.evaluation.classifier_case import softmax, streamed
from tests.unit.evaluation.detection_case import Picture, random_pictures

SEEDS = range(200)


@pytest.mark.req("VAL-1")
@pytest.mark.parametrize("seed", SEEDS)
def test_classification_figures_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, classes = int(rng.integers(1, 200)), int(rng.integers(6, 40))
    true = rng.integers(0, classes, size)
    logits = (rng.normal(0, 2, (size, classes)) + 3 * np.eye(classes)[true]).astype(np.float32)
    prob, pred, labels = softmax(logits), logits.argmax(1), np.arange(classes)
    wanted = {
        "accuracy": accuracy_score(true, pred),
        "macro_f1": f1_score(true, pred, average="macro", zero_division=0),
        "top5": top_k_accuracy_score(true, prob, k=5, labels=labels),
        "nll": log_loss(true, prob, labels=labels),
    }
    for figures in (evaluate_classification_metrics(true, pred, prob), classification_figures(streamed(logits, true))):
        assert {name: figures[name] for name in wanted} == pytest.approx(wanted, abs=2e-6)


@pytest.mark.req("FIN-3")
@pytest.mark.parametrize("seed", SEEDS)
def test_auroc_equals_counting_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, unknown = rng.normal(1, 1, int(rng.integers(1, 60))), rng.normal(0, 1, int(rng.integers(1, 60)))
    if seed % 2:
        known, unknown = known.round(), unknown.round()  # with ties
    above, equal = known[:, None] > unknown, known[:, None] == unknown
    assert auroc(known, unknown) == pytest.approx(np.mean(above + equal / 2), abs=1e-12)


def by_pycocotools(predictions: list[Picture], targets: list[Picture]) -> tuple[float, float]:
    """Return mAP@0.5 and mAP@0.5:0.95 of the COCO reference implementation."""
    images = [{"id": number} for number in range(1, len(targets) + 1)]
    labelled: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    for number, (prediction, target) in enumerate(zip(predictions, targets, strict=True), start=1):
        for box in target["boxes_xyxy"]:
            labelled.append(annotation(number, box) | {"id": len(labelled) + 1, "iscrowd": 0})
        for box, score in zip(prediction["boxes_xyxy"], prediction["scores"], strict=True):
            found.append(annotation(number, box) | {"score": float(score), "id": len(found) + 1})
    with contextlib.redirect_stdout(io.StringIO()):
        truth, answers = COCO(), COCO()
        truth.dataset = {"images": images, "categories": [{"id": 1}], "annotations": labelled}
        answers.dataset = {"images": images, "categories": [{"id": 1}], "annotations": found}
        truth.createIndex()
        answers.createIndex()
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1]), float(evaluation.stats[0])


def annotation(image: int, box: np.ndarray) -> dict[str, object]:
    x_min, y_min, x_max, y_max = box  # float32, as the boxes are
    width, height = x_max - x_min, y_max - y_min
    corners = [float(x_min), float(y_min), float(width), float(height)]
    return {"image_id": image, "category_id": 1, "bbox": corners, "area": float(width * height)}


@pytest.mark.req("VAL-2")
@pytest.mark.parametrize("seed", SEEDS)
def test_map_equals_pycocotools(seed: int) -> None:
    noise = 130 if seed % 10 == 0 else 8  # now and then more than the 100 boxes that count
    predictions, targets = random_pictures(seed, has_ties=seed % 2 == 0, num_noise=noise)
    figures = evaluate_detection_metrics(predictions, targets)
    found = (figures["mAP@0.5"], figures["mAP@0.5:0.95"])
    assert found == pytest.approx(by_pycocotools(predictions, targets), abs=1e-6)
