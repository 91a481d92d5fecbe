import numpy as np
import pytest

from pillsnap.data.images import RgbImage
from pillsnap.inference import draw
from pillsnap.inference.answers import Answer, Candidate, Pill
from pillsnap.inference.draw import REFUSED_COLOUR, draw_answer, label_lines


def pill(box_xyxy: list[float] | None, name: str | None = None, *, is_unknown: bool = False) -> Pill:
    return Pill(
        code="unknown" if is_unknown else "K-000059",
        name=name,
        confidence=0.984,
        is_unknown=is_unknown,
        accept_score=None,
        top5=[Candidate(code="K-000059", name=name, confidence=0.984)],
        box_xyxy=box_xyxy,
        detection_confidence=None,
    )


def answer(*pills: Pill) -> Answer:
    return Answer(
        mode_used="combo",
        pills=list(pills),
        image_size_wh=[800, 600],
        gating_score=None,
        single_confidence=None,
        fallback_reason="manual_combo",
        elapsed_ms={},
    )


def changed_region(before: RgbImage, after: RgbImage) -> list[int]:
    ys, xs = np.nonzero((before != after).any(2))
    return [int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())]


@pytest.mark.req("EVA-2")
def test_a_frame_is_drawn_along_the_box_with_a_label_above() -> None:
    image = np.full((600, 800, 3), 128, np.uint8)
    drawn = draw_answer(image, answer(pill([200, 300, 500, 450])))
    left, top, right, bottom = changed_region(image, drawn)
    assert (left, right, bottom) == (200, 500, 450)
    assert 260 < top < 300
    assert (drawn[320:430, 220:480] == 128).all()
    assert (image == 128).all()


@pytest.mark.parametrize("box", [[0, 0, 800, 600], [700, 2, 798, 598], None], ids=["all", "right edge", "no box"])
def test_a_label_stays_inside_the_picture(box: list[float] | None) -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    drawn = draw_answer(image, answer(pill(box, name="A very long name of a drug, with its strength and more " * 3)))
    assert drawn.shape == image.shape
    assert drawn.any()


def test_a_small_picture_is_enlarged() -> None:
    assert draw_answer(np.zeros((48, 64, 3), np.uint8), answer(pill(None))).shape == (480, 640, 3)


def test_an_answer_without_pills_is_the_picture_itself() -> None:
    image = np.full((700, 900, 3), 7, np.uint8)
    assert (draw_answer(image, answer()) == image).all()


def test_a_korean_name_is_left_out_without_a_korean_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "KOREAN_FONTS", ("no-such-font.ttf",))
    draw._korean_font_name.cache_clear()
    try:
        assert label_lines(pill(None, name="타이레놀정")) == ["K-000059  98%"]
        assert label_lines(pill(None, name="Tylenol")) == ["K-000059  98%", "Tylenol"]
    finally:
        draw._korean_font_name.cache_clear()


def test_a_korean_name_is_written_with_a_korean_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "_korean_font_name", lambda: "some-font.ttf")
    assert label_lines(pill(None, name="타이레놀정")) == ["K-000059  98%", "타이레놀정"]


@pytest.mark.req("FIN-3")
def test_a_refused_pill_is_grey_and_says_what_it_looks_like() -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    refused = pill([200, 300, 500, 450], "Tylenol", is_unknown=True)
    assert label_lines(refused) == ["unknown", "like K-000059"]
    assert tuple(draw_answer(image, answer(refused))[400, 200]) == REFUSED_COLOUR
