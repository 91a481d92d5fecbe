"""Checks that look at the data a run was trained on: whether its classes are even, and whether it was all of it."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pillsnap.data.balance import MAX_IMBALANCE, class_balance
from pillsnap.data.classes import ClassMap
from pillsnap.data.records import COMBO
from pillsnap.data.selection_file import CSV_NAME
from pillsnap.data.twostage import FINAL_STAGE
from pillsnap.errors import CheckpointError
from pillsnap.gates.evidence import Outcome, not_run, outcome
from pillsnap.gates.subject import RUN_FILE, Subject
from pillsnap.jsonfile import read_json
from pillsnap.manifest import read_manifest

JOINT = "+"
"""Between the class keys of a combination in `selection.csv`."""
NUM_NAMED = 5


def class_balance_verification(subject: Subject) -> Outcome:
    """Every class has its pills in train, and the largest has at most ten times those of the smallest (D-14)."""
    codes = ClassMap.from_dict(read_json(subject.exp_dir / "class_map.json")).codes
    if any(JOINT in code for code in codes):
        return not_run(f"class keys hold {JOINT!r}, which joins the keys of a combination in {CSV_NAME}: rename them")
    minimum = int(subject.cfg.data.progressive_validation.min_images_per_class)
    pills = train_pills(subject.selection)
    figures = class_balance({code: pills.get(code, 0) for code in codes}, minimum)
    problems = []
    ignored = set(subject.cfg.data.ignore_classes)
    if strangers := sorted(set(pills) - set(codes) - ignored):
        problems.append(f"{len(strangers)} classes of train are not in the class map: {_named(strangers)}")
    if not figures.num_classes:
        problems.append("the class map is empty")
    elif figures.imbalance_ratio is None:
        lacking = [code for code in codes if not pills.get(code)]
        problems.append(f"{len(lacking)} classes have no pill in train: {_named(lacking)}")
    elif figures.imbalance_ratio > MAX_IMBALANCE:
        problems.append(f"the largest class has {figures.max_pills} pills, the smallest {figures.min_pills}")
    if figures.below_minimum:
        problems.append(
            f"{len(figures.below_minimum)} classes have fewer than {minimum} pills: {_named(figures.below_minimum)}"
        )
    ratio = figures.imbalance_ratio
    message = "; ".join(problems) or (
        f"{figures.num_classes} classes in train with {figures.min_pills} to {figures.max_pills} pills each"
    )
    return outcome(
        not problems,
        message,
        value=None if ratio is None else round(ratio, 4),
        wanted=f"<= {MAX_IMBALANCE:g}",
        unit="largest class / smallest class",
        file=CSV_NAME,
    )


def train_pills(selection: pa.Table) -> dict[str, int]:
    """Return how many pills of each class key the train pictures of a selection show."""
    train = selection.filter(pc.equal(selection.column("split"), "train"))
    is_combo = pc.equal(train.column("image_type"), COMBO)
    found: Counter[str] = Counter()
    for code, num_pictures in Counter(train.filter(pc.invert(is_combo)).column("mapping_code").to_pylist()).items():
        found[code] += num_pictures
    for joined, num_pictures in Counter(train.filter(is_combo).column("mapping_code").to_pylist()).items():
        for code in joined.split(JOINT):
            found[code] += num_pictures
    del found[""]  # a picture without a label
    return dict(found)


def full_dataset_processing(subject: Subject) -> Outcome:
    """The run was at stage 4, used every picture that lies in the data set, and came to its end with little damage."""
    data = subject.data
    facts = subject.fact("selection")
    indexed = len(data.records) if data.num_indexed is None else data.num_indexed
    counts = subject.fact("data", "counts")
    used = sum(number for kinds in counts.values() for number in kinds.values())
    share, allowed = float(subject.fact("data", "damaged_share")), float(subject.cfg.data.max_corruption)
    problems = []
    if facts.get("stage") != FINAL_STAGE:
        problems.append(f"the run was at stage {facts.get('stage')}, which takes a part of the data set")
    if used != indexed:
        problems.append(f"the run used {used} pictures, the data set holds {indexed}")
    elif facts.get("split", {}).get("digest") != data.digest():
        problems.append("the pictures or their split are not those of the run any more")
    if share > allowed:
        problems.append(f"{share:.2%} of the pictures are damaged, data.max_corruption allows {allowed:.2%}")
    if not _is_completed(subject):
        problems.append("training did not come to its end")
    problems += [
        f"{task} has not seen all of its pictures: no epoch was completed"
        for task in subject.tasks
        if not subject.fact("tasks", task, "epochs")
    ]
    message = "; ".join(problems) or f"all {indexed} pictures used, {share:.2%} of them damaged; training completed"
    return outcome(not problems, message, value=used, wanted=f"= {indexed}", unit="pictures", file=RUN_FILE)


def _is_completed(subject: Subject) -> bool:
    try:
        manifest = read_manifest(subject.exp_dir / "checkpoints")
    except CheckpointError:
        return False
    return manifest is not None and bool(manifest.get("completed"))


def _named(codes: list[str]) -> str:
    return ", ".join(codes[:NUM_NAMED]) + (", ..." if len(codes) > NUM_NAMED else "")
