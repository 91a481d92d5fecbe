"""`hard_cases/index.html`: the answers worth a second look as one page (DAT-6), without a server.

Confused drugs come first, side by side, the most frequent first; then every case: its picture, the pill, the five most
probable drugs, a training picture of the drug it was taken for and of the drug it is, and why it was kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pillsnap.data.classes import ClassMap
from pillsnap.errors import PillError
from pillsnap.evaluation.gallery_pictures import CasePictures
from pillsnap.evaluation.report_page import render, write_page
from pillsnap.inference.hard_case import REASONS, HardCase
from pillsnap.inference.hard_cases import FOLDER, PREDICT, SUMMARY, read_cases
from pillsnap.jsonfile import read_json

PAGE = "index.html"
MAX_PAIRS, MAX_EXAMPLES = 12, 4
CONFUSIONS = ("wrong", "unknown_accepted")
# Which file a case comes from, in words.
SOURCES = {"val": "val split", "unknown": "unknown drugs", PREDICT: "pillsnap predict"}


@dataclass(frozen=True)
class Drug:
    """A drug as the page shows it."""

    code: str
    name: str
    portrait: str
    """The style class that shows a training picture; empty where there is none."""
    absence: str
    """Why there is none."""


@dataclass(frozen=True)
class Bar:
    """One of the most probable drugs."""

    label: str
    percent: str
    width: float
    """Of the bar, 0..100."""
    is_true: bool


@dataclass(frozen=True)
class Card:
    """One case as the page shows it; texts are ready to show."""

    anchor: str
    source: str
    marks: str
    """What filters look for, separated by blanks."""
    title: str
    outcome: str
    reasons: list[str]
    thumbnail: str
    crop: str
    bars: list[Bar]
    guess: Drug | None
    true: Drug | None
    facts: list[tuple[str, str]]
    path: str


@dataclass(frozen=True)
class Pair:
    """Two drugs that were confused."""

    true: Drug
    guess: Drug
    count: int
    examples: list[tuple[str, str]]
    """Anchor and crop (data URI) of a few of the cases."""


def write_gallery(exp_dir: Path) -> Path:
    """Write the page of an experiment's hard cases from the files in its folder.

    Args:
        exp_dir: The experiment.

    Returns:
        `exp_dir/hard_cases/index.html`.

    Raises:
        PillError: The folder is none, a file of cases cannot be read, or the page cannot be written.
    """
    if not exp_dir.is_dir():
        raise PillError(
            f"no gallery can be written: {exp_dir} is not a folder; wanted that of an experiment. Pass the "
            "paths.exp_dir of a run."
        )
    folder = exp_dir / FOLDER
    found, num_damaged = _cases(folder)
    builder = _Builder(CasePictures(exp_dir), _class_map(exp_dir))
    cards = [builder.card(number, source, case) for number, (source, case) in enumerate(found)]
    page = render(
        "gallery.html.j2",
        title=exp_dir.resolve().name,
        cards=cards,
        pairs=builder.pairs(list(zip(cards, (case for _, case in found), strict=True))),
        reasons=_counts([reason for _, case in found for reason in case.reasons], REASONS),
        sources=_counts([source for source, _ in found], {source: SOURCES.get(source, source) for source, _ in found}),
        portraits=builder.portraits,
        num_damaged=num_damaged,
        left_out=_left_out(folder),
    )
    return write_page(page.encode(errors="replace").decode(), folder / PAGE)


def _cases(folder: Path) -> tuple[list[tuple[str, HardCase]], int]:
    """Return all cases with the name of their file, and the number of damaged lines.

    Those of judged splits come first, the gravest before the others; then predictions, the newest before the others.
    """
    judged: list[tuple[str, HardCase]] = []
    predicted: list[tuple[str, HardCase]] = []
    num_damaged = 0
    for path in sorted(folder.glob("*.jsonl")):
        cases, num_bad = read_cases(path)
        (predicted if path.stem == PREDICT else judged).extend((path.stem, case) for case in cases)
        num_damaged += num_bad
    return sorted(judged, key=lambda one: one[1].severity) + predicted[::-1], num_damaged


def _counts(values: Sequence[str], words: dict[str, str]) -> list[tuple[str, str, int]]:
    """Return (value, its words, how often it occurs) of those that occur, in the order of `words`."""
    counts = Counter(values)
    return [(value, text, counts[value]) for value, text in words.items() if counts[value]]


def _left_out(folder: Path) -> list[str]:
    """Say for which splits more cases were found than are kept."""
    try:
        splits = read_json(folder / SUMMARY)["splits"]
        return [
            f"{SOURCES.get(split, split)}: the gravest {facts['kept']:,} of {facts['found']:,}"
            for split, facts in splits.items()
            if facts["kept"] < facts["found"]
        ]
    except (PillError, KeyError, TypeError, AttributeError):  # no judgement wrote it, or somebody changed it
        return []


def _class_map(exp_dir: Path) -> ClassMap:
    try:
        return ClassMap.load(exp_dir / "class_map.json")
    except PillError:  # a page without names is better than none
        return ClassMap(())


class _Builder:
    """Turns cases into what the template shows."""

    def __init__(self, pictures: CasePictures, class_map: ClassMap) -> None:
        self._pictures = pictures
        self._names = class_map.names
        self._codes = frozenset(class_map.codes)
        self.portraits: dict[str, str] = {}
        """Training pictures (data URI) -> style class."""

    def card(self, number: int, source: str, case: HardCase) -> Card:
        """Return one case as a card."""
        guess = self._drug(case.pred_code) if case.pred_code else None
        true = self._drug(case.true_code, case.true_name) if case.true_code else None
        return Card(
            anchor=f"case-{number + 1}",
            source=SOURCES.get(source, source),
            marks=" ".join([f"from-{source}", *case.reasons]),
            title=_label(true) if true else Path(case.image_path).name,
            outcome=_outcome(case, guess),
            reasons=case.reasons,
            thumbnail=self._pictures.thumbnail(case),
            crop=self._pictures.crop(case),
            bars=[_bar(candidate, case.true_code) for candidate in case.top5],
            guess=guess,
            true=None if true == guess else true,
            facts=_facts(case),
            path=case.image_path,
        )

    def pairs(self, cards: Sequence[tuple[Card, HardCase]]) -> list[Pair]:
        """Return the drugs that were taken for others, the most frequent first."""
        members: dict[tuple[str, str], list[Card]] = {}
        for card, case in cards:
            codes = (case.true_code or "", case.pred_code)
            if all(codes) and codes[0] != codes[1] and set(CONFUSIONS) & set(case.reasons):
                members.setdefault(codes, []).append(card)
        ranked = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
        found = []
        for _, confused in ranked[:MAX_PAIRS]:
            first = confused[0]
            assert first.true is not None
            assert first.guess is not None
            examples = [(card.anchor, card.crop or card.thumbnail) for card in confused[:MAX_EXAMPLES]]
            found.append(Pair(first.true, first.guess, len(confused), examples))
        return found

    def _drug(self, code: str, name: str | None = None) -> Drug:
        uri = self._pictures.reference(code)
        # Hundreds of cases mention the same drug: its picture is in the page once, as a style.
        portrait = self.portraits.setdefault(uri, f"portrait-{len(self.portraits) + 1}") if uri else ""
        absence = "no training picture" if code in self._codes else "nothing trained on this drug"
        return Drug(code, self._names.get(code, name or ""), portrait, absence)


def _label(drug: Drug) -> str:
    return f"{drug.code} {drug.name}".strip()


def _outcome(case: HardCase, guess: Drug | None) -> str:
    if guess is None:
        return "no pill was found"
    if case.accepted is False:
        return f"answered unknown; most like {_label(guess)}"
    return f"named {_label(guess)}" if guess.code != case.true_code else "named rightly"


def _bar(candidate: dict[str, Any], true_code: str | None) -> Bar:
    confidence = float(candidate["confidence"])
    label = f"{candidate['code']} {candidate.get('name') or ''}".strip()
    width = min(max(100 * confidence, 0.0), 100.0)
    return Bar(label, f"{confidence:.1%}", round(width, 1), candidate["code"] == true_code)


def _facts(case: HardCase) -> list[tuple[str, str]]:
    """Return how the picture was read, as words and values."""
    facts = [("asked", case.mode_asked), ("read as", case.mode_used)]
    for name, value in (("several pills", case.gating_score), ("as one pill", case.single_confidence)):
        if value is not None:
            facts.append((name, f"{value:.0%}"))
    if case.fallback_reason:
        facts.append(("because of", case.fallback_reason.replace("_", " ")))
    return facts
