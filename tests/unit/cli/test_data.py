from __future__ import annotations

import json
from pathlib import Path

import pytest

from pillsnap.cli.data import check, index
from pillsnap.cli.main import main
from pillsnap.errors import DataError
from tests.builders import write_folders, write_image, write_yolo

pytestmark = pytest.mark.req("DAT-2")


def test_contents_and_problems_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write_yolo(tmp_path / "[data]") / "images" / "train" / "a0.jpg").unlink()
    check(tmp_path / "[data]", decode=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "[data]" in text
    assert "classes │ 2" in text
    assert "train 13" in text
    assert "missing_image" in text
    assert "truncated ones are not found" in text


def test_a_clean_data_set_has_no_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(write_folders(tmp_path, {"alpha": 2, "beta": 1}), decode=True)
    text = capsys.readouterr().out
    assert "No problems found." in text
    assert "which can be trained but not validated: beta" in text


def test_all_of_it_is_written_as_json(tmp_path: Path) -> None:
    check(write_folders(tmp_path / "data"), decode=False, json_file=tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["num_pictures"] == {"single": 8, "combo": 0}


def test_a_data_set_that_cannot_train_anything_ends_with_the_data_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "alpha" / "1.jpg")
    with pytest.raises(DataError, match=r"cannot train anything: it has 1 class\(es\) and no boxes") as error:
        check(tmp_path, decode=False)
    assert error.value.exit_code == 3
    assert "fewer than two classes" in capsys.readouterr().out


def test_the_command_returns_the_exit_code(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main(["data", "check", str(tmp_path), "--no-decode", "--reader", "yolo"])
    assert leaving.value.code == 0


def test_the_command_on_a_missing_folder_ends_with_3_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["data", "check", str(tmp_path / "nowhere")])
    assert leaving.value.code == 3
    assert "nowhere does not exist" in capsys.readouterr().err


@pytest.mark.req("DAT-4")
def test_the_index_is_written_as_csv_with_what_was_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folders(tmp_path / "data", {"alpha": 2, "beta": 1})
    (root / "alpha" / "empty.jpg").touch()
    with pytest.raises(SystemExit) as leaving:
        main(["data", "index", str(root), "--csv", str(tmp_path / "m.csv"), "--rejected", str(tmp_path / "r.csv")])
    assert leaving.value.code == 0
    assert "3 pictures, 1 problems" in capsys.readouterr().out
    assert (tmp_path / "m.csv").read_text().splitlines()[1] == "alpha/alpha_0.jpg,alpha,single,folders"
    assert (tmp_path / "r.csv").read_text().splitlines()[1].startswith("alpha/empty.jpg,empty_image,")


@pytest.mark.req("DAT-4")
def test_the_index_of_a_manifest_holds_its_pictures_alone(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "data", {"alpha": 2, "beta": 1})
    (tmp_path / "chosen.csv").write_text(
        "image_path,mapping_code,image_type,source\nbeta/beta_0.jpg,beta,single,folders\n", encoding="utf-8"
    )
    index(root, tmp_path / "m.csv", manifest=tmp_path / "chosen.csv")
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "chosen.csv").read_bytes()
