import re
from pathlib import Path

import pytest

from scripts.requirements import ROOT, ListingError, check_known, collect, main, read_titles, render

SPECIFICATION = ROOT.parent / "shared" / "spec" / "requirements.md"

MARKED = """
import pytest
pytestmark = [pytest.mark.slow, pytest.mark.req("AAA-1")]

@pytest.mark.req("BBB-1", "BBB-2")
def test_function(): ...

@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.req("CCC-1")), 2])
def test_parameters(size): ...

@pytest.mark.req("DDD-1")
class TestGroup:
    def test_method(self): ...

def helper(): ...
"""


def project(root: Path, test_text: str, titles: str = "AAA-1\tFirst\nBBB-1\tSecond\n") -> Path:
    """Make a repository with one test file and a table of ids."""
    for folder in ("docs", "tests/unit"):
        (root / folder).mkdir(parents=True)
    (root / "docs/requirements.tsv").write_text(titles, encoding="utf-8")
    (root / "tests/unit/test_it.py").write_text(test_text, encoding="utf-8")
    return root


def test_every_kind_of_marker_is_found(tmp_path: Path) -> None:
    root = project(tmp_path, MARKED)
    file = "tests/unit/test_it.py"
    assert collect(root / "tests", root) == {
        "AAA-1": {file: ["test_function", "test_parameters", "TestGroup.test_method"]},
        "BBB-1": {file: ["test_function"]},
        "BBB-2": {file: ["test_function"]},
        "CCC-1": {file: ["test_parameters"]},
        "DDD-1": {file: ["TestGroup.test_method"]},
    }


def test_the_page_lists_tests_and_open_ids() -> None:
    page = render({"AAA-1": "First", "BBB-1": "Second"}, {"AAA-1": {"tests/test_it.py": ["test_a", "test_b"]}})
    assert "| AAA-1 | First | [tests/test_it.py](../tests/test_it.py): `test_a`, `test_b` |" in page
    assert "1 of 2 requirements are named by a test." in page
    assert page.endswith("## Without a test\n\nBBB-1\n")


def test_a_marker_that_is_not_a_quoted_id_is_named_with_its_line(tmp_path: Path) -> None:
    root = project(tmp_path, "import pytest\n@pytest.mark.req(WANTED)\ndef test_it(): ...\n")
    with pytest.raises(ListingError, match=r"tests/unit/test_it.py:2: WANTED is not an id in quotes"):
        collect(root / "tests", root)


def test_an_unknown_id_is_named_with_its_file() -> None:
    with pytest.raises(ListingError, match=r"requirements.tsv does not have: \{'ZZZ-9': 'tests/test_it.py'\}"):
        check_known({"ZZZ-9": {"tests/test_it.py": ["test_a"]}}, {"AAA-1": "First"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("AAA-1 First\n", r":1: 'AAA-1 First' is not an id, a tab and a title", id="no tab"),
        pytest.param("AAA-1\tFirst\nAAA-1\tAgain\n", r":2: AAA-1 stands twice", id="twice"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "requirements.tsv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(ListingError, match=message):
        read_titles(table)


def test_a_changed_test_makes_the_page_out_of_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = project(tmp_path, 'import pytest\n@pytest.mark.req("AAA-1")\ndef test_it(): ...\n')
    assert main(["--write"], root) == 0
    assert main(["--check"], root) == 0
    (root / "tests/unit/test_it.py").write_text("def test_it(): ...\n", encoding="utf-8")
    assert main(["--check"], root) == 1
    assert "docs/requirements.md is out of date" in capsys.readouterr().err


def test_a_wrong_marker_ends_the_command_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = project(tmp_path, 'import pytest\n@pytest.mark.req("ZZZ-9")\ndef test_it(): ...\n')
    assert main([], root) == 2
    assert "ZZZ-9" in capsys.readouterr().err


def test_the_command_prints_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = project(tmp_path, "def test_it(): ...\n")
    assert main([], root) == 0
    assert "AAA-1, BBB-1" in capsys.readouterr().out


def test_the_committed_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--check"])
    assert code == 0, capsys.readouterr().err


@pytest.mark.skipif(not SPECIFICATION.exists(), reason=f"the specification is not at {SPECIFICATION}")
def test_the_table_has_every_id_of_the_specification() -> None:
    text = SPECIFICATION.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]{2,4}-\d+) \|", text, flags=re.MULTILINE)
    assert list(read_titles(ROOT / "docs" / "requirements.tsv")) == [*rows, "CFG-1"]
