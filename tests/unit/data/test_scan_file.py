from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pillsnap.data.scan_file import TableFile, write_tables
from pillsnap.errors import PillError

pytestmark = pytest.mark.req("DAT-4")

TABLES = {
    "one": pa.table({"text": ["약", "", None], "number": [1, 2, 3]}),
    "two": pa.table({"list": pa.array([[1.0], [], [2.0, 3.0]])}),
    "empty": pa.table({"text": pa.array([], pa.string())}),
}


def written(path: Path) -> Path:
    write_tables(path, TABLES, {"root": "/자료", "count": 3})
    return path


def test_tables_and_metadata_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = TableFile(written(tmp_path / "a.arrow"))
    assert {name: file.table(name).equals(table) for name, table in TABLES.items()} == dict.fromkeys(TABLES, True)
    assert file.metadata == {"root": "/자료", "count": 3}


def test_a_table_of_several_chunks_is_read_as_one(tmp_path: Path) -> None:
    table = pa.concat_tables([TABLES["one"]] * 3)
    write_tables(tmp_path / "a.arrow", {"one": table}, {})
    read = TableFile(tmp_path / "a.arrow").table("one")
    assert read.equals(table)
    assert read.column("text").num_chunks == 1


def test_a_flipped_byte_anywhere_is_noticed(tmp_path: Path) -> None:
    content = written(tmp_path / "a.arrow").read_bytes()
    damaged = tmp_path / "b.arrow"
    for place in [*range(0, len(content), 7), *range(len(content) - 20, len(content))]:
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ValueError, match="checksum differs|cut off or not of this program"):
            TableFile(damaged)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    content = written(tmp_path / "a.arrow").read_bytes()
    for length in range(0, len(content), 7):
        cut = tmp_path / "b.arrow"
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"only \d+ bytes|cut off|checksum"):
            TableFile(cut)


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no table three"):
        TableFile(written(tmp_path / "a.arrow")).table("three")


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PillError, match="cannot be written"):
        write_tables(tmp_path / "nowhere" / "a.arrow", TABLES, {})


def test_the_first_table_is_an_arrow_stream_for_any_program(tmp_path: Path) -> None:
    with pa.memory_map(str(written(tmp_path / "a.arrow"))) as source:
        assert pa.ipc.open_stream(source).read_all().equals(TABLES["one"])


def test_another_process_maps_the_same_file_even_when_it_was_replaced(tmp_path: Path) -> None:
    file = TableFile(written(tmp_path / "a.arrow"))
    write_tables(tmp_path / "a.arrow", {"one": TABLES["one"].slice(0, 1)}, {})
    (tmp_path / "pickle").write_bytes(pickle.dumps(file))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).table('one').num_rows)"
    argv = [sys.executable, "-c", code, str(tmp_path / "pickle")]
    assert subprocess.run(argv, capture_output=True, check=True, text=True).stdout == "3\n"


def test_a_file_that_is_gone_for_good_is_an_error(tmp_path: Path) -> None:
    file = TableFile(written(tmp_path / "a.arrow"))
    content = pickle.dumps(file)
    (tmp_path / "a.arrow").unlink()
    del file
    with pytest.raises(FileNotFoundError, match="was replaced or deleted"):
        pickle.loads(content)


def test_files_are_closed(tmp_path: Path) -> None:
    written(tmp_path / "a.arrow")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        TableFile(tmp_path / "a.arrow").table("one")
    with pytest.raises(FileNotFoundError):
        TableFile(tmp_path / "nowhere")
    (tmp_path / "short").write_bytes(os.urandom(8))
    with pytest.raises(ValueError, match="only 8 bytes"):
        TableFile(tmp_path / "short")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
