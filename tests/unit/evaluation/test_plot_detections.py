"""Boxes are drawn where they are, in the colour of their kind, and mistakes are put into words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pillsnap.evaluation import plot_detections
from pillsnap.evaluation.figure import ORANGE, SKY
from pillsnap.evaluation.plot_detections import plot_detection_results

pytestmark = pytest.mark.req("EVA-2")

LEFT = [100.0, 200.0, 200.0, 300.0]
RIGHT = [400.0, 200.0, 500.0, 300.0]


def photograph(width: int = 800, height: int = 700) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 128, np.uint8)


def pixel(path: Path, x: int, y: int) -> tuple[float, ...]:
    with Image.open(path) as image:
        return tuple(value / 255 for value in np.asarray(image)[y, x])


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect every text that is drawn; it is drawn all the same."""
    collected: list[str] = []
    real = ImageDraw.ImageDraw.text

    def text(draw: ImageDraw.ImageDraw, xy: tuple[float, float], words: str, *args: Any, **kwargs: Any) -> None:
        collected.append(words)
        real(draw, xy, words, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return collected


def test_found_and_labelled_boxes_are_drawn_at_their_pixels(tmp_path: Path) -> None:
    prediction = {"boxes_xyxy": [LEFT], "scores": [0.9], "targets": [RIGHT]}
    (path,) = plot_detection_results([photograph()], [prediction], tmp_path / "new")
    assert path.name == "detection_000.png"
    assert pixel(path, 100, 250) == pytest.approx(to_rgb(ORANGE))
    assert pixel(path, 397, 250) == pytest.approx(to_rgb(SKY))  # three pixels outside the labelled box
    assert pixel(path, 150, 250) == pytest.approx((128 / 255,) * 3)  # the pill itself stays visible


@pytest.mark.parametrize(("side", "drawn_side"), [(100, 640), (4000, 1024)], ids=["small", "large"])
def test_boxes_follow_the_scale_of_the_picture(tmp_path: Path, side: int, drawn_side: int) -> None:
    box = [side * 0.25, side * 0.5, side * 0.75, side * 0.9]
    (path,) = plot_detection_results([photograph(side, side)], [{"boxes_xyxy": [box], "scores": [0.5]}], tmp_path)
    assert pixel(path, drawn_side // 4, round(drawn_side * 0.7)) == pytest.approx(to_rgb(ORANGE))
    with Image.open(path) as image:
        assert image.width == drawn_side


def test_without_codes_the_score_is_written_at_the_box(tmp_path: Path, written: list[str]) -> None:
    plot_detection_results([photograph()], [{"boxes_xyxy": [LEFT], "scores": [0.875]}], tmp_path)
    assert written == ["0.88", "found: 1"]


def test_right_wrong_invented_and_missed_pills_are_told_apart(tmp_path: Path, written: list[str]) -> None:
    prediction = {
        "boxes_xyxy": [LEFT, RIGHT, [0, 0, 50, 50]],
        "scores": [0.9, 0.8, 0.7],
        "codes": ["K-1", "K-2", "K-3"],
        "targets": [LEFT, RIGHT, [600, 600, 700, 690]],
        "target_codes": ["K-1", "K-5", "K-6"],
    }
    plot_detection_results([photograph()], [prediction], tmp_path)
    assert written[:5] == ["1", "2", "3", "found: 3", "labelled: 3"]
    assert written[5:] == [
        "1  K-1  0.90",
        "2  K-2  0.80  (labelled K-5)",
        "3  K-3  0.70  (no pill labelled here)",
        "missed: K-6",
    ]


def test_codes_alone_are_listed_without_a_verdict(tmp_path: Path, written: list[str]) -> None:
    plot_detection_results([photograph()], [{"boxes_xyxy": [LEFT], "scores": [0.9], "codes": ["K-1"]}], tmp_path)
    assert written == ["1", "found: 1", "1  K-1  0.90"]


def test_a_picture_without_boxes_is_still_drawn(tmp_path: Path, written: list[str]) -> None:
    prediction: dict[str, Any] = {"boxes_xyxy": np.zeros((0, 4)), "scores": [], "targets": []}
    (path,) = plot_detection_results([photograph()], [prediction], tmp_path)
    assert path.is_file()
    assert written == ["found: 0", "labelled: 0"]


def test_long_lines_widen_a_narrow_picture(tmp_path: Path) -> None:
    prediction = {"boxes_xyxy": [[0, 0, 20, 20]], "scores": [0.9], "codes": ["K-000059 " + "long " * 4]}
    (path,) = plot_detection_results([photograph(40, 640)], [prediction], tmp_path)
    with Image.open(path) as image:
        assert image.width > 200


def test_korean_names_are_drawn_with_and_without_a_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prediction = {"boxes_xyxy": [LEFT], "scores": [0.9], "codes": ["K-1 타이레놀정"]}
    assert plot_detection_results([photograph()], [prediction], tmp_path)[0].is_file()
    monkeypatch.setattr(plot_detections, "korean_font_path", lambda: None)
    assert plot_detection_results([photograph()], [prediction], tmp_path)[0].is_file()


def test_lists_of_different_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got 1 images and predictions for 0"):
        plot_detection_results([photograph()], [], tmp_path)


@pytest.mark.parametrize("shape", [(10, 10), (3, 10, 10)], ids=["gray", "channels first"])
def test_an_array_that_is_no_photograph_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image 0 has shape .* wanted \(H, W, 3\) uint8 RGB"):
        plot_detection_results([np.zeros(shape, np.uint8)], [{"boxes_xyxy": [], "scores": []}], tmp_path)


@pytest.mark.parametrize(
    "extra",
    [{"scores": []}, {"codes": ["a", "b"]}, {"targets": [RIGHT], "target_codes": ["a", "b"]}],
    ids=["scores", "codes", "target codes"],
)
def test_a_box_without_its_score_or_code_is_refused(tmp_path: Path, extra: dict[str, Any]) -> None:
    prediction = {"boxes_xyxy": [LEFT], "scores": [0.9]} | extra
    with pytest.raises(ValueError, match=r"photograph 0 has 1 boxes, .*; wanted one score and one code a box"):
        plot_detection_results([photograph()], [prediction], tmp_path)
