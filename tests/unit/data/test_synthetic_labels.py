from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pillsnap.data.synthetic_drugs import Drug, Face, invent_drugs
from pillsnap.data.synthetic_labels import pill_label
from pillsnap.data.synthetic_scene import Shot

# Copied from the documentation of the data set, in its order.
IMAGE_FIELDS = """
file_name width height imgfile drug_N drug_S back_color drug_dir light_color camera_la camera_lo size dl_idx
dl_mapping_code dl_name dl_name_en img_key dl_material dl_material_en dl_custom_shape dl_company dl_company_en
di_company_mf di_company_mf_en item_seq di_item_permit_date di_class_no di_etc_otc_code di_edi_code chart drug_shape
thick leng_long leng_short print_front print_back color_class1 color_class2 line_front line_back img_regist_ts
form_code_name mark_code_front_anal mark_code_back_anal mark_code_front_img mark_code_back_img mark_code_front
mark_code_back change_date id
"""
ANNOTATION_FIELDS = ["area", "iscrowd", "bbox", "category_id", "ignore", "segmentation", "id", "image_id"]
STEM = "K-000059-000250-003483_0_2_0_1_75_320_200"


def label(drug: Drug | None = None, *, is_combo: bool = True, drift: np.random.Generator | None = None) -> Any:
    return pill_label(
        drug or invent_drugs(2, seed=42)[0],
        Shot(background=2, side=0, light=1, latitude=75, longitude=320),
        stem=STEM,
        size_wh=(976, 1280),
        box_xywh=(10, 20, 300, 200),
        is_combo=is_combo,
        drift=drift,
    )


def test_all_documented_fields_are_there_in_order() -> None:
    content = label()
    assert list(content) == ["images", "type", "annotations", "categories"]
    assert list(content["images"][0]) == IMAGE_FIELDS.split()
    assert list(content["annotations"][0]) == ANNOTATION_FIELDS
    assert list(content["categories"][0]) == ["supercategory", "id", "name"]


def test_the_fields_say_how_the_picture_was_taken() -> None:
    image = label()["images"][0]
    assert (image["back_color"], image["drug_dir"], image["light_color"]) == ("연회색 배경", "앞면", "주광색")
    assert (image["camera_la"], image["camera_lo"], image["size"]) == (75, 320, 200)
    assert (image["file_name"], image["width"], image["height"]) == (f"{STEM}.png", 976, 1280)


def test_the_box_is_left_top_width_height() -> None:
    annotation = label()["annotations"][0]
    assert annotation["bbox"] == [10, 20, 300, 200]
    assert annotation["area"] == 60_000


def test_the_index_is_one_less_than_the_number_of_the_code() -> None:
    drug = invent_drugs(2, seed=42)[0]
    content = label(drug)
    assert int(content["images"][0]["dl_idx"]) == int(drug.code[2:]) - 1
    assert content["images"][0]["dl_mapping_code"] == drug.code
    assert content["annotations"][0]["category_id"] == content["categories"][0]["id"] == int(drug.code[2:]) - 1


def test_a_single_is_always_category_one() -> None:
    content = label(is_combo=False)
    assert content["categories"] == [{"supercategory": "pill", "id": 1, "name": "Drug"}]
    assert content["annotations"][0]["category_id"] == 1


@pytest.mark.parametrize(
    ("face", "text", "line"),
    [(Face("ABC", False), "ABC", ""), (Face("ABCD", True), "AB분할선CD", "-"), (Face("", False), "", "")],
    ids=["letters", "letters on both sides of a score line", "bare"],
)
def test_a_score_line_is_a_word_between_the_halves_of_the_imprint(face: Face, text: str, line: str) -> None:
    image = label(replace(invent_drugs(2, seed=42)[0], front=face))["images"][0]
    assert (image["print_front"], image["line_front"]) == (text, line)


def test_types_drift_only_when_asked() -> None:
    rng = np.random.default_rng(0)
    regular = [label()["images"][0] for _ in range(30)]
    drifted = [label(drift=rng)["images"][0] for _ in range(30)]
    for field, types in {"item_seq": {int, str}, "thick": {float, str, int}, "dl_idx": {str, int}}.items():
        assert len({type(image[field]) for image in regular}) == 1
        assert {type(image[field]) for image in drifted} == types
    assert any(image["print_back"] is None for image in drifted)
    assert any(image["thick"] == 0 for image in drifted)


def test_a_label_is_plain_json() -> None:
    assert json.loads(json.dumps(label(), allow_nan=False)) == label()
