import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import log_loss

from pillsnap.evaluation import temperature as temperature_module
from pillsnap.evaluation.logit_store import LogitStore
from pillsnap.evaluation.temperature import fit_temperature, mean_nll

Floats = NDArray[np.float64]


def drawn(num_pills: int, num_classes: int = 6, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Logits, and classes drawn with the probabilities that these logits stand for."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num_pills, num_classes))
    classes = np.array([rng.choice(num_classes, p=row) for row in softmax(logits, axis=1)])
    return logits, classes


@pytest.mark.req("VAL-1")
@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_factor_that_made_a_model_too_sure_is_found(factor: float) -> None:
    logits, classes = drawn(20_000)
    assert fit_temperature(LogitStore.of(factor * logits), classes) == pytest.approx(factor, rel=0.05)


@pytest.mark.req("VAL-1")
@pytest.mark.parametrize("seed", range(20))
def test_no_other_temperature_is_more_likely(seed: int) -> None:
    logits, classes = drawn(400, seed=seed)
    store = LogitStore.of(2.5 * logits)
    found = fit_temperature(store, classes)
    grid = [mean_nll(store, classes, value) for value in np.geomspace(0.3, 12, 200)]
    assert mean_nll(store, classes, found) <= min(grid) + 1e-3  # the smoothing moves it a little


@pytest.mark.req("VAL-1")
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_likelihood_is_scikit_learns(temperature: float) -> None:
    logits, classes = drawn(300)
    expected = log_loss(classes, softmax(logits / temperature, axis=1), labels=range(6))
    assert mean_nll(LogitStore.of(logits), classes, temperature) == pytest.approx(expected, abs=1e-3)


@pytest.mark.req("VAL-1")
def test_a_model_without_a_mistake_is_not_made_certain() -> None:
    logits = np.eye(4)[np.arange(40) % 4] * 5.0
    temperature = fit_temperature(LogitStore.of(logits), np.arange(40) % 4)
    confidence = softmax(logits / temperature, axis=1).max()
    assert confidence == pytest.approx(41 / 42, abs=1e-3)  # Platt's target for 40 of 40


def test_of_many_pills_a_choice_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, classes = drawn(20_000)
    whole = fit_temperature(LogitStore.of(logits), classes)
    monkeypatch.setattr(temperature_module, "MAX_PILLS", 5_000)
    part = fit_temperature(LogitStore.of(logits), classes)
    assert part != whole
    assert part == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("function", [fit_temperature, mean_nll])
@pytest.mark.parametrize(
    ("classes", "text"),
    [([], "got 3 rows of logits and class numbers of shape"), ([0, 1, -1], "reach from -1 to 1"), ([0, 1, 2], "to 2;")],
)
def test_labels_that_do_not_fit_are_refused(function: object, classes: list[int], text: str) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match=text):
        function(LogitStore.of(np.zeros((3, 2))), np.array(classes, np.int64))
