"""Pictures that lie on two sides of the split: those of one group, and copies of one photograph.

Scores on pictures whose twins were trained on are too good, so a run stops before it trains (`data.split.leakage`
is `error`) or says so and goes on (`warn`). Pictures of drugs the models never see are on no side.

What is found is judged (`verdict` in reports/leakage.json):

    none    Nothing lies on two sides, as far as anyone looked.
    few     No group does, and the pictures of val and test that have a copy on another side are no more than
            `MAX_TWIN_SHARE` of val and test: they cannot move a score by more than 0.1 points, and of a huge set they
            may be look-alikes (unprinted pills of two groups). A warning lists them; the run goes on.
    leaks   A group does, more pictures have copies, or the search ended at its largest number of copies. Below 1,000
            pictures of val and test, a single copy is a leak.

Cost: one thumbnail a picture, once; then the search, extrapolated (not measured) to 13 minutes for 500,000 pictures.
Its result is kept in `paths.cache_dir`: a start with the same pictures, sides and classes asks only for the size and
time of change of each file (0.14 s for 50,000 on a local disk just written). The log tells what each took.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from pillsnap.data import columns, near_copies, thumbnails
from pillsnap.data.cache_files import remove_old_files
from pillsnap.data.images import decode_reduced
from pillsnap.data.splits import SIDES, TRAIN, UNKNOWN, leaking_groups
from pillsnap.data.twostage import TwoStageData
from pillsnap.errors import BrokenImageError, DataError, PillError
from pillsnap.jsonfile import read_json, save_json

logger = logging.getLogger("pillsnap")

FILE_NAME = Path("reports", "leakage.json")  # below the experiment's folder
NUM_LISTED = 5
MAX_TWIN_SHARE = 0.001  # of the pictures of val and test


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
    num_judged: int
    """Those of val and test among them."""

    @property
    def num_twins(self) -> int:
        """Pictures of val and test that have a copy on another side."""
        ends = [((copy.first, copy.first_side), (copy.second, copy.second_side)) for copy in self.copies or []]
        return len({path for pair in ends for path, side in pair if side != TRAIN})

    @property
    def verdict(self) -> str:
        """`none`, `few` or `leaks`: see the module."""
        if not self.has_leaks:
            return "none"
        is_cut = len(self.copies or []) >= near_copies.MAX_PAIRS
        is_few = not self.groups and not is_cut and self.num_twins <= MAX_TWIN_SHARE * self.num_judged
        return "few" if is_few else "leaks"

    @property
    def has_leaks(self) -> bool:
        """Anything lies on two sides."""
        return bool(self.groups or self.copies)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "verdict": self.verdict,
            "has_leaks": self.has_leaks,
            "num_twins": self.num_twins,
            "max_twin_share": MAX_TWIN_SHARE,
            **asdict(self),
        }

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
        DataError: The verdict is `leaks`, and `data.split.leakage` is `error`.
    """
    return judge_leaks(find_leaks(data, cfg), data, cfg, exp_dir)


