"""The experiment that is being checked: its files, models and data, each read once, when a producer first asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from omegaconf import DictConfig

from pillsnap.config.loading import load_experiment_config
from pillsnap.data.selection_file import CSV_NAME
from pillsnap.data.twostage import TwoStageData, load_data
from pillsnap.errors import DataError, PillError
from pillsnap.evaluation.prediction_table import PredictionTable, read_predictions
from pillsnap.gates.evidence import EVIDENCE_DIR
from pillsnap.inference.pipeline import Pipeline
from pillsnap.jsonfile import read_json, save_json

RUN_FILE = "reports/run.json"
METRICS_FILE = "reports/metrics.json"
PREDICTIONS_FILE = "reports/predictions_val.arrow"
SELECTION_COLUMNS = ("image_path", "mapping_code", "image_type", "split")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOptions:
    """What a user says about how and against what to check."""

    minutes: float = 10.0
    """Of the stability test."""
    predictions: int = 600
    """Of the memory leak test, after its warm-up."""
    scale_pictures: int = 256
    """Pictures of the smallest of the scalability test's three passes."""
    api_url: str | None = None
    """Of the service as it was deployed, such as `http://127.0.0.1:8000`."""
    api_key: str = field(default="", repr=False)
    public_url: str | None = None
    """Of the same service as the world sees it."""
    is_public_url_stand_in: bool = False
    """The public address is a stand-in on this machine, which need not speak TLS."""
    prometheus_url: str | None = None


@dataclass
class Subject:
    """An experiment under check."""

    exp_dir: Path
    options: CheckOptions = field(default_factory=CheckOptions)

    @cached_property
    def cfg(self) -> DictConfig:
        """The configuration it was trained with.

        Raises:
            ConfigError: There is none, or it is of another version.
        """
        return load_experiment_config(self.exp_dir)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that were trained."""
        return list(self.cfg.train.tasks)

    @cached_property
    def run(self) -> dict[str, Any]:
        """The facts of the run (`reports/run.json`).

        Raises:
            PillError: They are missing or damaged.
        """
        return read_json(self.exp_dir / RUN_FILE)

    def fact(self, *keys: str) -> Any:
        """Return a nested value of the run's facts.

        Raises:
            PillError: There is none.
        """
        value: Any = self.run
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                raise PillError(
                    f"{RUN_FILE} lacks {'.'.join(keys)}, which a run writes at its end. The run did not come to its "
                    "end, or another version wrote it: go on with train.resume=last, or train again."
                )
            value = value[key]
        return value

    @cached_property
    def pipeline(self) -> Pipeline:
        """The best models, on the GPU where there is one.

        Raises:
            CheckpointError: A checkpoint is missing or cannot be used.
        """
        return Pipeline.from_experiment(self.exp_dir)

    @cached_property
    def data(self) -> TwoStageData:
        """The data set as it lies there now, taken and split as for the run.

        Raises:
            DataError: It is missing or cannot be used.
        """
        return load_data(self.cfg)

    @cached_property
    def predictions(self) -> PredictionTable:
        """What the run's own evaluation answered for every pill of the val split.

        Raises:
            DataError: The file is missing or damaged.
        """
        return read_predictions(self.exp_dir / PREDICTIONS_FILE)

    @cached_property
    def selection(self) -> pa.Table:
        """The pictures of the run, as strings: image_path, mapping_code, image_type, split.

        Raises:
            DataError: The file is missing or damaged.
        """
        path = self.exp_dir / CSV_NAME
        try:
            return pa.csv.read_csv(
                path,
                convert_options=pa.csv.ConvertOptions(
                    include_columns=SELECTION_COLUMNS, column_types=dict.fromkeys(SELECTION_COLUMNS, pa.string())
                ),
            )
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise DataError(
                f"{path} cannot be used: {error}; wanted the list of the run's pictures with the columns "
                f"{', '.join(SELECTION_COLUMNS)}. Copy it back, or train again."
            ) from error

    def val_pictures(self, kind: str, most: int) -> list[Path]:
        """Return pictures of the val split, spread over all of them.

        Args:
            kind: `single` or `combo`.
            most: At most so many.

        Raises:
            DataError: The list of the run's pictures is missing or damaged.
        """
        table = self.selection
        is_wanted = pc.and_(pc.equal(table.column("image_type"), kind), pc.equal(table.column("split"), "val"))
        paths = table.column("image_path").filter(is_wanted)
        return [Path(self.cfg.data.root) / paths[place].as_py() for place in spread(len(paths), most)]

    def write(self, name: str, content: dict[str, Any]) -> str:
        """Write what a producer measured as evidence and return the file's path below the experiment's folder.

        Raises:
            PillError: It cannot be written.
        """
        folder = self.exp_dir / EVIDENCE_DIR
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PillError(
                f"the folder {folder} cannot be made: {error.strerror}; wanted a place for evidence. Check permissions."
            ) from error
        file = EVIDENCE_DIR / f"{name}.json"
        save_json(self.exp_dir / file, content)
        return file.as_posix()


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` places of `count`, evenly spread, ascending."""
    chosen = np.linspace(0, count - 1, min(most, count)).round().astype(int)
    return list(dict.fromkeys(chosen.tolist()))
