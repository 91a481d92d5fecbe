"""Files are whole or not there, what a killed process leaves goes away, and a damaged archive is recognised."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from pillsnap.atomicfile import atomic_path, remove_leftovers, zip_damage
from pillsnap.errors import PillError
from tests.faults.instants import kill_this_process
from tests.faults.processes import KILLED, fork

pytestmark = pytest.mark.req("CKP-3", "UTL-6")


def _killed_while_writing(path: Path) -> None:
    """Let a process write half of `path` and die."""

    def write() -> int:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            kill_this_process("rename")
        return 0

    assert fork(write, path.with_name("output")).wait() == KILLED


def test_the_leftover_of_a_killed_process_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    _killed_while_writing(tmp_path / "a[1].json")  # brackets mean something in a pattern for file names
    _killed_while_writing(tmp_path / "b.json")
    with atomic_path(tmp_path / "a[1].json") as temporary:
        temporary.write_text("whole")
    left = [path.name.split(".")[1] for path in tmp_path.glob(".*.tmp")]
    assert left == ["b"], "another file's is not ours to remove"
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a[1].json", "output"}


def test_what_a_living_process_is_writing_stays(tmp_path: Path) -> None:
    theirs, no_number = tmp_path / f".a.json.{os.getppid()}.tmp", tmp_path / ".a.json.mine.tmp"
    theirs.touch()
    no_number.touch()
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", theirs.name, no_number.name}


def test_the_leftover_of_a_killed_process_that_had_our_number_goes_too(tmp_path: Path) -> None:
    (tmp_path / f".a.json.{os.getpid()}.tmp").touch()
    with atomic_path(tmp_path / "a.json") as temporary:
        assert not temporary.exists(), "a hard link could not be made under this name"
        temporary.touch()


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(PillError, match=r"gone/a\.json cannot be written: No such file or directory; what was there"),
        atomic_path(tmp_path / "gone" / "a.json") as temporary,
    ):
        temporary.write_text("whole")


def test_an_archive_is_whole_until_a_byte_of_a_part_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights", b"0123456789" * 9)
    assert zip_damage(path) is None
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0123456789", b"0123456780", 1))
    assert zip_damage(path) == "the checksum of its part weights differs"
    path.write_bytes(content[:-30])
    assert zip_damage(path) == "BadZipFile: File is not a zip file"
