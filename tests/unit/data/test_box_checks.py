from __future__ import annotations

import pytest

from pillsnap.data.box_checks import Box, check_box

pytestmark = pytest.mark.req("DAT-2")

SIZE_WH = (100, 80)


@pytest.mark.parametrize(
    ("box", "kind", "cut"),
    [
        pytest.param((10, 20, 30, 50), None, (10, 20, 30, 50), id="inside"),
        pytest.param((0, 0, 100, 80), None, (0, 0, 100, 80), id="whole frame"),
        pytest.param((-0.4, 0, 50, 80.9), None, (0, 0, 50, 80), id="rounding is no mistake"),
        pytest.param((60, 20, 120, 60), "box_outside", (60, 20, 100, 60), id="two thirds visible: cut"),
        pytest.param((90, 20, 3000, 60), "box_outside", None, id="hardly visible"),
        pytest.param((200, 20, 260, 60), "box_outside", None, id="wholly outside"),
        pytest.param((-50, -50, -10, -10), "box_outside", None, id="negative"),
        pytest.param((10, 20, 10, 50), "zero_size_box", None, id="no width"),
        pytest.param((30, 20, 10, 50), "zero_size_box", None, id="negative width"),
        pytest.param((10, 20, 10.5, 50), "tiny_box", None, id="half a pixel"),
        pytest.param((98.5, 20, 102, 60), "box_outside", None, id="a pixel and a half visible"),
    ],
)
def test_boxes_are_cut_or_refused(box: Box, kind: str | None, cut: Box | None) -> None:
    checked = check_box(box, SIZE_WH)
    assert (checked.kind, checked.box_xyxy) == (kind, cut)


def test_the_detail_names_the_box_and_the_picture() -> None:
    detail = check_box((200, 20, 260, 60), SIZE_WH).detail
    assert detail == "box of 60x40 px at (200, 20) lies outside the 100x80 px picture; the box is not used"
