from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.images import decode_rgb
from pillsnap.data.synthetic_drugs import invent_drugs
from pillsnap.data.synthetic_jobs import Studio, draw_job, encode_png
from pillsnap.data.synthetic_layout import Job, plan_jobs


def boxes_xyxy(root: Path, stem_of: str) -> list[tuple[int, int, int, int]]:
    boxes = []
    for path in sorted(root.glob(f"**/{stem_of}.json")):
        x, y, w, h = json.loads(path.read_text(encoding="utf-8"))["annotations"][0]["bbox"]
        boxes.append((x, y, x + w, y + h))
    return boxes


def combo_jobs(num_drugs: int, num_combos: int) -> list[Job]:
    jobs = plan_jobs(invent_drugs(num_drugs, 5), [], singles_per_drug=1, num_combos=num_combos, seed=5, top="")
    return [job for job in jobs if job.is_combo]


@pytest.mark.parametrize("size_wh", [(160, 200), (320, 200)], ids=["upright", "wide"])
def test_pills_of_a_combination_lie_apart_inside_the_frame(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    for job in combo_jobs(22, 24):
        draw_job(Studio(tmp_path, size_wh, 5, False), job)
        for shot in job.shots:
            boxes = boxes_xyxy(tmp_path, job.stem(shot))
            assert len(boxes) == len(job.drugs)
            for a, b in combinations(boxes, 2):
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            # Strictly inside: a pill cut off at the edge would have a box that touches it.
            assert all(min(x1, y1) > 0 and x2 < size_wh[0] and y2 < size_wh[1] for x1, y1, x2, y2 in boxes)


def test_the_pills_stay_in_place_while_the_camera_moves(tmp_path: Path) -> None:
    job = combo_jobs(6, 3)[0]
    draw_job(Studio(tmp_path, (244, 320), 5, False), job)
    left_edges = [[box[0] for box in boxes_xyxy(tmp_path, job.stem(shot))] for shot in job.shots]
    assert left_edges[0] == pytest.approx(left_edges[1], abs=1)
    assert left_edges[0] == pytest.approx(left_edges[2], abs=1)


def test_a_single_lies_near_the_middle_of_a_picture_of_the_size_asked_for(tmp_path: Path) -> None:
    jobs = plan_jobs(invent_drugs(2, 5), [], singles_per_drug=4, num_combos=0, seed=5, top="")
    costs = [draw_job(Studio(tmp_path, (160, 200), 5, False), job) for job in jobs]
    assert [cost.num_pictures for cost in costs] == [4, 4]
    assert sum(cost.num_bytes for cost in costs) == sum(path.stat().st_size for path in tmp_path.rglob("*.png"))
    for job in jobs:
        for shot in job.shots:
            assert decode_rgb(tmp_path / job.image_path(shot)).shape == (200, 160, 3)
            ((x1, y1, x2, y2),) = boxes_xyxy(tmp_path, job.stem(shot))
            assert (x1 + x2) / 2 == pytest.approx(80, abs=0.05 * 160 + 1)
            assert (y1 + y2) / 2 == pytest.approx(100, abs=0.05 * 200 + 5)


def test_a_png_keeps_every_pixel(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(image))
    assert np.array_equal(decode_rgb(tmp_path / "a.png"), image)
