"""Checks that look into what a run left behind: its facts, checkpoints, decisions, memory and TensorBoard events."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pillsnap.atomicfile import sha256_of, zip_damage
from pillsnap.errors import CheckpointError, PillError
from pillsnap.gates.evidence import Outcome, not_run, outcome
from pillsnap.gates.subject import METRICS_FILE, RUN_FILE, Subject
from pillsnap.jsonfile import read_json
from pillsnap.manifest import read_manifest

BEST_FILES = {"classification": "best.pt", "detection": "detection_best.pt"}
LAST_FILES = {"classification": "last.pt", "detection": "detection_last.pt"}
LOG_LABELS = {"classification": "train", "detection": "train/detection"}
"""What leads a task's entries among the decisions."""
TB_PREFIXES = {"classification": "", "detection": "detection/"}
STEP_TAGS = (
    "train/loss",
    "train/lr",
    "perf/data_time",
    "perf/compute_time",
    "perf/throughput",
    "perf/cuda_mem",
)
EPOCH_TAGS = {
    "classification": ("val/loss", "val/accuracy", "val/macro_f1", "val/top5"),
    "detection": ("val/mAP@0.5", "val/mAP@0.5:0.95", "val/precision", "val/recall"),
}
"""LOP-1; a detector has figures of its own in place of the classifier's."""
HOT_SET_SLACK = 1.01
"""The plan counts pixels; the hot set also keeps 64 bytes about each picture part."""
REPEATED_SHARE = 0.1
"""Two workers may need the same part at the same time and decode it both."""


def pipeline_complete(subject: Subject) -> Outcome:
    """Every task of the run was trained, judged and reported, and its checkpoints are those the manifest names."""
    subject.fact("ended")
    facts, figures = subject.fact("tasks"), subject.fact("evaluation")
    problems: list[str] = []
    num_complete = 0
    for task in subject.tasks:
        steps = facts.get(task, {}).get("steps", 0)
        lacking = [] if steps else [f"{task} was trained for no step"]
        if not figures.get(task):
            lacking.append(f"{task} was not judged on the {figures.get('split')} split")
        num_complete += not lacking
        problems += lacking
    problems += [*_problems_of_reports(subject), *_problems_of_checkpoints(subject)]
    message = "; ".join(problems) or f"{' and '.join(subject.tasks)} trained, judged and reported; checkpoints whole"
    return outcome(
        not problems, message, value=num_complete, wanted=f">= {len(subject.tasks)}", unit="tasks", file=RUN_FILE
    )


def auto_batch_tuning_success(subject: Subject) -> Outcome:
    """For every task that asks for it a batch size was found by running it, and training held it."""
    train = subject.cfg.train
    tuned = [task for task in subject.tasks if train[task].auto_batch_tune]
    if not tuned:
        return not_run("no task asks for it: set train.classification.auto_batch_tune=true and train again")
    problems, found = [], {}
    for task in tuned:
        cuts = [entry for entry in subject.fact("decisions") if entry.get("what") == f"{LOG_LABELS[task]}: cut"]
        tunings = [place for place, entry in enumerate(cuts) if str(entry.get("why")).startswith("auto batch:")]
        if not tunings:
            problems.append(f"{task}: no size was searched for (a CPU without hardware.gpu_memory_limit_gb has none)")
            continue
        size = str(cuts[tunings[-1]].get("to")).split(" x ")[0]
        if not size.isdecimal():
            problems.append(f"{task}: the size found is {size!r}, no number")
            continue
        found[task] = int(size)
        later = [str(entry.get("why")) for entry in cuts[tunings[-1] + 1 :]]
        if failures := [why for why in later if "clean steps" not in why]:
            problems.append(f"{task}: memory ran out after {size} was found: {failures[0]}")
        elif not subject.fact("tasks", task, "steps"):
            problems.append(f"{task}: no step was trained with {size}")
    if not found and all("no size was searched for" in problem for problem in problems):
        return not_run("; ".join(problems))
    held = ", ".join(f"{task} {size}" for task, size in found.items())
    value = found.get("classification", next(iter(found.values()), None))
    message = "; ".join(problems) or f"found by running it and held through training: {held}"
    return outcome(not problems, message, value=value, wanted=">= 1", unit="samples", file=RUN_FILE)


