"""Invents the drugs of a synthetic data set: shape, colours, size, score line, imprints and name of each.

The drugs are made so that shape and colour tell most of them apart even in a small picture, as a deck of real tablets
would if one picked it to be told apart; imprints differ as well. Nothing here draws a pixel and no name is a real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pillsnap.boxes import FloatArray
from pillsnap.data.randomness import sample_generator

MAX_CODE_NUMBER = 41_000  # the real set's codes end near there

# Colour words of the drug registry (`color_class1`) and an sRGB value that such a tablet has in neutral light.
COLORS: dict[str, tuple[int, int, int]] = {
    "하양": (243, 241, 236),
    "노랑": (241, 208, 76),
    "주황": (233, 137, 56),
    "분홍": (238, 164, 178),
    "빨강": (192, 48, 50),
    "갈색": (132, 82, 52),
    "연두": (170, 206, 98),
    "초록": (58, 136, 78),
    "청록": (56, 152, 158),
    "파랑": (66, 114, 194),
    "남색": (46, 56, 112),
    "자주": (142, 44, 88),
    "보라": (134, 94, 172),
    "회색": (152, 152, 154),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """An outline and what the registry calls it.

    `aspect` is the range of short side / long side; `look` places the shape in a plane (elongation, corners) in which
    shapes that are easily confused lie close together.
    """

    drug_shape: str
    long_mm: tuple[float, float]
    aspect: tuple[float, float]
    look: tuple[float, float]


SHAPES: dict[str, Shape] = {
    "round": Shape("원형", (9.0, 12.6), (1.0, 1.0), (0.0, 0.0)),
    "oval": Shape("타원형", (12.5, 16.5), (0.58, 0.68), (0.5, 0.05)),
    "oblong": Shape("장방형", (14.5, 18.5), (0.42, 0.50), (0.9, 0.15)),
    "capsule": Shape("장방형", (15.0, 19.0), (0.37, 0.42), (1.0, 0.1)),
    "square": Shape("사각형", (9.0, 11.0), (1.0, 1.0), (0.0, 0.9)),
    "diamond": Shape("마름모형", (12.5, 15.0), (0.68, 0.76), (0.35, 1.0)),
    "triangle": Shape("삼각형", (10.5, 12.5), (1.0, 1.0), (0.0, 1.3)),
    "pentagon": Shape("오각형", (10.0, 12.0), (1.0, 1.0), (0.0, 0.65)),
    "hexagon": Shape("육각형", (10.0, 12.5), (1.0, 1.0), (0.0, 0.5)),
    "octagon": Shape("팔각형", (10.0, 12.5), (1.0, 1.0), (0.0, 0.3)),
    "half_round": Shape("반원형", (12.5, 15.0), (0.58, 0.66), (0.55, 0.8)),
}

# Shapes in the order drugs take them: round and elongated ones dominate, as they do among real tablets.
SHAPE_CYCLE = (
    "round",
    "oval",
    "capsule",
    "oblong",
    "round",
    "triangle",
    "oval",
    "capsule",
    "square",
    "round",
    "oblong",
    "hexagon",
    "oval",
    "capsule",
    "round",
    "diamond",
    "oblong",
    "half_round",
    "round",
    "octagon",
    "oval",
    "pentagon",
)

# Only the drugs invented last are compared when the next colour is picked: with thousands of drugs looks repeat anyway.
COMPARED_DRUGS = 200
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
# fmt: off
# A name is a few of these in Korean, and the same in Latin letters.
SYLLABLES = (
    ("가", "ga"), ("나", "na"), ("다", "da"), ("라", "ra"), ("마", "ma"), ("바", "ba"),
    ("사", "sa"), ("아", "a"), ("자", "ja"), ("카", "ka"), ("타", "ta"), ("파", "pa"),
    ("하", "ha"), ("로", "ro"), ("리", "ri"), ("메", "me"), ("비", "bi"), ("세", "se"),
    ("오", "o"), ("유", "yu"), ("젠", "zen"), ("틴", "tin"), ("펜", "pen"), ("록", "rok"),
    ("신", "sin"), ("진", "jin"), ("릭", "rik"), ("덱", "dek"), ("솔", "sol"), ("빈", "bin"),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Face:
    """What one side of a pill carries: `text` ("" for none; with a score line half of it stands on either side)."""

    text: str
    has_score_line: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Drug:
    """One invented drug: all that its pictures and its labels are made from."""

    code: str  # K-code, the class key
    name: str
    name_en: str
    shape: str  # key of SHAPES
    colors: tuple[str, ...]  # one or two keys of COLORS; two only for capsules
    rgbs: tuple[tuple[int, int, int], ...]  # the drug's own tint of each of its colours, sRGB
    long_mm: float
    short_mm: float
    thick_mm: float
    front: Face
    back: Face
    gloss: float  # 0 (plain tablet) .. 1 (capsule shell)

    @property
    def is_capsule(self) -> bool:
        """Whether it is a hard capsule (drawn as a full round body with a cap) rather than a pressed tablet."""
        return self.shape == "capsule"


def invent_drugs(num_drugs: int, seed: int) -> list[Drug]:
    """Return `num_drugs` different drugs, sorted by code; the same list for the same arguments."""
    rng = sample_generator(seed, "drugs")
    numbers = rng.choice(np.arange(1, MAX_CODE_NUMBER), size=num_drugs, replace=False)
    return _invent(numbers, set(), [], rng)


def invent_more_drugs(num_drugs: int, seed: int, known: Sequence[Drug]) -> list[Drug]:
    """Return `num_drugs` drugs that differ from each other and from `known` as those do among themselves.

    They are sorted by code. `known` does not depend on how many more there are, so that data sets with and without
    unknown drugs show the same pills otherwise.
    """
    rng = sample_generator(seed, "more drugs")
    taken = {int(drug.code.removeprefix("K-")) for drug in known}
    free = np.setdiff1d(np.arange(1, MAX_CODE_NUMBER), sorted(taken))
    imprints = {(drug.front.text, drug.back.text) for drug in known}
    looks = [_look(drug.shape, drug.colors) for drug in known]
    return _invent(rng.choice(free, size=num_drugs, replace=False), imprints, looks, rng)


def _invent(
    numbers: NDArray[np.integer], imprints: set[tuple[str, str]], looks: list[FloatArray], rng: np.random.Generator
) -> list[Drug]:
    """Return a drug a code number, none with the `imprints` and as few as can be with the `looks` there are."""
    drugs = []
    start = int(rng.integers(len(SHAPE_CYCLE)))
    for index, number in enumerate(numbers):
        shape = SHAPE_CYCLE[(start + index) % len(SHAPE_CYCLE)]
        colors, look = _pick_colors(shape, looks[-COMPARED_DRUGS:], rng)
        looks.append(look)
        front, back = _pick_faces(shape, imprints, rng)
        drugs.append(_make_drug(int(number), shape, colors, (front, back), rng))
    return sorted(drugs, key=lambda drug: drug.code)


def _make_drug(
    number: int, shape: str, colors: tuple[str, ...], faces: tuple[Face, Face], rng: np.random.Generator
) -> Drug:
    outline = SHAPES[shape]
    long_mm = float(rng.uniform(*outline.long_mm))
    short_mm = long_mm * float(rng.uniform(*outline.aspect))
    is_capsule = shape == "capsule"
    tints = tuple(
        (int(tint[0]), int(tint[1]), int(tint[2]))
        for tint in (np.clip(np.array(COLORS[color]) + rng.integers(-6, 7, 3), 0, 250) for color in colors)
    )
    syllables = [SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=int(rng.integers(2, 5)))]
    strength = int(rng.choice([5, 10, 20, 25, 50, 100, 200, 250, 500]))
    form, form_en = ("캡슐", "Capsule") if is_capsule else ("정", "Tab.")
    return Drug(
        code=f"K-{number:06d}",
        name="".join(korean for korean, _ in syllables) + f"{form} {strength}밀리그램",
        name_en="".join(latin for _, latin in syllables).capitalize() + f" {form_en} {strength}mg",
        shape=shape,
        colors=colors,
        rgbs=tints,
        long_mm=round(long_mm, 1),
        short_mm=round(short_mm, 1),
        thick_mm=round(short_mm if is_capsule else float(rng.uniform(3.6, 5.4)), 1),
        front=faces[0],
        back=faces[1],
        gloss=0.9 if is_capsule else float(rng.choice([0.1, 0.35, 0.6])),
    )


def _pick_colors(
    shape: str, looks: Sequence[FloatArray], rng: np.random.Generator
) -> tuple[tuple[str, ...], FloatArray]:
    """Choose the colours that make a new drug of `shape` differ most from the `looks` so far."""
    words = list(COLORS)
    pairs: list[tuple[str, ...]] = [(word,) for word in words]
    if shape == "capsule":
        pairs = [(first, second) for first in words for second in words if first != second]
    candidates = np.stack([_look(shape, pair) for pair in pairs])
    # The jitter decides between near-equals, so that another seed gives another set of drugs.
    distances = np.full(len(pairs), 100.0) + rng.uniform(0, 12, len(pairs))
    for look in looks:
        swapped = look[[0, 1, 5, 6, 7, 2, 3, 4]]  # turned by 180 degrees a capsule shows its colours the other way
        nearest = np.minimum(np.linalg.norm(candidates - look, axis=1), np.linalg.norm(candidates - swapped, axis=1))
        distances = np.minimum(distances, nearest + rng.uniform(0, 12, len(pairs)))
    best = int(np.argmax(distances))
    return pairs[best], candidates[best]


def _look(shape: str, colors: tuple[str, ...]) -> FloatArray:
    """Return (8,) float32: place of the shape, then Lab of both halves, scaled so that distances compare."""
    first, second = colors[0], colors[-1]
    rgb: NDArray[np.uint8] = np.array([[COLORS[first], COLORS[second]]], np.uint8)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0].astype(np.float32)
    lab[:, 0] *= 0.5  # lightness is what shading and the lamp change; hue is what stays
    return np.concatenate([np.array(SHAPES[shape].look, np.float32) * 70, lab.reshape(-1)]).astype(np.float32)


def _pick_faces(shape: str, used: set[tuple[str, str]], rng: np.random.Generator) -> tuple[Face, Face]:
    """Choose imprints that no drug in `used` has, and add them to it."""
    while True:
        front = _letters(rng) if rng.random() < 0.7 else _letters(rng) + str(rng.integers(1, 10))
        back = "" if rng.random() < 0.35 else str(rng.choice([rng.integers(1, 100), rng.integers(100, 1000)]))
        if (front, back) not in used:
            break
    used.add((front, back))
    can_break = shape in ("round", "oval", "oblong", "square")
    return (
        Face(front, has_score_line=can_break and len(front) % 2 == 0 and rng.random() < 0.5),
        Face(back, has_score_line=can_break and not back and rng.random() < 0.6),
    )


def _letters(rng: np.random.Generator) -> str:
    return "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=int(rng.integers(2, 4))))
