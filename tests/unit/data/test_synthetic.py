from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pillsnap.data.aihub576 import read_aihub576
from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
from pillsnap.data.synthetic_jobs import JobCost, Studio, draw_job
from pillsnap.data.synthetic_layout import Job
from pillsnap.errors import ConfigError, DataError

TINY = SyntheticSpec(num_drugs=3, singles_per_drug=2, num_combos=3, width=160, height=200)


# A test run in the background ignores SIGINT, and its children with it, unless they ask for it again.
DRAW_UNTIL_INTERRUPTED = """
import pathlib, signal, sys
from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
signal.signal(signal.SIGINT, signal.default_int_handler)
draw_dataset(pathlib.Path(sys.argv[1]), SyntheticSpec(), num_processes=2)
"""


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fail_like_a_full_disk(_studio: Studio, _job: Job) -> JobCost:
    raise OSError(errno.ENOSPC, "No space left on device")


def die_like_a_killed_process(_studio: Studio, _job: Job) -> JobCost:
    os._exit(9)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "set"
    draw_dataset(root, TINY, num_processes=1)
    return root


def test_the_summary_counts_what_lies_in_the_folder(tmp_path: Path) -> None:
    summary = draw_dataset(tmp_path, TINY)
    pictures, labels = list(tmp_path.rglob("*.png")), list(tmp_path.glob("train/**/*.json"))
    assert (summary.num_drugs, summary.num_singles, summary.num_combos, summary.is_reused) == (3, 6, 3, False)
    assert len(pictures) == summary.num_singles + summary.num_combos
    assert len(labels) == summary.num_labels == 6 + 3 * 3
    assert summary.seconds > 0
    assert summary.faults == {}


@pytest.mark.req("DAT-1")
def test_the_reader_of_the_real_set_reads_it_without_a_problem(drawn: Path) -> None:
    scan = read_aihub576(drawn)
    assert scan.problems == []
    assert sorted(scan.records.column("task")) == ["combo"] * 3 + ["single"] * 6
    assert len(scan.names) == 3


def test_the_same_seed_draws_the_same_bytes_with_two_processes(drawn: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path, TINY, num_processes=2)
    assert digests(tmp_path) == digests(drawn)


def test_another_seed_draws_other_drugs(drawn: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path, SyntheticSpec(num_drugs=3, singles_per_drug=2, num_combos=3, width=160, height=200, seed=43))
    assert not set(digests(tmp_path).values()) & set(digests(drawn).values())


def test_a_complete_folder_is_reused_untouched(drawn: Path) -> None:
    before = digests(drawn)
    summary = draw_dataset(drawn, TINY)
    assert summary.is_reused
    assert (summary.num_singles, summary.num_combos, summary.num_labels) == (6, 3, 15)
    assert digests(drawn) == before


def test_a_complete_folder_of_another_spec_is_refused_naming_both(drawn: Path) -> None:
    other = SyntheticSpec(num_drugs=4, singles_per_drug=2, num_combos=3, width=160, height=200, seed=5)
    with pytest.raises(DataError, match=r"num_drugs is 3, wanted 4, seed is 42, wanted 5\. Delete the folder"):
        draw_dataset(drawn, other)


def test_a_half_drawn_folder_is_drawn_afresh(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "synthetic.started.json").write_text("{}")
    leftover = tmp_path / "train/images/single/TS_1_single/K-999999/K-999999_0_0_0_0_60_000_200.png"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half a picture")
    draw_dataset(tmp_path, TINY)
    assert digests(tmp_path) == digests(drawn)


class Killed(BaseException):
    pass


def draw_until_killed(root: Path, monkeypatch: pytest.MonkeyPatch, num_jobs: int, spec: SyntheticSpec = TINY) -> None:
    """Draw `num_jobs` whole jobs and half of the next."""
    drawn: list[Job] = []

    def draw(studio: Studio, job: Job) -> JobCost:
        if len(drawn) == num_jobs:
            draw_job(studio, replace(job, shots=job.shots[:1]))
            raise Killed
        drawn.append(job)
        return draw_job(studio, job)

    with monkeypatch.context() as patch:
        patch.setattr("pillsnap.data.synthetic.draw_job", draw)
        with pytest.raises(Killed):
            draw_dataset(root, spec, num_processes=1)


