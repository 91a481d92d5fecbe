"""What all plots share: a figure without pyplot's global state, an atomic save, colours, and text that can be drawn.

Matplotlib's own font has no Korean. Where a Korean font is installed it is used glyph by glyph; where none is, a label
falls back to the part of it that can be drawn (usually the drug's code) instead of a row of empty boxes.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pillsnap.atomicfile import atomic_path

# Okabe and Ito's palette: told apart with every common colour blindness.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#777777",
)
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
BASE_FONT = "DejaVu Sans"  # ships with matplotlib
_KOREAN_FONTS = (
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "Noto Sans CJK JP",  # the face a CJK collection file shows first; it holds Hangul too
    "NanumGothic",
    "NanumBarunGothic",
    "NanumSquare",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "UnDotum",
)


def new_figure(width_inch: float, height_inch: float) -> Figure:
    """Return an empty figure whose parts are laid out without overlaps."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
    figure = Figure(figsize=(width_inch, height_inch), dpi=110, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Figure) -> bytes:
    """Return `figure` as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def save_figure(figure: Figure, out_path: Path) -> Path:
    """Write `figure` as PNG, whole or not at all; missing folders are made."""
    out_path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out_path) as temporary:
        figure.savefig(temporary, format="png")
    return out_path


@functools.cache
def korean_font_path() -> Path | None:
    """Return the file of an installed font with Hangul, or None."""
    installed = {entry.name: Path(entry.fname) for entry in font_manager.fontManager.ttflist}
    # The list comes from matplotlib's cache, which may name fonts removed since.
    paths = (installed[name] for name in _KOREAN_FONTS if name in installed)
    return next((path for path in paths if path.is_file()), None)


@functools.cache
def base_font_path() -> Path:
    """Return the file of the font every plot can rely on."""
    return Path(font_manager.findfont(BASE_FONT))


def font_families() -> list[str]:
    """Return the font names to give a text: each glyph is taken from the first that has it."""
    korean = korean_font_path()
    return [BASE_FONT] if korean is None else [BASE_FONT, str(FT2Font(str(korean)).family_name)]


def drawable_label(label: str, fallback: str, max_chars: int = 30) -> str:
    """Return `label` as far as the installed fonts can draw it.

    Args:
        label: Wanted text, for example "K-000059 타이레놀정". Words with glyphs no font has are left out.
        fallback: Used when nothing of `label` is left.
        max_chars: Longer text ends in an ellipsis.

    Returns:
        One line of text that gives no missing-glyph warning.
    """
    drawable = _codepoints(base_font_path())
    korean = korean_font_path()
    if korean is not None:
        drawable = drawable | _codepoints(korean)
    words = [word for word in label.split() if all(ord(char) in drawable for char in word)]
    text = " ".join(words) or fallback
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


@functools.cache
def _codepoints(font_path: Path) -> frozenset[int]:
    """Return the characters a font file has glyphs for."""
    return frozenset(FT2Font(str(font_path)).get_charmap())
