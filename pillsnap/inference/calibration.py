"""What turns a model's outputs into answers that may be given: temperature, acceptance score, threshold.

Written by the judging of an experiment (`evaluation/refusal.py`) as `calibration.json` and, for the looks of the
training pills, `calibration.npz`. It belongs to one file of weights, whose hash it holds: for other weights it would
give numbers that mean nothing, so it is not used for them.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.atomicfile import atomic_path, sha256_of
from pillsnap.boxes import FloatArray
from pillsnap.errors import CheckpointError, PillError
from pillsnap.inference.acceptance import Acceptance
from pillsnap.inference.appearance import RECIPE, Appearance, Descriptors
from pillsnap.inference.checkpoints import CLASSIFIER_FILE
from pillsnap.jsonfile import read_json, save_json

logger = logging.getLogger("pillsnap")

JSON_FILE, ARRAYS_FILE = "calibration.json", "calibration.npz"
SCORE = "acceptance"
_ARRAYS = ("references", "labels", "whitening")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How far to believe one classifier, and when to answer "unknown"."""

    temperature: float
    """Divides the logits."""
    acceptance: Acceptance
    threshold: float
    """An answer with a score of at least this is given."""
    appearance: Appearance | None
    """What the training pills look like; None where none could be measured."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the file says: `wanted_error`, `fitted_on`, `bins`."""

    def probabilities(self, probabilities_NC: FloatArray) -> FloatArray:
        """Return softmax(logits / temperature), float32 (N, C), given the softmax of the logits themselves."""
        if self.temperature == 1.0:
            return probabilities_NC
        # p ** (1 / T), normalised: the same as dividing the logits, which not every engine gives.
        logs = np.log(np.maximum(probabilities_NC.astype(np.float64), np.finfo(np.float64).tiny)) / self.temperature
        powers = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

    def scores(
        self, confidence: FloatArray, classes: NDArray[np.integer[Any]], descriptors: Descriptors
    ) -> NDArray[np.float32]:
        """Return the acceptance scores of N answers, float32 (N,) in 0..1.

        Args:
            confidence: (N,) calibrated probability of the named drug.
            classes: (N,) its class number.
            descriptors: (N, F) from `describe`.
        """
        distances = np.full(len(classes), np.inf, np.float32)
        if self.appearance is not None:
            distances = self.appearance.distances(descriptors, classes)
        return self.acceptance.score(confidence, distances)

    def save(self, exp_dir: Path, checkpoint: Path) -> None:
        """Write both files into an experiment's folder.

        Args:
            exp_dir: The experiment.
            checkpoint: The classifier's weights that this was fitted for.

        Raises:
            PillError: A file cannot be written.
        """
        looks = self.appearance
        if looks is not None:
            try:
                with atomic_path(exp_dir / ARRAYS_FILE) as temporary, temporary.open("wb") as sink:
                    np.savez_compressed(sink, **{name: getattr(looks, name) for name in _ARRAYS})
            except OSError as error:
                raise PillError(
                    f"{exp_dir / ARRAYS_FILE} cannot be written: {error.strerror or error}; wanted room for the looks "
                    "of the training pills. Free space or make the folder writable, and judge the experiment again."
                ) from error
        content = {
            "temperature": self.temperature,
            "score": SCORE,
            "threshold": self.threshold,
            "weights": self.acceptance.to_dict(),
            "checkpoint": sha256_of(checkpoint),
            "recipe": RECIPE,
            "arrays": None if looks is None else sha256_of(exp_dir / ARRAYS_FILE),
            **self.facts,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        save_json(exp_dir / JSON_FILE, content)

    @classmethod
    def load(cls, exp_dir: Path) -> Calibration | None:
        """Read what `save` wrote.

        Returns:
            None where the experiment has none, or one for other weights than its `checkpoints/best.pt`; the log says
            so in the second case.

        Raises:
            CheckpointError: A file is damaged, or one of both is missing.
        """
        path = exp_dir / JSON_FILE
        if not path.is_file():
            return None
        try:
            content = read_json(path)
            if why := _not_for(content, exp_dir / CLASSIFIER_FILE):
                logger.warning("%s is not used: %s. Judge the experiment again to be told unknown pills.", path, why)
                return None
            return cls(
                temperature=float(content["temperature"]),
                acceptance=Acceptance(**content["weights"]),
                threshold=float(content["threshold"]),
                appearance=_read_looks(exp_dir / ARRAYS_FILE, content["arrays"]),
                facts={key: content[key] for key in ("wanted_error", "fitted_on", "bins") if key in content},
            )
        except (KeyError, TypeError, ValueError, OSError, PillError, zipfile.BadZipFile) as error:
            raise CheckpointError(
                f"the calibration in {exp_dir} cannot be used: {type(error).__name__}: {error}; wanted {JSON_FILE} and "
                f"{ARRAYS_FILE} as one judging of the experiment wrote them. Copy both again, judge the experiment "
                f"again, or delete {JSON_FILE} to get answers that never say unknown."
            ) from error


def _not_for(content: Mapping[str, Any], checkpoint: Path) -> str | None:
    """Return why a calibration cannot be used with these weights and this version; None where it can."""
    if content["recipe"] != RECIPE:
        return f"it measures looks by recipe {content['recipe']}, this version by {RECIPE}"
    if content["checkpoint"] != sha256_of(checkpoint):
        return f"it was fitted to other weights than {checkpoint.name} holds"
    return None


def _read_looks(path: Path, digest: str | None) -> Appearance | None:
    if digest is None:
        return None
    if sha256_of(path) != digest:
        raise ValueError(f"{path.name} is not the file that {JSON_FILE} was written with")
    with np.load(path) as arrays:
        return Appearance(**{name: arrays[name] for name in _ARRAYS})