def test_a_killed_drawing_goes_on_and_gives_the_same_bytes(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_until_killed(tmp_path, monkeypatch, 2)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    told: list[int] = []
    summary = draw_dataset(tmp_path, TINY, num_processes=1, progress=lambda done, _: told.append(done))
    assert digests(tmp_path) == digests(drawn)
    assert told == [4, 6, 9]
    assert (summary.cost.num_pictures, summary.num_singles + summary.num_combos) == (5, 9)
    assert sum(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items()) == 4


@pytest.mark.parametrize("damage", ["picture gone", "label empty", "journal cut", "journal gone"])
def test_what_is_not_whole_is_drawn_again(
    damage: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_until_killed(tmp_path, monkeypatch, 2)
    journal = tmp_path / "synthetic.drawn.txt"
    assert journal.read_text() == "0\n1\n"
    damages: dict[str, Callable[[], object]] = {
        "picture gone": lambda: next(tmp_path.rglob("*.png")).unlink(),
        "label empty": lambda: next(tmp_path.glob("train/**/*.json")).write_text(""),
        "journal cut": lambda: journal.write_text("0\n1"),
        "journal gone": journal.unlink,
    }
    damages[damage]()
    summary = draw_dataset(tmp_path, TINY, num_processes=1)
    assert summary.cost.num_pictures > 5
    assert digests(tmp_path) == digests(drawn)


def test_the_number_of_the_next_job_is_not_joined_to_one_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_until_killed(tmp_path, monkeypatch, 1)
    (tmp_path / "synthetic.drawn.txt").write_text("0\n1")
    draw_until_killed(tmp_path, monkeypatch, 1)
    assert (tmp_path / "synthetic.drawn.txt").read_text() == "0\n1\n"


def test_a_half_drawn_folder_of_another_spec_is_drawn_afresh(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_until_killed(tmp_path, monkeypatch, 2, replace(TINY, seed=7))
    assert draw_dataset(tmp_path, TINY, num_processes=1).cost.num_pictures == 9
    assert digests(tmp_path) == digests(drawn)


def test_planted_faults_are_not_taken_for_finished_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise Killed

    spec = SyntheticSpec(num_drugs=4, singles_per_drug=10, num_combos=3, width=160, height=200, blemishes=True)
    with monkeypatch.context() as patch:
        patch.setattr("pillsnap.data.synthetic.plant_blemishes", die)
        with pytest.raises(Killed):
            draw_dataset(tmp_path, spec, num_processes=1)
    assert draw_dataset(tmp_path, spec, num_processes=1).cost.num_pictures == 43


def test_what_does_not_fit_on_the_disk_is_refused_before_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillsnap.data.synthetic.shutil.disk_usage", lambda _: SimpleNamespace(free=400_000))
    with pytest.raises(
        DataError, match=r"9 pictures of 160x200 do not fit .* about 0\.0 GB, 0\.0 GB are free\. Free some"
    ):
        draw_dataset(tmp_path, TINY)
    assert list(tmp_path.rglob("*.png")) == []


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"is not empty \(1 entries, 'holiday.png' first\).*Choose another folder"):
        draw_dataset(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]


def test_a_file_in_place_of_the_folder_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "pills").write_text("not a folder")
    with pytest.raises(DataError, match=r"cannot be drawn into .*pills: .*File exists.*Free some, or choose another"):
        draw_dataset(tmp_path / "pills", TINY)


@pytest.mark.parametrize("content", ["no json", "{}", '{"recipe": 1, "spec": {}, "counts": 3}'])
def test_a_damaged_completion_file_is_a_data_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "synthetic.json").write_text(content)
    with pytest.raises(DataError, match=r"does not describe a synthetic data set .*Delete the folder"):
        draw_dataset(tmp_path, TINY)


