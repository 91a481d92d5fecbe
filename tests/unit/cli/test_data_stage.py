from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pillsnap.cli.main import main
from tests.builders import write_folders
from tests.unit.config.builders import REPOSITORY

PHOTOS = str(REPOSITORY / "configs" / "photos.yaml")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    root = write_folders(tmp_path / "data", parts=("train", "val", "test"), suffix=".png")
    return ["--cfg", PHOTOS, f"data.root={root}", f"paths.exp_dir={tmp_path}/exp", "train.tasks=[classification]"]


def run(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["data", *words])
    return ended.value.code


@pytest.mark.req("STG-1")
def test_the_selection_is_written_and_shown(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("select", *words, "--out", str(tmp_path / "new" / "selection.csv")) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Stage 4" in text
    assert "train │ 8 │ 0" in text
    assert (tmp_path / "new" / "selection.csv").read_text().count("\n") == 25
    assert json.loads((tmp_path / "new" / "selection.json").read_text())["split"]["policy"] == "given"


@pytest.mark.req("DAT-1")
def test_data_without_leaks_end_with_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("leaks", *words) == 0
    assert "groups on two sides: 0; pairs of copies: 0" in capsys.readouterr().out


@pytest.mark.req("DAT-1")
def test_leaks_are_shown_and_end_with_the_data_error(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(tmp_path / "data/train/alpha/alpha_train0.png", tmp_path / "data/test/alpha/again.png")
    report = tmp_path / "leaks.json"
    assert run("leaks", *words, "data.split.leakage=error", "--json", str(report)) == 3
    shown = capsys.readouterr()
    assert "copy test/alpha/again.png (test) and train/alpha/alpha_train0.png (train)" in shown.out
    assert "DataError" in shown.err
    assert len(json.loads(report.read_text())["copies"]) == 1


@pytest.mark.req("DAT-1")
def test_copies_are_not_looked_for_where_that_is_off(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("leaks", *words, "data.split.check_duplicates=false") == 0
    assert "pairs of copies: not looked for" in capsys.readouterr().out
