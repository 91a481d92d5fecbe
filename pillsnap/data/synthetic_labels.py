"""The JSON label of one pill in one synthetic picture: AI Hub 576's schema, field by field and in its order.

Values are invented but typed and worded like the real ones. With `drift`, types and empty values vary from file to
file as they do in the real set: numbers as strings, null texts, sizes of 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pillsnap.data.randomness import sample_generator
from pillsnap.data.synthetic_drugs import SHAPES, Drug, Face
from pillsnap.data.synthetic_scene import Shot

BACK_COLORS = ("진회색 배경", "베이지색 배경", "연회색 배경")
SIDES = ("앞면", "뒷면")
LIGHT_COLORS = ("전구색", "주광색", "주백색")
COMPANIES = (
    ("가상제약(주)", "Gasang Pharm"),
    ("(주)본보기제약", "Bonbogi Pharm"),
    ("보기약품(주)", "Bogi Pharm"),
)
CLASSES = ("[01140]해열.진통.소염제", "[02180]동맥경화용제", "[02320]소화성궤양용제", "[03960]당뇨병용제")
NULLABLE_TEXTS = ("print_back", "color_class2", "line_back", "chart", "dl_name_en", "di_company_mf", "mark_code_back")


def pill_label(
    drug: Drug,
    shot: Shot,
    *,
    stem: str,
    size_wh: tuple[int, int],
    box_xywh: tuple[int, int, int, int],
    is_combo: bool,
    drift: np.random.Generator | None = None,
) -> dict[str, Any]:
    """Return the content of one label file.

    Args:
        drug: The pill.
        shot: How the picture was taken.
        stem: The picture's file name without suffix.
        size_wh: The picture's size in pixels.
        box_xywh: Left, top, width, height in pixels.
        is_combo: Singles all have category 1 "Drug"; combinations name the drug.
        drift: Varies types and empty values as it decides; None keeps them regular.
    """
    index = int(drug.code.removeprefix("K-")) - 1
    image = {**_picture_fields(shot, stem, size_wh), **_drug_fields(drug, index), **_mark_fields()}
    if drift is not None:
        _let_types_drift(image, drift)
    category = {"id": index, "name": drug.name} if is_combo else {"id": 1, "name": "Drug"}
    annotation = {
        "area": box_xywh[2] * box_xywh[3],
        "iscrowd": 0,
        "bbox": list(box_xywh),
        "category_id": category["id"],
        "ignore": 0,
        "segmentation": [],
        "id": 1,
        "image_id": 1,
    }
    return {
        "images": [image],
        "type": "instances",
        "annotations": [annotation],
        "categories": [{"supercategory": "pill", **category}],
    }


def _picture_fields(shot: Shot, stem: str, size_wh: tuple[int, int]) -> dict[str, Any]:
    return {
        "file_name": f"{stem}.png",
        "width": size_wh[0],
        "height": size_wh[1],
        "imgfile": f"{stem}.png",
        "drug_N": stem.split("_")[0],  # of a combination: all of its codes
        "drug_S": "정상알약",
        "back_color": BACK_COLORS[shot.background],
        "drug_dir": SIDES[shot.side],
        "light_color": LIGHT_COLORS[shot.light],
        "camera_la": shot.latitude,
        "camera_lo": shot.longitude,
        "size": 200,
    }


def _drug_fields(drug: Drug, index: int) -> dict[str, Any]:
    rng = sample_generator(drug.code, "registry")  # the same in every label of the drug
    company, company_en = COMPANIES[int(rng.integers(len(COMPANIES)))]
    year = int(rng.integers(1975, 2021))
    colors = (*drug.colors, "")[:2]
    shape = SHAPES[drug.shape].drug_shape
    form = "경질캡슐제, 산제" if drug.is_capsule else "필름코팅정" if drug.gloss > 0.2 else "나정"
    edi_codes = [str(code) for code in rng.integers(640_000_000, 660_000_000, size=int(rng.integers(0, 4)))]
    return {
        "dl_idx": str(index),
        "dl_mapping_code": drug.code,
        "dl_name": drug.name,
        "dl_name_en": drug.name_en,
        "img_key": f"img/drug/{drug.code}.jpg",
        "dl_material": f"가상성분{index}",
        "dl_material_en": f"Invented Compound {index}",
        "dl_custom_shape": "캡슐, 경질" if drug.is_capsule else "정제, 저작정",
        "dl_company": company,
        "dl_company_en": company_en,
        "di_company_mf": "",
        "di_company_mf_en": "",
        "item_seq": year * 100_000 + int(rng.integers(100_000)),
        "di_item_permit_date": f"{year}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}",
        "di_class_no": CLASSES[int(rng.integers(len(CLASSES)))],
        "di_etc_otc_code": "전문의약품" if rng.random() < 0.7 else "일반의약품",
        "di_edi_code": ",".join(edi_codes),
        "chart": f"{', '.join(drug.colors)}의 {shape} {'경질캡슐' if drug.is_capsule else '정제'}",
        "drug_shape": shape,
        "thick": drug.thick_mm,
        "leng_long": drug.long_mm,
        "leng_short": drug.short_mm,
        "print_front": _print_text(drug.front),
        "print_back": _print_text(drug.back),
        "color_class1": colors[0],
        "color_class2": colors[1],
        "line_front": "-" if drug.front.has_score_line else "",
        "line_back": "-" if drug.back.has_score_line else "",
        "img_regist_ts": f"{year + 1}-01-01 AM 12:00:00",
        "form_code_name": form,
    }


def _mark_fields() -> dict[str, Any]:
    sides = ("front_anal", "back_anal", "front_img", "back_img", "front", "back")
    return {**{f"mark_code_{side}": "" for side in sides}, "change_date": "20210101", "id": 1}


def _print_text(face: Face) -> str:
    """Return an imprint in the registry's spelling, which writes a score line as a word between its halves."""
    if not face.has_score_line:
        return face.text
    middle = len(face.text) // 2
    return f"{face.text[:middle]}분할선{face.text[middle:]}"


def _let_types_drift(image: dict[str, Any], rng: np.random.Generator) -> None:
    """Change types and empty values of `image` in place."""
    for field in ("item_seq", "thick", "leng_long", "leng_short"):
        if rng.random() < 0.4:
            image[field] = str(image[field])
    if rng.random() < 0.4:
        image["dl_idx"] = int(image["dl_idx"])
    if rng.random() < 0.1:
        image["thick"] = 0
    for field in NULLABLE_TEXTS:
        if rng.random() < 0.25:
            image[field] = None
