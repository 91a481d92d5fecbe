"""A synthetic AI Hub tree for the index alone: real folders, names and labels, and files in place of the pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pillsnap.data.synthetic_drugs import invent_drugs
from pillsnap.data.synthetic_jobs import write_label
from pillsnap.data.synthetic_labels import pill_label
from pillsnap.data.synthetic_layout import Job, plan_jobs

PICTURES_PER_DRUG = 324  # the median of the real set
COMBO_LABEL_SHARE = 0.022  # of all labels; 15,000 pictures with 3.86 labels each
LABELS_PER_COMBO = 3.86
DRUGS_DRAWN = 24  # others are these with another code: a label's text is what counts
PICTURE = b"\x89PNG" + bytes(120)  # more than the 100 bytes below which a file cannot be a picture
SIZE_WH = (976, 1280)


def write_tree(root: Path, num_labels: int) -> int:
    """Write a data set of about `num_labels` labels with all their 50 fields; return the exact number."""
    num_drugs = max(4, round(num_labels * (1 - COMBO_LABEL_SHARE) / PICTURES_PER_DRUG))
    drawn = invent_drugs(DRUGS_DRAWN, seed=0)
    drugs = [dataclasses.replace(drawn[i % DRUGS_DRAWN], code=f"K-{i + 1:06d}") for i in range(num_drugs)]
    singles = min(PICTURES_PER_DRUG, round(num_labels * (1 - COMBO_LABEL_SHARE) / num_drugs))
    num_combos = round(num_labels * COMBO_LABEL_SHARE / LABELS_PER_COMBO)
    jobs = plan_jobs(drugs, [], singles_per_drug=singles, num_combos=num_combos, seed=0, top="")
    rng = np.random.default_rng(0)
    return sum(_write_job(root, job, rng) for job in jobs)


def _write_job(root: Path, job: Job, rng: np.random.Generator) -> int:
    (root / job.image_dir).mkdir(parents=True, exist_ok=True)
    for shot in job.shots:
        (root / job.image_path(shot)).write_bytes(PICTURE)
        for number, drug in enumerate(job.drugs):
            box = (60 + 220 * number, 120, 200, 220)
            label = pill_label(
                drug, shot, stem=job.stem(shot), size_wh=SIZE_WH, box_xywh=box, is_combo=job.is_combo, drift=rng
            )
            write_label(root / job.label_path(shot, drug), label)
    return len(job.shots) * len(job.drugs)