def judge_leaks(report: LeakageReport, data: TwoStageData, cfg: DictConfig, exp_dir: Path | None) -> LeakageReport:
    """Write, log and judge what `find_leaks` found; see `check_leakage`."""
    if exp_dir is not None:
        save_json(exp_dir / FILE_NAME, report.to_dict())
    if not report.has_leaks:
        looked = f"{report.num_pictures} pictures compared" if report.copies is not None else "copies not looked for"
        logger.info("no group lies on two sides, and no copy (%s)", looked)
    elif report.verdict == "few":
        where = f"{exp_dir / FILE_NAME}" if exp_dir is not None else "what `pillsnap data leaks --json FILE` writes"
        logger.warning(
            "%s lie on two sides of the split, %d of %d pictures of val and test: too few to move a score. All are in "
            "%s; look at some side by side, and remove one of each pair that shows one photograph",
            report,
            report.num_twins,
            report.num_judged,
            where,
        )
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
        return LeakageReport(groups, None, True, 0, 0)
    cache_dir = Path(cfg.paths.cache_dir) if cfg.dataloader.ram_optimization.cache_labels else None
    found = _known_or_new(data, cache_dir)
    if not found.is_complete:
        logger.warning("too many pictures look alike to look closely at all: %d copies found so far", len(found.copies))
    return LeakageReport(groups, **{name: getattr(found, name) for name in _Found.__slots__})


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of a search; see `LeakageReport`."""

    copies: list[Copy]
    is_complete: bool
    num_pictures: int
    num_judged: int


def _known_or_new(data: TwoStageData, cache_dir: Path | None) -> _Found:
    """Return what an earlier start found for the same pictures, or search and keep the result."""
    start = time.perf_counter()
    rows = np.flatnonzero(data.split != UNKNOWN)
    image_paths = columns.array_of(data.records, "image_path").take(rows).to_pylist()
    keys = thumbnails.picture_keys(data.root, image_paths)
    classes = columns.encode(data.records, "code")
    digest = hashlib.blake2b(
        repr([str(data.root.resolve()), data.digest(), near_copies.VERSION, thumbnails.FORMAT]).encode(), digest_size=12
    )
    digest.update(keys.tobytes())
    digest.update(repr(classes.values).encode())
    digest.update(np.ascontiguousarray(classes.numbers[rows]).tobytes())
    path = None if cache_dir is None else cache_dir / f"leakage-{digest.hexdigest()}.json"
    known = _read(path)
    if known is not None:
        logger.info("copies were looked for at an earlier start (asked in %.1f s)", time.perf_counter() - start)
        return known
    read = thumbnails.load_thumbnails(data.root, image_paths, cache_dir, keys)
    search_start = time.perf_counter()
    found = _find_copies(data, rows[read.places], [image_paths[place] for place in read.places], read.pixels)
    end = time.perf_counter()
    logger.info("looking for copies took %.1f s, %.1f s of it the search", end - start, end - search_start)
    _keep(path, found)
    return found


def _read(path: Path | None) -> _Found | None:
    """Return a kept result; None where there is none, or it is damaged."""
    if path is None or not path.exists():
        return None
    try:
        content = read_json(path)
        found = content["found"]
        if content["checksum"] != _checksum(found):
            raise ValueError("its checksum differs")
        path.touch()  # newly used
        return _Found(**{**found, "copies": [Copy(**copy) for copy in found["copies"]]})
    except (OSError, ValueError, KeyError, TypeError, PillError) as error:
        logger.warning("%s is damaged (%s); copies are looked for again", path, error)
        return None


def _keep(path: Path | None, found: _Found) -> None:
    if path is None:
        return
    content = asdict(found)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_json(path, {"checksum": _checksum(content), "found": content})
        remove_old_files(path.parent, "leakage-*.json")
    except (OSError, PillError) as error:
        logger.warning("%s cannot be written (%s); the next start looks for copies again", path, error)


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=12).hexdigest()


def _find_copies(data: TwoStageData, rows: NDArray[np.int64], paths: list[str], pixels: NDArray[np.uint8]) -> _Found:
    sides = data.split[rows]
    side_numbers = np.searchsorted(sorted(SIDES), sides.astype(str))
    classes = columns.encode(data.records, "code").numbers[rows]

    def looks_alike(first: int, second: int) -> bool:
        try:
            images = [
                decode_reduced(data.root / paths[place], near_copies.CLOSE_LOOK_PX).image for place in (first, second)
            ]
        except BrokenImageError:
            return False
        return near_copies.is_same_photograph(*images)

    found = near_copies.find_copies(pixels, side_numbers, classes, looks_alike)
    copies = [
        Copy(
            paths[pair.first], str(sides[pair.first]), paths[pair.second], str(sides[pair.second]), pair.mean_difference
        )
        for pair in found.pairs
    ]
    return _Found(copies, found.is_complete, len(paths), int(np.count_nonzero(sides != TRAIN)))


def _advice(cfg: DictConfig, report: LeakageReport) -> str:
    if cfg.data.split.policy == "given" and report.groups:
        return "Split again by data.split.policy=groups, or move the pictures."
    return "Remove one picture of each pair, or move it to the other's side."
