"""Small configurations for tests, and the report they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pillsnap.config.loading import load_config
from pillsnap.errors import ConfigError

REPOSITORY = Path(__file__).parents[3]
ROOT_CONFIG = REPOSITORY / "config.yaml"


def write_child(folder: Path, text: str, *, name: str = "child.yaml", parent: Path | str = ROOT_CONFIG) -> Path:
    """Write a configuration whose first line extends `parent`; `text` begins at line 2."""
    path = folder / name
    path.write_text(f"extends: {parent}\n{text}", "utf-8")
    return path


def report_of(cfg_path: Path | str, overrides: Sequence[str] = ()) -> list[str]:
    """Return the lines of the error that loading must raise, one a problem, without the heading."""
    with pytest.raises(ConfigError) as caught:
        load_config(cfg_path, overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]
