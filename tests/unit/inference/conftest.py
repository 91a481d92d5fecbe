from pathlib import Path

import pytest

from tests.unit.inference.builders import write_experiment


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained experiment to read from; tests that change one write their own."""
    return write_experiment(tmp_path_factory.mktemp("실험 one") / "exp01")
