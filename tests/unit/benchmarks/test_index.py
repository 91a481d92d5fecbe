from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest

from benchmarks import index
from benchmarks.index_records import synthesise
from benchmarks.index_tree import write_tree
from pillsnap.data.aihub576 import read_aihub576
from pillsnap.errors import PillError

pytestmark = pytest.mark.req("DAT-4")


def test_ours_is_compared_with_the_plain_loop_and_reading_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--labels", "300", "--sizes", "100", "--records", "500", "2000", "--rounds", "1", "--reads", "3000"]
    assert index.main([*words, "--processes", "1", "--dir", str(tmp_path), "--json", str(tmp_path / "a.json")]) == 0
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    (tree,) = [tree for tree in content["trees"] if tree["is_compared"]]
    seconds = tree["rounds_seconds"]
    assert tree["ratios_to_plain"] == [seconds["plain"][0] / seconds["ours"][0]]
    assert set(seconds) == {"ours", "plain", "reading", "second_start"}
    assert [row["records"] for row in content["tables"]] == [500, 2000]
    assert {"ours", "second_start"} <= set(content["exponents"]["trees"])
    assert set(content["worker_growth_bytes"]) == {"fork", "spawn"}
    assert "times as fast as the plain loop" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_the_tree_is_one_the_reader_finds_nothing_wrong_with(tmp_path: Path) -> None:
    num_labels = write_tree(tmp_path, 500)
    scan = read_aihub576(tmp_path, 1)
    assert list(scan.problems) == []
    assert num_labels == pc.sum(pc.list_value_length(scan.records.table.column("box_codes"))).as_py()
    assert abs(num_labels - 500) < 25


def test_records_without_files_are_like_those_of_files() -> None:
    table = synthesise(5000)
    rows = table.slice(4000, 1).to_pylist()[0]
    assert rows["image_path"].startswith("train/images/single/TS_001_single/K-0000")
    assert (rows["code"], rows["task"], rows["box_codes"]) == (rows["group"][:8], "single", [rows["code"]])
    assert len(table.column("sample_id").unique()) == 5000
    assert len(table.column("image_path").unique()) == 5000
    paths = table.column("image_path").to_pylist()
    assert paths == sorted(paths)


def test_a_comparison_of_unequal_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, 100)
    monkeypatch.setattr(index, "plain_index", lambda _root: [])
    with pytest.raises(PillError, match="the index and the plain loop give other rows"):
        index._require_same(tmp_path, 1)


def test_linear_cost_has_the_exponent_one() -> None:
    rows = [{"labels": size, "seconds": {"a": 2.0 * size, "b": size**2}} for size in (10, 100, 1000)]
    assert index._exponents(rows, "labels") == {"a": 1.0, "b": 2.0}
    assert index._exponents(rows[:1], "labels") == {}
