from __future__ import annotations

from pathlib import Path

import pytest

from pillsnap.data.aihub576 import read_aihub576
from pillsnap.data.manifest_csv import read_manifest_csv, write_manifest, write_rejected
from pillsnap.data.records import Problem
from pillsnap.data.yolo import read_yolo
from pillsnap.errors import DataError, PillError
from tests.builders import write_aihub, write_yolo

pytestmark = pytest.mark.req("DAT-4")

HEAD = "image_path,mapping_code,image_type,source\n"


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    records = read_aihub576(
        write_aihub(tmp_path / "data", singles={"K-000001": 1}, combos={"K-000001-000002": 1})
    ).records
    write_manifest(records, tmp_path / "m.csv")
    combo, single = read_manifest_csv(tmp_path / "m.csv").to_pylist()
    assert [combo["image_path"], single["image_path"]] == records.column("image_path").tolist()
    assert (combo["mapping_code"], combo["image_type"], combo["source"]) == ("K-000001+K-000002", "combo", "aihub576")
    assert (single["mapping_code"], single["image_type"], single["source"]) == ("K-000001", "single", "aihub576")


def test_the_first_line_names_the_columns_of_the_specification(tmp_path: Path) -> None:
    write_manifest(read_yolo(write_yolo(tmp_path / "data")).records, tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text().startswith(HEAD)


def test_names_with_commas_and_quotes_are_read_again(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", {'a, "b".jpg': [(0, 0.5, 0.5, 0.2, 0.2)]})
    write_manifest(read_yolo(root).records, tmp_path / "m.csv")
    assert read_manifest_csv(tmp_path / "m.csv").column("image_path").to_pylist() == ['images/a, "b".jpg']


def test_rejected_files_are_written_with_their_reason(tmp_path: Path) -> None:
    write_rejected([Problem("empty_image", "약.png", 'has 0 bytes, "nothing"')], tmp_path / "r.csv")
    lines = (tmp_path / "r.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["path,reason,detail", '약.png,empty_image,"has 0 bytes, ""nothing"""']


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PillError, match="cannot be written"):
        write_rejected([], tmp_path / "nowhere" / "r.csv")


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_extra_columns_empty_lines_and_any_order_are_fine(tmp_path: Path, mark: str) -> None:
    lines = [
        "split,source,image_type,mapping_code,image_path",
        'train,x,single,00012,"a, b.png"',
        "",
        ",,combo,,약/c.png",
    ]
    text = mark + "\r\n".join(lines)
    assert read_manifest_csv(written(tmp_path / "m.csv", text)).to_pylist() == [
        {"image_path": "a, b.png", "mapping_code": "00012", "image_type": "single", "source": "x"},
        {"image_path": "약/c.png", "mapping_code": "", "image_type": "combo", "source": ""},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", r"it has no column image_path, mapping_code, image_type, source", id="empty file"),
        pytest.param(HEAD, "it has no line below the column names", id="no line"),
        pytest.param("image_path,image_type,source\na.png,single,x\n", "it has no column mapping_code", id="column"),
        pytest.param('{"image_path": "a.png"}', "it has no column", id="JSON"),
        pytest.param(HEAD + "/data/a.png,K,single,x\n", "line 2: image_path '/data/a.png' is absolute", id="absolute"),
        pytest.param(HEAD + "C:/a.png,K,single,x\n", "line 2: image_path 'C:/a.png' is absolute", id="drive"),
        pytest.param(HEAD + "a/../../b.png,K,single,x\n", "leads out of the data set", id="upwards"),
        pytest.param(HEAD + "a\\b.png,K,single,x\n", "has a backslash; write / between folders", id="backslash"),
        pytest.param(HEAD + ",K,single,x\n", "line 2: image_path '' is empty", id="no path"),
        pytest.param(HEAD + "a\0.png,K,single,x\n", "a character that no file name can have", id="NUL"),
        pytest.param(HEAD + "a.png,K,triple,x\n", "line 2: image_type 'triple' is neither single nor combo", id="type"),
        pytest.param(HEAD + "a.png,,single,x\n", "line 2: mapping_code '' names no class", id="no class"),
        pytest.param(HEAD + "a.png,K\nb.png,K,single,x\n", "line 2 has 2 values for 4 columns", id="short line"),
        pytest.param(HEAD + '"q\nq.png",K,single,x\n\n/b.png,K,single,x\n', "line 5: image_path '/b.png'", id="number"),
        pytest.param("a" * 200_000, "field larger than field limit", id="one long line"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_manifest_csv(written(tmp_path / "m.csv", text))
    assert f"The manifest {tmp_path / 'm.csv'} cannot be used" in str(error.value)
    assert "pillsnap data index" in str(error.value)


@pytest.mark.parametrize("encoding", ["cp949", "utf-16"])
def test_another_encoding_is_named_with_its_line(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(DataError, match=r"line \d is not UTF-8 \(.*\); save it as UTF-8"):
        read_manifest_csv(written(tmp_path / "m.csv", HEAD + "약.png,K,single,x\n", encoding))


def test_the_first_of_many_faults_are_listed(tmp_path: Path) -> None:
    text = HEAD + "".join(f"/{number}.png,K,single,x\n" for number in range(30))
    with pytest.raises(DataError) as error:
        read_manifest_csv(written(tmp_path / "m.csv", text))
    assert [f"line {number}: " in str(error.value) for number in (2, 11, 12)] == [True, True, False]


@pytest.mark.parametrize("name", ["nowhere.csv", "."])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"it cannot be read \("):
        read_manifest_csv(tmp_path / name)
