"""Pictures that lie on two sides of the split: those of one group, and copies of one photograph.

Scores on pictures whose twins were trained on are too good, so a run stops before it trains (`data.split.leakage`
is `error`) or says so and goes on (`warn`). Pictures of drugs the models never see are on no side.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from pillsnap.data import columns
from pillsnap.data.images import decode_reduced
from pillsnap.data.near_copies import CLOSE_LOOK_PX, find_copies, is_same_photograph
from pillsnap.data.splits import SIDES, UNKNOWN, leaking_groups
from pillsnap.data.thumbnails import load_thumbnails
from pillsnap.data.twostage import TwoStageData
from pillsnap.errors import BrokenImageError, DataError
from pillsnap.jsonfile import save_json

logger = logging.getLogger("pillsnap")

FILE_NAME = Path("reports", "leakage.json")  # below the experiment's folder
NUM_LISTED = 5


@dataclass(frozen=True, slots=True)
class Copy:
    """Two pictures on two sides that show one photograph."""

    first: str
    first_side: str
    second: str
    second_side: str
    mean_difference: float
    """Of their thumbnails, in grey levels."""

    def __str__(self) -> str:
        """Return both with their sides."""
        return f"{self.first} ({self.first_side}) and {self.second} ({self.second_side})"


@dataclass(frozen=True, slots=True)
class LeakageReport:
    """What lies on two sides."""

    groups: list[str]
    copies: list[Copy] | None
    """None: nobody looked."""
    is_complete: bool
    """False when there are more pairs of copies, or of pictures that look like copies, than are listed or looked at."""
    num_pictures: int
    """Pictures that were compared; broken ones are left out."""

    @property
    def has_leaks(self) -> bool:
        """Anything lies on two sides."""
        return bool(self.groups or self.copies)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"has_leaks": self.has_leaks, **asdict(self)}

    def __str__(self) -> str:
        """Return what was found in one sentence, the first of each kind named."""
        parts = []
        if self.groups:
            parts.append(f"{len(self.groups)} groups of pictures ({', '.join(self.groups[:NUM_LISTED])})")
        if self.copies:
            number = f"{len(self.copies)}{'' if self.is_complete else ' or more'}"
            parts.append(f"{number} pairs of copies ({'; '.join(map(str, self.copies[:NUM_LISTED]))})")
        return " and ".join(parts) or "nothing"


def check_leakage(data: TwoStageData, cfg: DictConfig, exp_dir: Path | None = None) -> LeakageReport:
    """Look for leaks as the configuration says, and write what was found to `reports/leakage.json`.

    Args:
        data: The run's data.
        cfg: Its configuration.
        exp_dir: The experiment's folder, whose `reports` exists; None writes nothing.

    Raises:
        DataError: There are some, and `data.split.leakage` is `error`.
    """
    return judge_leaks(find_leaks(data, cfg), data, cfg, exp_dir)


def judge_leaks(report: LeakageReport, data: TwoStageData, cfg: DictConfig, exp_dir: Path | None) -> LeakageReport:
    """Write, log and judge what `find_leaks` found; see `check_leakage`."""
    if exp_dir is not None:
        save_json(exp_dir / FILE_NAME, report.to_dict())
    if not report.has_leaks:
        looked = f"{report.num_pictures} pictures compared" if report.copies is not None else "copies not looked for"
        logger.info("no group lies on two sides, and no copy (%s)", looked)
    elif cfg.data.split.leakage == "warn":
        logger.warning("%s lie on two sides of the split, so its scores are too good", report)
    else:
        where = f"; all are in {exp_dir / FILE_NAME}" if exp_dir is not None else ""
        raise DataError(
            f"{data.root}: {report} lie on two sides of the split{where}. Scores on pictures whose twins were trained "
            f"on are too good. {_advice(cfg, report)} data.split.leakage=warn goes on all the same."
        )
    return report


def find_leaks(data: TwoStageData, cfg: DictConfig) -> LeakageReport:
    """Return what lies on two sides; copies are looked for unless `data.split.check_duplicates` is off."""
    groups = leaking_groups(data.records, data.split)
    if not cfg.data.split.check_duplicates:
        return LeakageReport(groups, None, True, 0)
    cache_dir = Path(cfg.paths.cache_dir) if cfg.dataloader.ram_optimization.cache_labels else None
    copies, is_complete, num_pictures = _find_copies(data, cache_dir)
    if not is_complete:
        logger.warning("too many pictures look alike to look closely at all: %d copies found so far", len(copies))
    return LeakageReport(groups, copies, is_complete, num_pictures)


def _find_copies(data: TwoStageData, cache_dir: Path | None) -> tuple[list[Copy], bool, int]:
    rows = np.flatnonzero(data.split != UNKNOWN)
    image_paths = columns.array_of(data.records, "image_path").take(rows).to_pylist()
    thumbnails = load_thumbnails(data.root, image_paths, cache_dir)
    rows = rows[thumbnails.places]
    paths = [image_paths[place] for place in thumbnails.places]
    sides = data.split[rows]
    side_numbers = np.searchsorted(sorted(SIDES), sides.astype(str))
    classes = columns.encode(data.records, "code").numbers[rows]

    def looks_alike(first: int, second: int) -> bool:
        try:
            images = [decode_reduced(data.root / paths[place], CLOSE_LOOK_PX).image for place in (first, second)]
        except BrokenImageError:
            return False
        return is_same_photograph(*images)

    found = find_copies(thumbnails.pixels, side_numbers, classes, looks_alike)
    copies = [
        Copy(paths[pair.first], sides[pair.first], paths[pair.second], sides[pair.second], pair.mean_difference)
        for pair in found.pairs
    ]
    return copies, found.is_complete, len(paths)


def _advice(cfg: DictConfig, report: LeakageReport) -> str:
    if cfg.data.split.policy == "given" and report.groups:
        return "Split again by data.split.policy=groups, or move the pictures."
    return "Remove one picture of each pair, or move it to the other's side."
