from __future__ import annotations

import json
from typing import Any

import pytest

from pillsnap.data.aihub576_labels import PillLabel, parse_pill_label
from tests.builders import aihub_label

pytestmark = pytest.mark.req("DAT-2")

NAME = "K-000059_0_2_0_1_75_320_200.png"


def label(**image_fields: object) -> dict[str, Any]:
    content = aihub_label(NAME, "K-000059", (10, 20, 30, 40), (96, 128))
    content["images"][0].update(image_fields)
    return content


def parsed(content: object) -> PillLabel:
    return parse_pill_label(json.dumps(content, ensure_ascii=False).encode())


def test_code_name_size_and_box_are_read() -> None:
    found = parsed(label())
    assert (found.code, found.folder_code, found.name) == ("K-000059", "K-000059", "약 59정")
    assert found.size_wh == (96, 128)
    assert found.boxes_xyxy == ((10, 20, 40, 60),)


@pytest.mark.parametrize(
    ("fields", "size_wh"),
    [
        pytest.param({"width": "96", "height": "128"}, (96, 128), id="strings"),
        pytest.param({"width": 96.0, "height": 128.0}, (96, 128), id="floats"),
        pytest.param({"width": None, "height": 128}, None, id="null"),
        pytest.param({"width": 0, "height": 0}, None, id="zero"),
        pytest.param({"width": True, "height": 128}, None, id="bool"),
        pytest.param({"width": "wide", "height": 128}, None, id="text"),
        pytest.param({"width": float("inf"), "height": 128}, None, id="infinite"),
        pytest.param({"width": 10**400, "height": 128}, None, id="beyond float"),
    ],
)
def test_sizes_are_taken_in_any_type_or_not_at_all(fields: dict[str, object], size_wh: tuple[int, int] | None) -> None:
    assert parsed(label(**fields)).size_wh == size_wh


@pytest.mark.parametrize("value", [None, 59, "", "59", ["K-000059"]])
def test_a_code_that_is_no_k_code_counts_as_not_given(value: object) -> None:
    found = parsed(label(dl_mapping_code=value, drug_N=value, dl_name=value))
    assert (found.code, found.folder_code) == (None, None)


def test_a_box_of_strings_is_read() -> None:
    content = aihub_label(NAME, "K-000059", ("10", 20.0, "30.5", 40))
    assert parsed(content).boxes_xyxy == ((10, 20, 40.5, 60),)


@pytest.mark.parametrize("annotations", [None, [], [{"bbox": []}], [{"bbox": None}], [{}], ["x"]])
def test_no_box_is_no_error(annotations: object) -> None:
    content = label() | {"annotations": annotations}
    assert parsed(content).boxes_xyxy == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"{", "Expecting property name", id="cut off"),
        pytest.param(b"", "Expecting value", id="empty"),
        pytest.param('{"a": "약"}'.encode("cp949"), "codec can't decode", id="not UTF-8"),
        pytest.param(b"[1, 2]", "a list where an object was expected", id="a list"),
        pytest.param(b"{}", 'no object in "images"', id="no images"),
        pytest.param(b'{"images": [null]}', 'no object in "images"', id="null image"),
        pytest.param(b'{"images": [{}], "annotations": 7}', '"annotations" is not a list', id="annotations"),
        pytest.param(b'{"images": [{}], "annotations": [{"bbox": [1, 2]}]}', "four numbers x, y", id="short box"),
        pytest.param(b'{"images": [{}], "annotations": [{"bbox": [1, 2, NaN, 4]}]}', "four numbers", id="NaN box"),
        pytest.param(b'{"images": [{}], "annotations": [{"bbox": "1 2 3 4"}]}', "four numbers", id="text box"),
        pytest.param(b"[" * 200_000, "nested too deeply", id="nested"),
    ],
)
def test_what_is_not_a_label_is_a_value_error(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_pill_label(content)


def test_a_byte_order_mark_is_no_mistake() -> None:
    text = b"\xef\xbb\xbf" + json.dumps(label()).encode()
    assert parse_pill_label(text).code == "K-000059"


def test_a_name_with_half_a_character_counts_as_not_given() -> None:
    assert parse_pill_label(json.dumps(label(dl_name="\ud800 pill")).encode()).name is None


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1" + "0" * 400, '"\\ud800"'], ids=["NaN", "inf", "long", "half"]
)
def test_what_goes_beyond_the_standard_in_other_fields_is_no_mistake(value: str) -> None:
    text = json.dumps(label()).replace('"thick": null', f'"thick": {value}')
    assert parse_pill_label(text.encode()) == parsed(label())