def tensorboard_logging(subject: Subject) -> Outcome:
    """TensorBoard itself reads the run's events, and every figure of LOP-1 is there for every epoch."""
    folder = subject.exp_dir / "tb"
    scalars = read_scalars(folder)
    problems: list[str] = []
    fewest: int | None = None
    for task in subject.tasks:
        epochs = int(subject.fact("tasks", task, "epochs"))
        for tag in (*STEP_TAGS, *EPOCH_TAGS[task]):
            points = scalars.get(TB_PREFIXES[task] + tag, {})
            wanted = max(epochs, 1) if tag in STEP_TAGS else epochs
            fewest = len(points) if fewest is None else min(fewest, len(points))
            if len(points) < wanted:
                problems.append(f"{TB_PREFIXES[task]}{tag} has {len(points)} points, wanted {wanted}")
            elif not all(map(math.isfinite, points.values())):
                problems.append(f"{TB_PREFIXES[task]}{tag} holds a value that is no number")
    files = sorted(folder.glob("events.out.tfevents.*"))
    message = (
        "; ".join(problems) or f"{len(scalars)} figures read from {len(files)} event file(s), all wanted among them"
    )
    file = f"tb/{files[-1].name}" if files else None
    return outcome(not problems, message, value=fewest, wanted=">= epochs", unit="points of the rarest tag", file=file)


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return the figures in a folder of TensorBoard events: tag -> step -> value.

    Read by TensorBoard's own reader, which stops in silence where a file is damaged.

    Raises:
        PillError: TensorBoard cannot read the folder.
    """
    # Imported here: TensorBoard takes a second, and no other check needs it.
    from tensorboard.backend.event_processing.directory_watcher import DirectoryDeletedError
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    try:
        accumulator = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
        accumulator.Reload()
    except (OSError, ValueError, struct.error, DirectoryDeletedError) as error:
        raise PillError(
            f"TensorBoard cannot read {folder}: {error}; wanted its event files. Restore them, or train again."
        ) from error
    tags = accumulator.Tags()[SCALARS]
    return {tag: {event.step: float(event.value) for event in accumulator.Scalars(tag)} for tag in tags}


def memory_optimization_working(subject: Subject) -> Outcome:
    """The run stayed within its memory plan, and its hot set held and served what it promised."""
    plan, peak = subject.fact("memory_plan"), subject.fact("peak_memory_mb")
    stores = subject.run.get("pixel_stores") or {}
    if not stores:
        return not_run(
            "the run kept no pictures in memory: set dataloader.ram_optimization.cache_policy=hotset and train again"
        )
    if not any(int(store[count]) for store in stores.values() for count in ("hits_ram", "hits_disk", "misses")):
        return not_run("the stores were asked for nothing: the last process of this run judged it and did not train")
    total = float(plan["total"])
    used = float(peak["main"]) * 1e6 + float(plan["workers"]) + float(plan["prefetch"])
    problems = []
    if used > total:
        problems.append(
            f"with the planned workers and batches the run took {used / 1e9:.2f} GB, the machine gave "
            f"{total / 1e9:.2f} GB"
        )
    held = sum(int(store["ram_bytes"]) for store in stores.values())
    if held > HOT_SET_SLACK * int(plan["hot_set"]):
        problems.append(f"the hot set takes {held / 1e6:.1f} MB, planned were {plan['hot_set'] / 1e6:.1f} MB")
    has_all_places = sum(int(store["entries"]) for store in stores.values()) < int(
        subject.cfg.dataloader.ram_optimization.hotset_size_images
    )
    for name, store in stores.items():
        problems += [f"{name}: {problem}" for problem in _problems_of_store(store, has_all_places=has_all_places)]
    message = "; ".join(problems) or (
        f"peak {used / 1e9:.2f} of {total / 1e9:.2f} GB; hot set {held / 1e6:.1f} of {plan['hot_set'] / 1e6:.1f} MB, "
        f"{_hit_share(stores):.1%} of the pictures served from stores"
    )
    return outcome(
        not problems, message, value=round(used / total, 4), wanted="<= 1", unit="of the memory there is", file=RUN_FILE
    )


def _problems_of_store(store: Mapping[str, Any], *, has_all_places: bool) -> list[str]:
    entries, held = int(store["entries"]), max(int(store["in_ram"]), int(store["on_disk"]))
    hits, misses = int(store["hits_ram"]) + int(store["hits_disk"]), int(store["misses"])
    faults = int(store["damaged"]) + int(store["stale"]) + int(store["left_out"])
    problems = []
    if not hits:
        problems.append(f"served nothing ({misses} pictures were decoded)")
    if held + faults < entries and misses >= entries:
        problems.append(f"holds {held} of {entries} parts")
    # Each part with a place is decoded once, then served; parts without a place are not counted anywhere.
    if has_all_places and misses > entries * (1 + REPEATED_SHARE) + faults + 1:
        problems.append(f"{misses} pictures were decoded for {entries} parts that all have a place")
    if store["damaged"]:
        problems.append(f"{store['damaged']} parts were found damaged")
    return problems


def _hit_share(stores: Mapping[str, Mapping[str, Any]]) -> float:
    hits = sum(int(store["hits_ram"]) + int(store["hits_disk"]) for store in stores.values())
    reads = hits + sum(int(store["misses"]) for store in stores.values())
    return hits / reads if reads else 0.0


def _problems_of_reports(subject: Subject) -> list[str]:
    metrics = read_json(subject.exp_dir / METRICS_FILE)
    problems = [f"{METRICS_FILE} has no figures of {task}" for task in subject.tasks if not metrics.get(task)]
    page = subject.exp_dir / "reports" / "index.html"
    try:
        is_whole = page.read_text(encoding="utf-8").rstrip().endswith("</html>")
    except (OSError, UnicodeDecodeError):
        is_whole = False
    return problems if is_whole else [*problems, "reports/index.html is missing or cut off"]


def _problems_of_checkpoints(subject: Subject) -> list[str]:
    folder = subject.exp_dir / "checkpoints"
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return [str(error)]
    if manifest is None or not manifest.get("moments"):
        return ["checkpoints/manifest.json is missing or damaged"]
    problems = []
    if not manifest.get("completed") and not subject.run.get("time_cap", {}).get("is_success"):
        problems.append("training did not come to its end")
    files = manifest["moments"][0]["files"]
    for task in subject.tasks:
        if task not in files:
            problems.append(f"the manifest names no checkpoint of {task}")
            continue
        wanted = files[task]["sha256"]
        for name in (files[task]["file"], LAST_FILES[task]):
            path = folder / name
            if not path.is_file() or sha256_of(path) != wanted:
                problems.append(f"checkpoints/{name} is not the file that the manifest names")
        problems += _problems_of_best(folder / BEST_FILES[task])
    return problems


def _problems_of_best(path: Path) -> list[str]:
    """Look into a best checkpoint by its own checksums: the manifest forgets a moment when two newer ones exist."""
    try:
        damage = zip_damage(path)
    except OSError as error:
        damage = error.strerror or str(error)
    return [] if damage is None else [f"checkpoints/{path.name} is missing or damaged ({damage})"]