def test_progress_is_told_up_to_the_last_picture(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    draw_dataset(tmp_path, TINY, num_processes=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 9), (2, 9), (4, 9), (6, 9), (9, 9)]


def test_zero_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_processes is 0; wanted at least 1\. Leave it out"):
        draw_dataset(tmp_path, TINY, num_processes=0)


def test_a_full_disk_in_a_drawing_process_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillsnap.data.synthetic.draw_job", fail_like_a_full_disk)
    with pytest.raises(DataError, match=r"into .*: \[Errno 28\] No space left.*drawing again goes on from here"):
        draw_dataset(tmp_path, TINY, num_processes=2)
    assert (tmp_path / "synthetic.started.json").is_file()


def test_a_killed_drawing_process_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillsnap.data.synthetic.draw_job", die_like_a_killed_process)
    with pytest.raises(DataError, match=r"is incomplete: a drawing process was killed .*Draw again with --processes 1"):
        draw_dataset(tmp_path, TINY, num_processes=2)


def test_pressing_ctrl_c_twice_ends_all_drawing_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRAW_UNTIL_INTERRUPTED, str(tmp_path)]
    drawing = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(tmp_path.rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(drawing.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(drawing.pid, signal.SIGINT)
    _, errors = drawing.communicate(timeout=20)  # returns once no process holds the pipe any more
    assert errors.strip().endswith("KeyboardInterrupt")
    assert (tmp_path / "synthetic.started.json").is_file()


def test_unknown_drugs_occur_in_the_val_part_only(tmp_path: Path) -> None:
    spec = SyntheticSpec(
        num_drugs=5, singles_per_drug=1, num_combos=30, width=160, height=200, num_unknown_drugs=2, with_data_level=True
    )
    draw_dataset(tmp_path, spec)
    train = {path.name for path in tmp_path.glob("data/train/images/single/TS_1_single/*")}
    val = {path.name for path in tmp_path.glob("data/val/images/single/VS_1_single/*")}
    val_combo_labels = {path.name for path in tmp_path.glob("data/val/labels/combination/VL_1_combo/*/*")}
    train_combo_labels = {path.name for path in tmp_path.glob("data/train/labels/combination/TL_1_combo/*/*")}
    assert (len(train), len(val), train & val) == (5, 2, set())
    assert train_combo_labels == train
    assert val_combo_labels & val
    assert val_combo_labels & train


def test_unknown_drugs_change_no_known_one(tmp_path: Path) -> None:
    for num_unknown in (0, 2):
        draw_dataset(
            tmp_path / str(num_unknown),
            SyntheticSpec(
                num_drugs=2, singles_per_drug=2, num_combos=0, width=160, height=200, num_unknown_drugs=num_unknown
            ),
        )
    without, with_unknown = (sorted((tmp_path / name / "train").rglob("*.png")) for name in ("0", "2"))
    assert [path.name for path in without] == [path.name for path in with_unknown]
    assert [path.read_bytes() for path in without] == [path.read_bytes() for path in with_unknown]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"num_drugs": 1, "num_combos": 0}, "num_drugs is 1; wanted 2 to 5000. Set num_drugs=2."),
        ({"singles_per_drug": 1297}, "singles_per_drug is 1297; wanted 1 to 1296. Set singles_per_drug=1296."),
        ({"width": 977}, "width is 977; wanted 160 to 976. Set width=976."),
        ({"height": 199}, "height is 199; wanted 200 to 1280. Set height=200."),
        ({"seed": -1}, "seed is -1; wanted 0 to"),
        ({"num_unknown_drugs": -1}, "num_unknown_drugs is -1; wanted 0 to 5000."),
        ({"num_drugs": 3, "num_combos": 4}, "3 drugs give at most 3 pictures of different combinations."),
        ({"num_combos": 0, "blemishes": True}, "blemishes need 40 single and 3 combination pictures to damage"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_spec_that_cannot_be_drawn_says_why(values: dict[str, int], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SyntheticSpec(**values)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_all_faults_of_a_spec_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"width is 1; .* height is 2; .*"):
        SyntheticSpec(width=1, height=2)
