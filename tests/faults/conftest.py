"""One synthetic data set and the weights of a run that nothing happened to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
from tests.faults.processes import train_in_fork
from tests.faults.weights import weights_hash
from tests.run.tiny import tiny_config


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw the tiny data set once; runs re-use it."""
    root = tmp_path_factory.mktemp("faults") / "data"
    draw_dataset(root, SyntheticSpec(**tiny_config(root.parent / "exp", root).data.synthetic), num_processes=1)
    return root


@pytest.fixture(scope="session")
def expected_hash(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Train both tiny models once, without a fault."""
    exp_dir = tmp_path_factory.mktemp("uninterrupted") / "exp"
    child = train_in_fork(exp_dir, data_root)
    assert child.wait() == 0, child.text()
    return weights_hash(exp_dir)
