from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from pillsnap.data.damage import Damage
from pillsnap.data.index import lies_in_data, load_index, reader_of
from pillsnap.data.manifest_csv import write_manifest
from pillsnap.data.records import Scan
from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
from pillsnap.errors import ConfigError, DataError
from tests.builders import (
    aihub_combo_dirs,
    aihub_single_dirs,
    aihub_stem,
    write_aihub,
    write_folders,
    write_image,
    write_yolo,
)

pytestmark = pytest.mark.req("DAT-4")

HEAD = "image_path,mapping_code,image_type,source"
COMBO = "K-000001-000002"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures of one drug and two of one combination."""
    return write_aihub(tmp_path / "data", singles={"K-000001": 3}, combos={COMBO: 2})


def single(root: Path, index: int) -> str:
    return (
        (aihub_single_dirs(root, "K-000001")[0] / f"{aihub_stem('K-000001', index)}.png").relative_to(root).as_posix()
    )


def combo(root: Path, index: int) -> str:
    return (aihub_combo_dirs(root, COMBO)[0] / f"{aihub_stem(COMBO, index)}.png").relative_to(root).as_posix()


def manifest(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([HEAD, *lines, ""]), encoding="utf-8")
    return path


def kinds(scan: Scan) -> dict[str, str]:
    return {problem.kind: problem.path for problem in scan.problems}


def share_damaged(root: Path, scan: Scan) -> float:
    damage = Damage(root, len(scan.records), 1.0)
    damage.note_index(scan.problems)
    return damage.share


def test_a_manifest_of_everything_changes_nothing(tmp_path: Path, root: Path) -> None:
    whole = load_index(root)
    write_manifest(whole.records, tmp_path / "m.csv")
    scan = load_index(root, manifest=tmp_path / "m.csv")
    assert scan.records.table.equals(whole.records.table)
    assert (list(scan.problems), scan.names) == ([], whole.names)


def test_only_the_listed_pictures_are_used_in_the_order_of_the_data_set(tmp_path: Path, root: Path) -> None:
    lines = [f"{single(root, 2)},K-000001,single,x", f"{combo(root, 0)},K-000002+K-000001,combo,x"]
    scan = load_index(root, manifest=manifest(tmp_path / "m.csv", *lines))
    assert scan.records.column("image_path").tolist() == [combo(root, 0), single(root, 2)]
    assert scan.records.box_codes(0) == ["K-000001", "K-000002"]


@pytest.mark.parametrize("code", ["K-000001-000002", "K-000002-000001", "K-000001+K-000002", ""])
def test_the_pills_of_a_combo_are_named_in_any_order_or_not_at_all(tmp_path: Path, root: Path, code: str) -> None:
    scan = load_index(root, manifest=manifest(tmp_path / "m.csv", f"{combo(root, 1)},{code},combo,x"))
    assert (len(scan.records), list(scan.problems)) == (1, [])


def test_lines_that_do_not_fit_are_problems(tmp_path: Path, root: Path) -> None:
    lines = [
        f"{single(root, 0)},K-000001,single,x",
        f"{single(root, 0)},K-000002,single,x",
        f"{single(root, 1)},K-000002,single,x",
        f"{combo(root, 0)},K-000001+K-000001,combo,x",
        f"{combo(root, 1)},K-000001,single,x",
        "train/nowhere.png,K-000001,single,x",
    ]
    scan = load_index(root, manifest=manifest(tmp_path / "m.csv", *lines))
    assert scan.records.column("image_path").tolist() == [single(root, 0)]
    assert [(problem.kind, problem.path) for problem in scan.problems] == [
        ("code_mismatch", combo(root, 0)),
        ("code_mismatch", combo(root, 1)),
        ("duplicate_line", single(root, 0)),
        ("code_mismatch", single(root, 1)),
        ("not_in_data", "train/nowhere.png"),
    ]
    assert "is single K-000002 by the manifest and single K-000001 in the data set" in scan.problems[3].detail


def test_problems_of_pictures_that_are_not_listed_are_left_out(tmp_path: Path, root: Path) -> None:
    for index in (0, 1):
        (root / single(root, index)).write_bytes(b"")
    lines = [f"{single(root, index)},K-000001,single,x" for index in (1, 2)]
    scan = load_index(root, manifest=manifest(tmp_path / "m.csv", *lines))
    assert kinds(scan) == {"empty_image": single(root, 1), "not_in_data": single(root, 1)}


def test_damage_outside_of_the_listed_pictures_is_no_share_of_them(tmp_path: Path) -> None:
    spec = SyntheticSpec(num_drugs=4, singles_per_drug=130, num_combos=15, width=160, height=200, blemishes=True)
    root = draw_dataset(tmp_path / "data", spec, num_processes=2).root
    whole = load_index(root)
    is_labelled = np.array([len(whole.records.boxes_xyxy(row)) > 0 for row in range(len(whole.records))])
    write_manifest(whole.records.select(np.flatnonzero(is_labelled)[::4][:120]), tmp_path / "m.csv")
    listed = load_index(root, manifest=tmp_path / "m.csv")
    assert len(listed.records) == 120
    assert share_damaged(root, whole) > 0.005
    assert share_damaged(root, listed) == 0


def test_a_broken_label_of_a_listed_picture_stays_a_problem(tmp_path: Path, root: Path) -> None:
    for index in (0, 1):
        (label,) = root.rglob(f"{aihub_stem('K-000001', index)}.json")
        label.write_text("{")
    scan = load_index(root, manifest=manifest(tmp_path / "m.csv", f"{single(root, 1)},K-000001,single,x"))
    assert [(each.kind, Path(each.path).stem) for each in scan.problems] == [("broken_json", aihub_stem("K-000001", 1))]


def test_a_manifest_of_another_data_set_is_an_error(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match=r"names no picture of the data set .*1 lines; first: b.png: is named by"):
        load_index(root, manifest=manifest(tmp_path / "m.csv", "b.png,K-000001,single,x"))


def test_with_a_cache_the_chosen_pictures_are_shared_by_their_file(tmp_path: Path, root: Path) -> None:
    path = manifest(tmp_path / "m.csv", f"{single(root, 0)},K-000001,single,x")
    scan = load_index(root, cache_dir=tmp_path / "cache", manifest=path)
    assert scan.records.table.equals(load_index(root, manifest=path).records.table)
    assert sorted(file.name.partition("-")[0] for file in (tmp_path / "cache").iterdir()) == ["index", "manifest"]


def test_a_cache_that_cannot_be_written_costs_only_memory(
    tmp_path: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    path = manifest(tmp_path / "m.csv", f"{single(root, 0)},K-000001,single,x")
    assert len(load_index(root, cache_dir=tmp_path / "cache", manifest=path).records) == 1
    assert "the pictures of the manifest stay in memory" in caplog.text


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures that lie like no data set."""
    for name in ("top.jpg", "a/1.png", "a/2.png", "a/deep/3.png", "train/b/4.png"):
        write_image(tmp_path / "photos" / name)
    (tmp_path / "photos" / "a" / "cut.png").write_bytes(b"\x89PNG" * 100)
    (tmp_path / "photos" / "a" / "empty.png").touch()
    (tmp_path / "photos" / "a" / "notes.txt").write_text("x" * 200)
    return tmp_path / "photos"


