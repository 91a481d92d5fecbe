from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.images import image_size_wh
from pillsnap.evaluation.calibration_error import reliability_bins
from pillsnap.evaluation.plot_calibration import plot_calibration
from pillsnap.evaluation.plot_risk_coverage import plot_risk_coverage
from pillsnap.evaluation.unknown import evaluate_unknown


@pytest.mark.req("RPT-1")
@pytest.mark.parametrize("num_answers", [1, 300])
def test_reliability_is_drawn_for_any_number_of_answers(tmp_path: Path, num_answers: int) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, num_answers)
    bins = reliability_bins(confidence, rng.random(num_answers) < confidence)
    assert image_size_wh(plot_calibration(bins, bins, 1.37, tmp_path / "calibration.png"))[0] > 600


@pytest.mark.req("RPT-1", "FIN-3")
@pytest.mark.parametrize("num_unknown", [0, 40])
@pytest.mark.parametrize("threshold", [0.5, 2.0], ids=["some named", "none named"])
def test_risk_is_drawn_with_and_without_unknown_pills(tmp_path: Path, num_unknown: int, threshold: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(60)
    figures = evaluate_unknown((scores, scores > 0.2), rng.random(num_unknown), threshold)
    path = plot_risk_coverage(figures, tmp_path / "risk_coverage.png", 0.01)
    assert image_size_wh(path)[0] > 600
