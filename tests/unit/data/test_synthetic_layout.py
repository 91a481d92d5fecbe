from __future__ import annotations

import re
from collections import Counter

import pytest

from pillsnap.data.synthetic_drugs import invent_drugs
from pillsnap.data.synthetic_layout import Job, max_combo_pictures, plan_jobs, single_shots

# The grid as the data set's documentation gives it.
CELL = r"_0_(?P<background>[0-2])_(?P<side>[01])_(?P<light>[0-2])_(?P<latitude>60|70|75|90)_(?P<longitude>\d{3})_200"
SINGLE_IMAGE = re.compile(
    r"(train|val)/images/single/[TV]S_(?P<archive>\d+)_single/(?P<code>K-\d{6})/(?P=code)" + CELL + r"\.png"
)
SINGLE_LABEL = re.compile(
    r"(train|val)/labels/single/[TV]L_\d+_single/(?P<code>K-\d{6})_json/(?P=code)" + CELL + r"\.json"
)
COMBO_IMAGE = re.compile(
    r"train/images/combination/TS_1_combo/(?P<codes>K-\d{6}(-\d{6}){2,3})/(?P=codes)" + CELL + r"\.png"
)
COMBO_LABEL = re.compile(
    r"train/labels/combination/TL_1_combo/(?P<codes>K-\d{6}(-\d{6}){2,3})_json/(?P<code>K-\d{6})/(?P=codes)"
    + CELL
    + r"\.json"
)


def plan(num_drugs: int = 6, singles_per_drug: int = 40, num_combos: int = 30, top: str = "") -> list[Job]:
    drugs = invent_drugs(num_drugs, seed=1)
    return plan_jobs(drugs, [], singles_per_drug=singles_per_drug, num_combos=num_combos, seed=1, top=top)


def test_paths_of_singles_follow_the_documented_grid() -> None:
    jobs = [job for job in plan() if not job.is_combo]
    images = [job.image_path(shot) for job in jobs for shot in job.shots]
    labels = [job.label_path(shot, job.drugs[0]) for job in jobs for shot in job.shots]
    assert len(set(images)) == len(set(labels)) == 6 * 40
    assert all(SINGLE_IMAGE.fullmatch(path) for path in images)
    assert all(SINGLE_LABEL.fullmatch(path) for path in labels)


def test_a_combination_has_three_latitudes_and_a_label_folder_for_each_pill() -> None:
    for job in (job for job in plan() if job.is_combo):
        cells = [COMBO_IMAGE.fullmatch(job.image_path(shot)) for shot in job.shots]
        assert [cell and cell["latitude"] for cell in cells] == ["70", "75", "90"]
        labels = [COMBO_LABEL.fullmatch(job.label_path(job.shots[0], drug)) for drug in job.drugs]
        assert [label and label["code"] for label in labels] == sorted(drug.code for drug in job.drugs)
        assert len(set(job.drugs)) in (3, 4)


def test_all_eighteen_groups_come_before_any_gets_a_third_angle() -> None:
    shots = single_shots("K-000059", 36, seed=42)
    groups = Counter((shot.background, shot.side, shot.light) for shot in shots)
    assert len(groups) == 18
    assert set(groups.values()) == {2}


def test_the_whole_grid_is_taken_without_repeating_a_cell() -> None:
    shots = set(single_shots("K-000059", 1296, seed=42))
    assert len(shots) == 3 * 2 * 3 * 4 * 18
    assert {shot.longitude for shot in shots} == set(range(0, 360, 20))


def test_an_archive_holds_fifty_drugs() -> None:
    images = [job.image_path(job.shots[0]) for job in plan(num_drugs=120, singles_per_drug=1, num_combos=0)]
    archives = Counter(match["archive"] for match in map(SINGLE_IMAGE.fullmatch, images) if match)
    assert archives == {"1": 50, "2": 50, "3": 20}


def test_every_drug_occurs_in_combinations_about_equally_often() -> None:
    jobs = [job for job in plan(num_drugs=20, num_combos=90) if job.is_combo]
    counts = Counter(drug.code for job in jobs for drug in job.drugs)
    assert len(jobs) == 30
    assert len(counts) == 20
    assert max(counts.values()) - min(counts.values()) <= 2


def test_no_two_combination_folders_hold_the_same_pills() -> None:
    jobs = [job for job in plan(num_drugs=5, num_combos=max_combo_pictures(5)) if job.is_combo]
    assert len({job.drugs for job in jobs}) == len(jobs) == 10 + 5


@pytest.mark.parametrize(("num_drugs", "most"), [(2, 0), (3, 3), (4, 15), (5, 45)])
def test_few_drugs_allow_few_combinations(num_drugs: int, most: int) -> None:
    assert max_combo_pictures(num_drugs) == most


def test_the_data_level_stands_above_the_parts() -> None:
    assert all(job.image_dir.startswith("data/train/") for job in plan(top="data/"))
    assert all(job.label_dir.startswith("data/train/") for job in plan(top="data/"))
