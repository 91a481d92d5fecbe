"""JSON files are whole or not there, and hold finite numbers only."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pillsnap.errors import PillError
from pillsnap.jsonfile import read_json, save_json

pytestmark = pytest.mark.req("UTL-6")


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    content = {"drug": "타이레놀정", "figures": [1, 2.5, None, True], "nested": {"mAP@0.5": 0.9}}
    save_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


def test_korean_text_stays_readable_in_the_file(tmp_path: Path) -> None:
    save_json(tmp_path / "a.json", {"drug": "타이레놀정"})
    assert "타이레놀정" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_numpy_scalars_and_paths_become_plain_values(tmp_path: Path) -> None:
    save_json(tmp_path / "a.json", {"n": np.int64(3), "x": np.float32(0.5), "ok": np.bool_(True), "p": Path("a/b")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 3, "x": 0.5, "ok": True, "p": "a/b"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")], ids=["nan", "inf", "numpy"])
def test_a_non_finite_number_is_refused_and_its_place_named(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match=r"history\.detection\[1\]\.loss is (nan|inf); every number must be finite"):
        save_json(tmp_path / "a.json", {"history": {"detection": [{}, {"loss": value}]}})
    assert list(tmp_path.iterdir()) == []


def test_an_object_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"JSON cannot hold .* of type set; wanted dicts"):
        save_json(tmp_path / "a.json", {"codes": {"K-1"}})


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    save_json(path, {"epoch": 1})

    def full_disk(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(PillError, match=r"cannot be written: No space left on device; what was there before is untou"):
        save_json(path, {"epoch": 2})
    assert read_json(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PillError, match=r"gone\.json cannot be read: No such file"):
        read_json(tmp_path / "gone.json")


@pytest.mark.parametrize("content", [b'{"a": 1', b"\xff\xfe{"], ids=["cut off", "not utf-8"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(PillError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_file_without_an_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(PillError, match=r"holds a JSON list at its top level; wanted an object"):
        read_json(tmp_path / "a.json")
