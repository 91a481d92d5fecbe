"""Text that the installed fonts cannot draw never becomes empty boxes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import font_manager

from pillsnap.evaluation import figure
from pillsnap.evaluation.figure import drawable_label, font_families, korean_font_path, new_figure, save_figure

pytestmark = pytest.mark.req("EVA-1")


@pytest.fixture
def _without_korean_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "korean_font_path", lambda: None)


@pytest.mark.usefixtures("_without_korean_font")
def test_without_a_korean_font_the_code_is_left() -> None:
    assert drawable_label("K-000059 타이레놀정", "class 3") == "K-000059"


@pytest.mark.usefixtures("_without_korean_font")
def test_a_label_of_which_nothing_can_be_drawn_becomes_the_fallback() -> None:
    assert drawable_label("타이레놀정", "class 3") == "class 3"


@pytest.mark.usefixtures("_without_korean_font")
def test_without_a_korean_font_only_the_base_font_is_asked_for() -> None:
    assert font_families() == ["DejaVu Sans"]


@pytest.mark.skipif(korean_font_path() is None, reason="no Korean font installed (apt-get install fonts-nanum)")
def test_with_a_korean_font_the_name_is_kept_and_drawn(tmp_path: Path) -> None:
    label = drawable_label("K-000059 타이레놀정", "class 3")
    assert label == "K-000059 타이레놀정"
    page = new_figure(3, 1)
    page.text(0.1, 0.5, label, family=font_families())
    save_figure(page, tmp_path / "a.png")  # a missing glyph would warn, and warnings are errors here


def test_a_font_that_was_removed_since_matplotlib_listed_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = font_manager.FontEntry(fname="/gone/NanumGothic.ttf", name="NanumGothic")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [gone])
    assert korean_font_path.__wrapped__() is None


def test_long_labels_end_in_an_ellipsis() -> None:
    assert drawable_label("a" * 40, "", max_chars=10) == "a" * 9 + "…"


def test_saving_makes_folders_and_leaves_no_other_file_or_setting(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    path = save_figure(new_figure(1, 1), tmp_path / "new" / "a.png")
    assert list((tmp_path / "new").iterdir()) == [path]
    assert dict(mpl.rcParams) == before
