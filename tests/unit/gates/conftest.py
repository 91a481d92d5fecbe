from pathlib import Path

import pytest

from tests.unit.gates.checked import copy_of, write_checked_experiment


@pytest.fixture(scope="session")
def sound_experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment to read from, and to copy by `copy_of`."""
    folder = tmp_path_factory.mktemp("checked")
    return write_checked_experiment(folder / "exp", folder / "data")


@pytest.fixture
def experiment(sound_experiment: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return copy_of(sound_experiment, tmp_path / "exp")
