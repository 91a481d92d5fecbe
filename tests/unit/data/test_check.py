from __future__ import annotations

import json
from pathlib import Path

import pytest

from pillsnap.data.check import check_dataset
from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
from pillsnap.errors import ConfigError, DataError
from tests.builders import aihub_combo_dirs, aihub_single_dirs, write_aihub, write_folders, write_image, write_yolo

pytestmark = pytest.mark.req("DAT-2")


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_the_counts_are_those_of_the_pictures_written(tmp_path: Path) -> None:
    write_aihub(tmp_path, singles={"K-000001": 6, "K-000002": 4}, combos={"K-000001-000002-000003": 3})
    report = check_dataset(tmp_path, decode=False)
    assert report.reader == "aihub576"
    assert report.num_pictures == {"single": 10, "combo": 3}
    assert report.num_boxes == 10 + 9
    assert report.pills_per_class == {"K-000001": 9, "K-000002": 7, "K-000003": 3}
    assert report.singles_per_class == {"K-000001": 6, "K-000002": 4}
    assert report.per_class() == {"min": 3, "median": 7, "max": 9}
    assert report.sizes == {"96x128": 13}
    assert report.num_parts == {"train": 13}
    assert report.num_groups == 10 + 1
    assert report.problems == []


@pytest.mark.parametrize("processes", [1, 2])
def test_truncated_pictures_are_found_by_decoding(tmp_path: Path, processes: int) -> None:
    write_aihub(tmp_path, singles={"K-000001": 6, "K-000002": 6}, combos={})
    broken = truncate(next(aihub_single_dirs(tmp_path, "K-000001")[0].iterdir()))
    report = check_dataset(tmp_path, processes=processes)
    assert [(problem.kind, problem.path) for problem in report.problems] == [
        ("truncated_image", broken.relative_to(tmp_path).as_posix())
    ]
    assert report.num_pictures["single"] == 11
    assert check_dataset(tmp_path, decode=False).problems == []


def test_progress_counts_up_to_the_number_of_pictures(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    check_dataset(write_folders(tmp_path), processes=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(number, 8) for number in range(1, 9)]


def test_labels_for_a_picture_of_another_size_are_found_by_decoding(tmp_path: Path) -> None:
    write_aihub(tmp_path, singles={"K-000001": 1}, combos={})
    write_image(next(aihub_single_dirs(tmp_path, "K-000001")[0].iterdir()), (48, 64))
    report = check_dataset(tmp_path, processes=1)
    assert [problem.kind for problem in report.problems] == ["size_mismatch"]
    assert "is 48x64 px, but its label is for 96x128 px" in report.problems[0].detail


def test_problems_are_counted_by_kind_the_most_frequent_first(tmp_path: Path) -> None:
    write_aihub(tmp_path, singles={"K-000001": 6}, combos={"K-000001-000002": 3})
    for label in list(aihub_single_dirs(tmp_path, "K-000001")[1].iterdir())[:2]:
        label.unlink()
    write_image(aihub_combo_dirs(tmp_path, "K-000001-000002")[0] / "index.png")
    by_kind = check_dataset(tmp_path, decode=False).problems_by_kind()
    assert {kind: len(problems) for kind, problems in by_kind.items()} == {"missing_label": 2, "stray_image": 1}


def test_a_class_folder_data_set_is_usable_for_classification_only(tmp_path: Path) -> None:
    report = check_dataset(write_folders(tmp_path), decode=False)
    assert (report.is_usable_for_classification, report.is_usable_for_detection) == (True, False)


def test_one_class_with_boxes_is_usable_for_detection_only(tmp_path: Path) -> None:
    report = check_dataset(write_yolo(tmp_path, {"a.jpg": [(0, 0.5, 0.5, 0.2, 0.2)]}), decode=False)
    assert (report.is_usable_for_classification, report.is_usable_for_detection) == (False, True)


def test_the_report_is_plain_data(tmp_path: Path) -> None:
    (write_yolo(tmp_path) / "images" / "train" / "a0.jpg").unlink()
    content = json.loads(json.dumps(check_dataset(tmp_path, decode=False).to_dict()))
    assert content["num_classes"] == 2
    assert content["classes"]["alpha"] == {"pills": 9, "singles": 7}
    assert content["problems"]["missing_image"][0]["path"] == "labels/train/a0.txt"


def test_a_data_set_of_broken_pictures_is_an_error(tmp_path: Path) -> None:
    write_aihub(tmp_path, singles={"K-000001": 1}, combos={})
    truncate(next(aihub_single_dirs(tmp_path, "K-000001")[0].iterdir()))
    with pytest.raises(DataError, match=r"None of the 1 pictures in .* can be decoded; first: .*Copy the data set"):
        check_dataset(tmp_path, processes=1)


def test_an_unknown_reader_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data.reader is 'voc'"):
        check_dataset(tmp_path, "voc")


def test_what_was_planted_is_what_is_found(tmp_path: Path) -> None:
    spec = SyntheticSpec(num_drugs=4, singles_per_drug=12, num_combos=6, width=160, height=200, blemishes=True)
    planted = draw_dataset(tmp_path / "data", spec, num_processes=1).faults
    found = check_dataset(tmp_path / "data", processes=1).problems_by_kind()
    assert {kind: [problem.path for problem in problems] for kind, problems in found.items()} == {
        kind: paths for kind, paths in planted.items() if kind != "hidden_file"
    }