LINES = [
    "top.jpg,gamma,single,x",
    "a/1.png,alpha,single,x",
    "a/deep/3.png,beta,single,x",
    "train/b/4.png,beta,single,x",
    "a/2.png,alpha+beta,combo,x",
    "a/cut.png,alpha,single,x",
    "a/empty.png,alpha,single,x",
    "a/notes.txt,alpha,single,x",
    "a/gone.png,alpha,single,x",
    "a/1.png,beta,single,x",
]


def test_in_other_folders_the_manifest_is_the_data_set(tmp_path: Path, photos: Path) -> None:
    scan = load_index(photos, "manifest", manifest=manifest(tmp_path / "m.csv", *LINES))
    rows = {row["image_path"]: row for row in scan.records.table.to_pylist()}
    assert {path: row["code"] for path, row in rows.items()} == {
        "a/1.png": "alpha",
        "a/deep/3.png": "beta",
        "top.jpg": "gamma",
        "train/b/4.png": "beta",
    }
    assert rows["train/b/4.png"]["part"] == "train"
    assert (rows["a/1.png"]["task"], rows["a/1.png"]["width"], rows["a/1.png"]["boxes_xyxy"]) == ("single", 96, [])
    assert [(problem.kind, problem.path) for problem in scan.problems] == [
        ("duplicate_line", "a/1.png"),
        ("combo_without_boxes", "a/2.png"),
        ("broken_image", "a/cut.png"),
        ("empty_image", "a/empty.png"),
        ("not_in_data", "a/gone.png"),
        ("not_in_data", "a/notes.txt"),
    ]


def test_a_folder_of_no_known_layout_is_read_by_the_manifest_alone(tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "a.jpg")
    path = manifest(tmp_path / "m.csv", "a.jpg,alpha,single,x")
    assert load_index(tmp_path / "photos", manifest=path).records.column("source").tolist() == ["manifest"]
    with pytest.raises(DataError, match="lies like no data set that can be read"):
        load_index(tmp_path / "photos")


def test_the_second_start_opens_no_picture_and_notices_changes(
    tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = manifest(tmp_path / "m.csv", *LINES)

    def load() -> Scan:
        return load_index(photos, "manifest", tmp_path / "cache", manifest=path)

    first = load()
    caplog.set_level(logging.INFO, "pillsnap")
    assert load().records.table.equals(first.records.table)
    assert "from the label cache" in caplog.text
    write_image(photos / "a" / "gone.png")
    write_image(photos / "top.jpg", (48, 64))
    manifest(path, *LINES[:2], "a/deep/3.png,delta,single,x", *LINES[3:])
    again = load()
    assert again.records.table.equals(load_index(photos, "manifest", manifest=path).records.table)
    assert not again.records.table.equals(first.records.table)


def test_a_folder_with_a_class_folder_each_stays_one_with_its_own_classes(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "data")
    path = manifest(tmp_path / "m.csv", "alpha/alpha_0.jpg,alpha,single,x", "beta/beta_0.jpg,alpha,single,x")
    assert kinds(load_index(root, manifest=path)) == {"code_mismatch": "beta/beta_0.jpg"}
    assert load_index(root, "manifest", manifest=path).records.column("code").tolist() == ["alpha", "alpha"]


def test_a_yolo_data_set_is_restricted_too(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data")
    write_manifest(load_index(root).records, tmp_path / "m.csv")
    assert load_index(root, manifest=tmp_path / "m.csv").records.table.equals(load_index(root).records.table)


def test_the_reader_manifest_needs_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data.reader is 'manifest', but there is no manifest"):
        reader_of(tmp_path, "manifest")


def test_the_folders_of_a_manifests_pictures_are_not_written_to(tmp_path: Path, photos: Path) -> None:
    path = manifest(tmp_path / "m.csv", *LINES)
    inside = [lies_in_data(photos / folder, photos, "manifest", path) for folder in ("a/cache", "exp")]
    assert inside == [True, False]
