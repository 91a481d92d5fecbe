"""`pillsnap report` and `pillsnap compare` say where their page lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillsnap.cli.main import main

pytestmark = pytest.mark.req("CLI-1", "RPT-1")


def test_report_writes_the_page_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["report", str(tmp_path)])
    assert leaving.value.code == 0
    page = tmp_path / "reports" / "index.html"
    assert page.is_file()
    assert str(page) in capsys.readouterr().out.replace("\n", "")


def test_compare_says_first_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(SystemExit) as leaving:
        main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "page.html")])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith("Not compared picture by picture\n")
    assert (tmp_path / "page.html").is_file()


def test_a_folder_that_is_missing_is_an_error_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["report", str(tmp_path / "gone")])
    assert leaving.value.code == 1
    assert "gone is not a folder" in capsys.readouterr().err
