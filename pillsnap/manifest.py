"""The manifest of an experiment's checkpoints: JSON that names its own SHA-256, written twice.

`manifest.copy.json` is as `manifest.json` and used when that one is damaged. Training writes both; the test split's
seal asks them whether training is over, which is why this lies below both.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from pillsnap.errors import CheckpointError, PillError
from pillsnap.jsonfile import read_json

logger = logging.getLogger("pillsnap")

MANIFEST_NAME = "manifest.json"
COPY_NAME = "manifest.copy.json"
SEAL = "sha256"


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest with its SHA-256."""
    return {**manifest, SEAL: _digest(manifest)}


def is_sealed_as(path: Path, sealed: dict[str, Any]) -> bool:
    """Tell whether exactly this sealed manifest lies at `path`."""
    try:
        return read_json(path) == sealed
    except PillError:
        return False


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the newest manifest in a folder of checkpoints that is as it was written, without its seal.

    Returns:
        None when there is no manifest, or only damaged ones.

    Raises:
        CheckpointError: None is whole among those that could be read, and one could not be read, which says nothing
            about what it holds.
    """
    unreadable: PillError | None = None
    for path in (folder / MANIFEST_NAME, folder / COPY_NAME):
        try:
            sealed = read_json(path)
        except PillError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                continue
            if isinstance(error.__cause__, OSError):
                unreadable = unreadable or error
                continue
            sealed = {}
        manifest = {key: value for key, value in sealed.items() if key != SEAL}
        if sealed.get(SEAL) == _digest(manifest):
            return manifest
        logger.warning("%s is damaged: it is not JSON with the SHA-256 that it names", path)
    if unreadable is not None:
        raise CheckpointError(
            f"The manifest of the checkpoints in {folder} cannot be read now: {unreadable} Nothing was changed; try "
            "again once it can be read."
        ) from unreadable
    return None


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
