from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig
from PIL import Image, ImageFilter

from pillsnap.config.loading import load_config
from pillsnap.data import near_copies
from pillsnap.data.images import decode_rgb
from pillsnap.data.leakage import Copy, LeakageReport, check_leakage, find_leaks, judge_leaks
from pillsnap.data.twostage import TwoStageData, load_data
from pillsnap.errors import DataError
from tests.builders import write_folders
from tests.unit.config.builders import REPOSITORY

pytestmark = pytest.mark.req("DAT-1")

PHOTOGRAPHS = REPOSITORY.parent / "shared" / "data" / "mypillbox"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "data", parts=("train", "val", "test"), suffix=".png")


def config(root: Path, *overrides: str) -> DictConfig:
    words = [f"data.root={root}", f"paths.exp_dir={root.parent}/exp", "train.tasks=[classification]"]
    return load_config(REPOSITORY / "configs" / "photos.yaml", [*words, "data.split.leakage=error", *overrides])


def load(cfg: DictConfig) -> TwoStageData:
    (Path(cfg.paths.exp_dir) / "reports").mkdir(parents=True, exist_ok=True)
    return load_data(cfg)


def plant_copy(root: Path) -> None:
    """Save a training picture once more, as JPEG and under another name, among those of val."""
    image = decode_rgb(root / "train" / "alpha" / "alpha_train0.png")
    smooth = Image.fromarray(image).filter(ImageFilter.GaussianBlur(2))  # noise alone is not what JPEG is made for
    smooth.save(root / "train" / "alpha" / "alpha_train0.png")
    smooth.save(root / "val" / "alpha" / "holiday.jpg", quality=90, subsampling=0)


