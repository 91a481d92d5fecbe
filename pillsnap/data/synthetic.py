"""Draws a synthetic data set that looks, lies and is labelled like AI Hub 576, so that everything runs without it.

The same spec draws the same bytes, whatever the number of processes. Small files keep a folder honest:
`synthetic.started.json` stands in it while it is being drawn, beside a journal of what is done, from which drawing goes
on after a kill; `synthetic.json` is written last.

    summary = draw_dataset(Path("pills"), SyntheticSpec(num_drugs=20, width=244, height=320))
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pillsnap.data.synthetic_blemishes import MIN_COMBOS, MIN_SINGLES, Faults, plant_blemishes
from pillsnap.data.synthetic_drugs import invent_drugs, invent_more_drugs
from pillsnap.data.synthetic_jobs import JobCost, Studio, draw_job, prepare_worker
from pillsnap.data.synthetic_journal import JOURNAL_NAME, finished_jobs, journal, note
from pillsnap.data.synthetic_layout import GRID_SIZE, Job, max_combo_pictures, plan_jobs
from pillsnap.errors import ConfigError, DataError, PillError
from pillsnap.jsonfile import read_json, save_json

STARTED_NAME, COMPLETE_NAME = "synthetic.started.json", "synthetic.json"
DRAWN_FOLDERS = ("train", "val", "data")
COUNTS = ("num_drugs", "num_singles", "num_combos", "num_labels")
RECIPE = 2  # raised whenever the same spec would draw other bytes
MAX_DRUGS = 5_000
BYTES_PER_PIXEL = 1.45  # of a picture file: 1.43 at full size, 1.41 at a quarter
PIXELS_PER_PROCESS = 20_000_000  # starting a process costs about what drawing so many pixels does

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SyntheticSpec:
    """What to draw."""

    num_drugs: int = 20
    """Classes of the train part, 2 to 5,000."""
    singles_per_drug: int = 36
    """Single-pill pictures of each drug, 1 to 1,296 (the whole grid)."""
    num_combos: int = 90
    """Pictures of three or four pills, at least; they come in folders of three."""
    width: int = 976
    """Pixels, 160 to 976."""
    height: int = 1280
    """Pixels, 200 to 1,280."""
    seed: int = 42
    """Another seed invents other drugs and takes other pictures."""
    with_data_level: bool = False
    """Whether a `data/` folder stands between the root and `train/`."""
    num_unknown_drugs: int = 0
    """Drugs that occur in the val part only; 0 means there is no val part."""
    blemishes: bool = False
    """Whether to plant the real set's faults."""

    def __post_init__(self) -> None:
        """Check ranges and pairs of values.

        Raises:
            ConfigError: Lists everything that is out of range.
        """
        faults = [*self._out_of_range(), *self._contradictions()]
        if faults:
            raise ConfigError("the synthetic data set cannot be drawn: " + " ".join(faults))

    def _out_of_range(self) -> Iterator[str]:
        limits = {
            "num_drugs": (2, MAX_DRUGS),
            "singles_per_drug": (1, GRID_SIZE),
            "num_combos": (0, 3 * MAX_DRUGS),
            "width": (160, 976),
            "height": (200, 1280),
            "seed": (0, 2**63 - 1),
            "num_unknown_drugs": (0, MAX_DRUGS),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                nearest = min(max(value, low), high)
                yield f"{name} is {value}; wanted {low} to {high}. Set {name}={nearest}."

    def _contradictions(self) -> Iterator[str]:
        most = max_combo_pictures(max(self.num_drugs, 0))
        if self.num_combos > most:
            yield (
                f"num_combos is {self.num_combos}; {self.num_drugs} drugs give at most {most} pictures of different "
                f"combinations. Set num_combos={most} or more drugs."
            )
        num_singles = self.num_drugs * self.singles_per_drug
        if self.blemishes and (num_singles < MIN_SINGLES or self.num_combos < MIN_COMBOS):
            yield (
                f"blemishes need {MIN_SINGLES} single and {MIN_COMBOS} combination pictures to damage; got "
                f"{num_singles} and {self.num_combos}. Raise singles_per_drug and num_combos, or leave blemishes out."
            )


@dataclass(frozen=True, kw_only=True)
class SyntheticSummary:
    """What a drawn data set holds."""

    root: Path
    num_drugs: int  # known and unknown ones
    num_singles: int
    num_combos: int  # pictures
    num_labels: int  # one a pill and picture, before blemishes
    seconds: float  # that drawing took; 0 when it was there already
    faults: Faults  # kind -> paths relative to the root; empty without blemishes
    is_reused: bool  # the folder already held exactly this data set
    cost: JobCost = JobCost()  # of the pictures drawn now, without those of an earlier drawing that was cut short


def draw_dataset(
    root: Path, spec: SyntheticSpec, *, num_processes: int | None = None, progress: Progress | None = None
) -> SyntheticSummary:
    """Draw a data set into `root`, or find it complete there.

    Args:
        root: A folder that is missing, empty, half drawn by this function, or already holds this very data set. What
            is half drawn is drawn to its end if it is the same data set, and afresh if it is another.
        spec: What to draw.
        num_processes: None takes the cores of this machine, fewer for little work.
        progress: Called with (pictures drawn, pictures in all), the first time with those of an earlier drawing.

    Raises:
        ConfigError: `num_processes` is not positive.
        DataError: The folder holds something else, has too little space, or cannot be written.
    """
    if num_processes is not None and num_processes < 1:
        raise ConfigError(
            f"num_processes is {num_processes}; wanted at least 1. Leave it out to use every core of this machine."
        )
    complete = _find_complete(root, spec)
    if complete is not None:
        return complete
    start = time.perf_counter()
    jobs = _plan(spec)
    try:
        done = _claim_folder(root, spec, jobs)
        studio = Studio(root, (spec.width, spec.height), spec.seed, drifting_types=spec.blemishes)
        _require_space(root, spec, jobs, done)
        cost = _draw(studio, jobs, done, num_processes or _default_processes(spec, jobs), progress or _ignore)
        # Whoever plants faults destroys what the journal vouches for.
        (root / JOURNAL_NAME).unlink()
        faults = plant_blemishes(root, jobs, spec.seed) if spec.blemishes else {}
    except OSError as err:
        raise DataError(
            f"the synthetic data set cannot be drawn into {root}: {err}. A writable folder with enough free space is "
            "needed (about 110 KB a picture of 244x320, 1.8 MB at full size). Free some, or choose another folder; "
            "drawing again goes on from here."
        ) from err
    except BrokenProcessPool as err:
        raise DataError(
            f"the synthetic data set in {root} is incomplete: a drawing process was killed (out of memory, most "
            "likely), all of them were wanted. Draw again with --processes 1; what is drawn is kept."
        ) from err
    summary = SyntheticSummary(
        root=root,
        num_drugs=spec.num_drugs + spec.num_unknown_drugs,
        num_singles=sum(len(job.shots) for job in jobs if not job.is_combo),
        num_combos=sum(len(job.shots) for job in jobs if job.is_combo),
        num_labels=sum(len(job.shots) * len(job.drugs) for job in jobs),
        seconds=time.perf_counter() - start,
        faults=faults,
        is_reused=False,
        cost=cost,
    )
    counts = {field: getattr(summary, field) for field in COUNTS}
    save_json(root / COMPLETE_NAME, {**_identity(spec), "counts": counts, "faults": faults})
    (root / STARTED_NAME).unlink()
    return summary


def _identity(spec: SyntheticSpec) -> dict[str, Any]:
    return {"recipe": RECIPE, "spec": asdict(spec)}


def _find_complete(root: Path, spec: SyntheticSpec) -> SyntheticSummary | None:
    """Return the summary of a complete data set in `root`, None where there is none."""
    if not (root / COMPLETE_NAME).is_file():
        return None
    try:
        content = read_json(root / COMPLETE_NAME)
        found = {key: content[key] for key in ("recipe", "spec")}
        counts, faults = {field: content["counts"][field] for field in COUNTS}, content["faults"]
    except (PillError, KeyError, TypeError) as err:
        raise DataError(
            f"{root / COMPLETE_NAME} does not describe a synthetic data set ({err!r}); wanted the file that drawing "
            "writes last. Delete the folder, or draw into another one."
        ) from err
    wanted = _identity(spec)
    if found != wanted:
        raise DataError(
            f"{root} already holds another synthetic data set: {_differences(found, wanted)}. "
            "Delete the folder, draw into another one, or ask for the data set that is there."
        )
    return SyntheticSummary(root=root, **counts, seconds=0.0, faults=faults, is_reused=True)


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Name every value in which two identities differ."""
    flat_found, flat_wanted = ({"recipe": side["recipe"], **side["spec"]} for side in (found, wanted))
    return ", ".join(
        f"{name} is {flat_found.get(name)}, wanted {flat_wanted.get(name)}"
        for name in {**flat_wanted, **flat_found}
        if flat_found.get(name) != flat_wanted.get(name)
    )


def _claim_folder(root: Path, spec: SyntheticSpec, jobs: list[Job]) -> set[int]:
    """Mark `root` as being drawn and return the numbers of the jobs that an earlier drawing of the same finished there.

    What an earlier drawing of something else left is removed.
    """
    root.mkdir(parents=True, exist_ok=True)
    is_ours = (root / STARTED_NAME).is_file()
    names = sorted(path.name for path in root.iterdir())
    if names and not is_ours:
        raise DataError(
            f"{root} is not empty ({len(names)} entries, {names[0]!r} first) and was not made by `pillsnap synth`; a "
            "new or empty folder is wanted, so that nothing of yours is mixed up or lost. Choose another folder."
        )
    if is_ours and _is_of(root / STARTED_NAME, spec) and (root / JOURNAL_NAME).is_file():
        return finished_jobs(root, jobs)
    (root / JOURNAL_NAME).unlink(missing_ok=True)
    for name in DRAWN_FOLDERS:
        if (root / name).is_dir():
            shutil.rmtree(root / name)
    save_json(root / STARTED_NAME, _identity(spec))
    return set()


def _is_of(path: Path, spec: SyntheticSpec) -> bool:
    try:
        return read_json(path) == _identity(spec)
    except PillError:
        return False


def _require_space(root: Path, spec: SyntheticSpec, jobs: list[Job], done: set[int]) -> None:
    """Refuse what would fill the disk after hours."""
    num_pictures = sum(len(job.shots) for number, job in enumerate(jobs) if number not in done)
    needed, free = num_pictures * spec.width * spec.height * BYTES_PER_PIXEL, shutil.disk_usage(root).free
    if needed > free:
        raise DataError(
            f"{num_pictures:,} pictures of {spec.width}x{spec.height} do not fit into {root}: they need about "
            f"{needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. Free some, choose another folder, or draw fewer or "
            "smaller ones."
        )


def _plan(spec: SyntheticSpec) -> list[Job]:
    known = invent_drugs(spec.num_drugs, spec.seed)
    return plan_jobs(
        known,
        invent_more_drugs(spec.num_unknown_drugs, spec.seed, known),
        singles_per_drug=spec.singles_per_drug,
        num_combos=spec.num_combos,
        seed=spec.seed,
        top="data/" if spec.with_data_level else "",
    )


def _default_processes(spec: SyntheticSpec, jobs: list[Job]) -> int:
    num_pixels = spec.width * spec.height * sum(len(job.shots) for job in jobs)
    # A container or a batch system may allow fewer cores than the machine has; only Linux tells.
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(num_cores, num_pixels // PIXELS_PER_PROCESS))


def _draw(studio: Studio, jobs: list[Job], done: set[int], num_processes: int, progress: Progress) -> JobCost:
    """Draw the jobs that are not done, here or in `num_processes` fresh processes."""
    total, before = sum(len(job.shots) for job in jobs), sum(len(jobs[number].shots) for number in done)
    left = {number: job for number, job in enumerate(jobs) if number not in done}
    progress(before, total)
    cost = JobCost()
    with journal(studio.root) as file, closing(_drawn(studio, left, num_processes)) as drawn:
        for number, job_cost in drawn:
            note(file, number)
            cost = cost.plus(job_cost)
            progress(before + cost.num_pictures, total)
    return cost


def _drawn(studio: Studio, jobs: dict[int, Job], num_processes: int) -> Generator[tuple[int, JobCost]]:
    """Draw `jobs` and yield their numbers and costs as they get done."""
    if num_processes == 1:
        for number, job in jobs.items():
            yield number, draw_job(studio, job)
        return
    # Spawned, not forked: a process that has started threads (PyTorch, OpenCV) must not be forked.
    spawn, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    with ProcessPoolExecutor(num_processes, mp_context=spawn, initializer=prepare_worker) as pool:
        drawings = {pool.submit(draw_job, studio, job): number for number, job in jobs.items()}
        try:
            for drawing in as_completed(drawings):
                yield drawings[drawing], drawing.result()
        except BaseException:
            # Leaving the pool waits for jobs at hand, and a second Ctrl-C during that wait would hang Python's exit.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def _ignore(_done: int, _total: int) -> None:
    """Progress nobody looks at."""
