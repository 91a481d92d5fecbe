from __future__ import annotations

from pathlib import Path

import pytest

from pillsnap.data.yolo_labels import parse_label_line, read_class_names
from pillsnap.errors import DataError

pytestmark = pytest.mark.req("DAT-2")


def names_of(root: Path) -> dict[int, str]:
    class_names = read_class_names(root)
    assert class_names is not None
    return class_names.names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("names:\n- a\n- b c\n", {0: "a", 1: "b c"}, id="list"),
        pytest.param("names: ['a', \"b\"]\nnc: 2\n", {0: "a", 1: "b"}, id="inline list"),
        pytest.param("names:\n  0: a\n  4: b\n", {0: "a", 4: "b"}, id="dict"),
        pytest.param("names:\n- No\n- 1e3\n- 2024-01-01\n", {0: "No", 1: "1e3", 2: "2024-01-01"}, id="not words"),
        pytest.param("names:\n- 타이레놀\n", {0: "타이레놀"}, id="Korean"),
    ],
)
def test_names_are_read_from_data_yaml(tmp_path: Path, text: str, names: dict[int, str]) -> None:
    (tmp_path / "data.yaml").write_text(text, encoding="utf-8")
    assert names_of(tmp_path) == names


def test_names_are_read_from_classes_txt(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\ufeffalpha\nbeta gamma\n\n", encoding="utf-8")
    assert names_of(tmp_path) == {0: "alpha", 1: "beta gamma"}


def test_without_a_names_file_there_are_no_names(tmp_path: Path) -> None:
    assert read_class_names(tmp_path) is None


def test_notes_pasted_below_the_yaml_do_not_hide_the_names(tmp_path: Path) -> None:
    text = 'names:\n- a\n# a comment\n- b\nnc: 2\n\ndescription\n"This"\n(string)\n'
    (tmp_path / "data.yaml").write_text(text, encoding="utf-8")
    class_names = read_class_names(tmp_path)
    assert class_names is not None
    assert class_names.names == {0: "a", 1: "b"}
    assert class_names.fault == "is not YAML as a whole (line 8: could not find expected ':'); only its names are read"


@pytest.mark.parametrize(
    "content",
    [
        b"names: 7\n",
        b"names: []\n",
        b"train: images\n",
        b"- a\n",
        b"names: {a: b}\n",
        b"names: [\n",
        b"names:\n- \xbe\xe0\n",
    ],
    ids=["number", "empty", "none", "a list", "text keys", "cut off", "not UTF-8"],
)
def test_names_that_cannot_be_used_are_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.yaml").write_bytes(content)
    with pytest.raises(DataError, match=r"class names in .*data\.yaml cannot be read .*Wanted: `names:` with a list"):
        read_class_names(tmp_path)


def test_a_box_line_is_read() -> None:
    line = parse_label_line(" 3 0.5 0.25 0.1 0.2 ")
    assert (line.class_id, line.box_cxcywh_norm) == (3, (0.5, 0.25, 0.1, 0.2))


def test_an_outline_becomes_the_box_around_it() -> None:
    line = parse_label_line("0 0.2 0.4 0.6 0.3 0.5 0.9")
    assert line.box_cxcywh_norm == pytest.approx((0.4, 0.6, 0.4, 0.6))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.1", "4 numbers; 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 numbers; 5"),
        ("pill 0.5 0.5 0.1 0.1", "could not convert"),
        ("0 nan 0.5 0.1 0.1", "not finite"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is not a whole number"),
        ("1.5 0.5 0.5 0.1 0.1", r"class 1\.5 is not a whole number"),
    ],
)
def test_other_lines_are_value_errors(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_label_line(text)