def test_data_without_leaks_pass_and_the_log_says_so(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pillsnap")
    cfg = config(root)
    data = load(cfg)
    report = check_leakage(data, cfg, Path(cfg.paths.exp_dir))
    assert (report.has_leaks, report.num_pictures) == (False, 24)
    assert "no group lies on two sides, and no copy (24 pictures compared)" in caplog.text


def test_a_copy_on_another_side_stops_the_run_and_is_named(root: Path) -> None:
    plant_copy(root)
    cfg = config(root)
    data = load(cfg)
    with pytest.raises(
        DataError, match=r"1 pairs of copies \(train/alpha/alpha_train0.png \(train\) and val/alpha/hol"
    ):
        check_leakage(data, cfg, Path(cfg.paths.exp_dir))
    written = json.loads((Path(cfg.paths.exp_dir) / "reports" / "leakage.json").read_text())
    assert written["has_leaks"] is True
    assert written["copies"][0]["second"] == "val/alpha/holiday.jpg"


def report_of(num_twins: int, num_judged: int, groups: tuple[str, ...] = ()) -> LeakageReport:
    copies = [Copy(f"{number}.png", "train", f"{number}.jpg", "test", 0.5) for number in range(num_twins)]
    return LeakageReport(list(groups), copies, True, 10 * num_judged, num_judged)


@pytest.mark.parametrize(
    ("num_twins", "num_judged", "groups", "verdict"),
    [
        (0, 100, (), "none"),
        (1, 999, (), "leaks"),
        (1, 1000, (), "few"),
        (100, 100_000, (), "few"),
        (101, 100_000, (), "leaks"),
        (188, 280, (), "leaks"),
        (0, 100_000, ("a|1",), "leaks"),
        (near_copies.MAX_PAIRS, 10**9, (), "leaks"),
    ],
)
def test_the_share_of_pictures_with_copies_makes_the_verdict(
    num_twins: int, num_judged: int, groups: tuple[str, ...], verdict: str
) -> None:
    assert report_of(num_twins, num_judged, groups).verdict == verdict


def test_a_picture_of_val_and_its_copy_in_test_are_two_and_one_with_two_copies_is_one() -> None:
    copies = [Copy("a", "test", "b", "val", 0.5), Copy("a", "test", "c", "train", 0.5)]
    assert LeakageReport([], copies, True, 3, 2).num_twins == 2


def test_few_look_alikes_of_many_pictures_are_a_warning_that_names_them(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config(root)
    data = load(cfg)
    judge_leaks(report_of(3, 50_000), data, cfg, Path(cfg.paths.exp_dir))
    assert "3 pairs of copies (0.png (train) and 0.jpg (test)" in caplog.text
    assert "3 of 50000 pictures of val and test" in caplog.text
    assert json.loads((Path(cfg.paths.exp_dir) / "reports" / "leakage.json").read_text())["verdict"] == "few"


@pytest.fixture
def num_searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note each search, by the number of its pictures."""
    seen: list[int] = []
    plain = near_copies.find_copies

    def noting(pixels: near_copies.Thumbnails, *rest: Any) -> near_copies.FoundCopies:
        seen.append(len(pixels))
        return plain(pixels, *rest)

    monkeypatch.setattr(near_copies, "find_copies", noting)
    return seen


def test_a_second_start_does_not_search_again(root: Path, num_searches: list[int]) -> None:
    plant_copy(root)
    cfg = config(root)
    assert find_leaks(load(cfg), cfg) == find_leaks(load(cfg), cfg)
    assert num_searches == [25]


def test_a_changed_picture_is_compared_again(root: Path, num_searches: list[int]) -> None:
    cfg = config(root)
    assert not find_leaks(load(cfg), cfg).has_leaks
    shutil.copy(root / "train/alpha/alpha_train0.png", root / "val/alpha/alpha_val0.png")
    assert find_leaks(load(cfg), cfg).has_leaks
    assert len(num_searches) == 2


def test_pictures_on_other_sides_are_compared_again(root: Path, num_searches: list[int]) -> None:
    for seed in (1, 2):
        cfg = config(root, "data.split.policy=groups", f"data.split.seed={seed}")
        find_leaks(load(cfg), cfg)
    assert len(num_searches) == 2


@pytest.mark.parametrize("damage", [(b"alpha_train0", b"alpha_train1"), (b"found", b"fo\xffnd"), (b"mean_", b"main_")])
def test_a_damaged_result_is_searched_again(
    root: Path, damage: tuple[bytes, bytes], num_searches: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    plant_copy(root)
    cfg = config(root)
    first = find_leaks(load(cfg), cfg)
    (path,) = Path(cfg.paths.cache_dir).glob("leakage-*.json")
    path.write_bytes(path.read_bytes().replace(*damage))
    assert find_leaks(load(cfg), cfg) == first
    assert len(num_searches) == 2
    assert "copies are looked for again" in caplog.text


def test_a_copy_is_a_warning_where_that_is_wanted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant_copy(root)
    cfg = config(root, "data.split.leakage=warn")
    assert check_leakage(load(cfg), cfg).has_leaks
    assert "1 pairs of copies" in caplog.text
    assert "lie on two sides of the split, so its scores are too good" in caplog.text


def test_copies_are_not_looked_for_where_that_is_switched_off(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pillsnap")
    plant_copy(root)
    cfg = config(root, "data.split.check_duplicates=false")
    report = check_leakage(load(cfg), cfg)
    assert (report.has_leaks, report.copies) == (False, None)
    assert "copies not looked for" in caplog.text


def test_a_group_in_two_given_parts_stops_the_run(root: Path) -> None:
    names = ("IMG_1_jpg.rf.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.png", "IMG_1_jpg.rf.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.png")
    shutil.move(root / "train/alpha/alpha_train1.png", root / "train/alpha" / names[0])
    shutil.move(root / "val/alpha/alpha_val1.png", root / "val/alpha" / names[1])
    cfg = config(root, "data.split.check_duplicates=false")
    with pytest.raises(DataError, match=r"1 groups of pictures \(alpha\|.*Split again by data.split.policy=groups"):
        check_leakage(load(cfg), cfg)


def test_a_broken_picture_is_no_copy(root: Path) -> None:
    (root / "val" / "alpha" / "alpha_val0.png").write_bytes(b"\x89PNG not really, but long enough " * 9)
    cfg = config(root)
    assert find_leaks(load(cfg), cfg).num_pictures == 23


@pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason="../shared/data is absent: real photographs are not in the project"
)
@pytest.mark.parametrize(("name", "has_leaks"), [("drug1", True), ("pushin_pill", False)])
def test_real_photographs_are_judged_as_they_are(tmp_path: Path, name: str, has_leaks: bool) -> None:
    cfg = config(PHOTOGRAPHS / name, f"paths.exp_dir={tmp_path}/exp")
    report = find_leaks(load(cfg), cfg)
    assert report.verdict == ("leaks" if has_leaks else "none")
    drug_of = [[Path(path).name.split("--")[0] for path in (copy.first, copy.second)] for copy in report.copies or []]
    assert all(one == other for one, other in drug_of)
