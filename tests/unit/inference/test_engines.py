import numpy as np
import pytest

from pillsnap.inference.engines import ClassifierEngine, DetectorEngine
from tests.unit.inference.builders import COLOURS, SPEC, ColourClassifier, FixedDetector, painted_picture


def test_probabilities_are_the_softmax_of_the_models_answer() -> None:
    views = np.zeros((2, 32, 32, 3), np.uint8)
    views[0, ..., 0] = views[1, ..., 2] = 255
    found = ClassifierEngine(ColourClassifier(), SPEC, COLOURS).probabilities(views)
    sure = np.exp(20) / (np.exp(20) + 2)
    np.testing.assert_allclose(found, [[sure, *[(1 - sure) / 2] * 2], [*[(1 - sure) / 2] * 2, sure]], atol=1e-7)
    assert found.dtype == np.float32


def test_no_views_give_no_rows() -> None:
    engine = ClassifierEngine(ColourClassifier(), SPEC, COLOURS)
    assert engine.probabilities(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, 3)


@pytest.mark.req("PRC-4")
def test_engines_compute_without_gradients() -> None:
    inputs = painted_picture()[None, :128, :128]
    assert not DetectorEngine(FixedDetector([[1, 2, 3, 4, 0.5]]), 128).predictions(inputs).requires_grad
