"""The selection of a run as files from which others get the same pictures on the same sides.

`selection.csv` lists the pictures (image_path, mapping_code, image_type, source, split); given back as
`data.manifest=selection.csv` it makes the same run, because the split follows from group names and the seed alone.
`selection.json` tells how it came about.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from omegaconf import DictConfig

from pillsnap.atomicfile import atomic_path
from pillsnap.data import columns
from pillsnap.data.balance import verify_class_balance
from pillsnap.data.selection import stage_limits
from pillsnap.data.twostage import TwoStageData
from pillsnap.jsonfile import save_json

CSV_NAME = "selection.csv"  # in the experiment folder; selection.json lies beside it


def write_selection(data: TwoStageData, cfg: DictConfig, csv_path: Path) -> dict[str, Any]:
    """Write the selection of a run: `csv_path`, and beside it the same name with `.json`.

    Args:
        data: What the run uses.
        cfg: Its configuration.
        csv_path: The file to write; its folder must exist.

    Returns:
        What the JSON file holds: seed, stage, limits, counts, digest of the split, class balance.

    Raises:
        PillError: A file cannot be written.
    """
    facts = selection_facts(data, cfg)
    with atomic_path(csv_path) as temporary:
        pa.csv.write_csv(_table(data), str(temporary), pa.csv.WriteOptions(quoting_style="needed"))
    save_json(csv_path.with_suffix(".json"), facts)
    return facts


def selection_facts(data: TwoStageData, cfg: DictConfig) -> dict[str, Any]:
    """Return how the selection of a run came about, and its figures, as plain data."""
    limits = stage_limits(cfg)
    return {
        "stage": cfg.data.progressive_validation.current_stage,
        "seed": cfg.data.split.seed,
        "limits": {
            "max_samples": limits.max_samples,
            "max_classes": limits.max_classes,
            "min_images_per_class": limits.min_images,
        },
        "split": {
            "policy": cfg.data.split.policy,
            "val_fraction": cfg.data.split.val_fraction,
            "test_fraction": cfg.data.split.test_fraction,
            "digest": data.digest(),
            "counts": data.counts(),
        },
        "selection": data.selection,
        "class_balance": verify_class_balance(
            data.records, data.split, data.class_map, minimum=cfg.data.progressive_validation.min_images_per_class
        ),
    }


def _table(data: TwoStageData) -> pa.Table:
    """Return the lines of the CSV file; a combination's class key is those of its pills, joined."""
    records = data.records
    joined = pc.binary_join(columns.array_of(records, "box_codes"), "+")
    return pa.table(
        {
            "image_path": columns.array_of(records, "image_path"),
            "mapping_code": pc.coalesce(columns.array_of(records, "code"), joined),
            "image_type": columns.array_of(records, "task"),
            "source": columns.array_of(records, "source"),
            "split": pa.array(data.split, pa.string()),
        }
    )
