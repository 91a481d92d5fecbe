"""Where the files of a synthetic data set lie and what each picture shows: AI Hub 576's folders and naming grid.

    <root>[/data]/{train,val}/images/single/TS_1_single/K-000059/K-000059_0_2_0_1_75_320_200.png
    <root>[/data]/{train,val}/labels/single/TL_1_single/K-000059_json/K-000059_0_2_0_1_75_320_200.json
    <root>[/data]/{train,val}/images/combination/TS_1_combo/K-a-b-c/K-a-b-c_0_2_0_2_70_000_200.png
    <root>[/data]/{train,val}/labels/combination/TL_1_combo/K-a-b-c_json/K-a/K-a-b-c_0_2_0_2_70_000_200.json

(`VS_`, `VL_` in the val part). Nothing is written here: a `Job` is one folder's worth of work for a process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, comb

import numpy as np

from pillsnap.data.randomness import sample_generator
from pillsnap.data.synthetic_drugs import Drug
from pillsnap.data.synthetic_scene import Shot

BACKGROUNDS, SIDES, LIGHTS, LATITUDES = (0, 1, 2), (0, 1), (0, 1, 2), (60, 70, 75, 90)
LONGITUDES = tuple(range(0, 360, 20))
GROUPS = [(background, side, light) for background in BACKGROUNDS for side in SIDES for light in LIGHTS]
ANGLES = [(latitude, longitude) for longitude in LONGITUDES for latitude in LATITUDES]
GRID_SIZE = len(GROUPS) * len(ANGLES)  # 1,296 pictures of a drug
ANGLE_STRIDE = 29  # coprime with the 72 angles: successive pictures of a group differ in both

COMBO_SHOTS = tuple(Shot(background=2, side=0, light=2, latitude=latitude, longitude=0) for latitude in (70, 75, 90))
MANY_PILLS_SHARE = 0.8  # of the combinations that hold four pills, not three; the real mean is 3.86
VAL_COMBO_SHARE = 0.1
DRUGS_PER_ARCHIVE, COMBOS_PER_ARCHIVE = 50, 625
PICTURES_PER_JOB = 36


@dataclass(frozen=True, slots=True)
class Job:
    """Pictures of one folder: some of one drug's (`len(drugs) == 1`), or all of one combination's."""

    drugs: tuple[Drug, ...]
    shots: tuple[Shot, ...]
    image_dir: str  # posix paths relative to the data set's root
    label_dir: str

    @property
    def is_combo(self) -> bool:
        """Whether the pictures show several pills."""
        return len(self.drugs) > 1

    def stem(self, shot: Shot) -> str:
        """Return a picture's file name without suffix: code_S_background_side_light_latitude_longitude_size."""
        cell = f"{shot.background}_{shot.side}_{shot.light}_{shot.latitude}_{shot.longitude:03d}"
        return f"{folder_code(self.drugs)}_0_{cell}_200"

    def image_path(self, shot: Shot) -> str:
        """Return where the picture lies."""
        return f"{self.image_dir}/{self.stem(shot)}.png"

    def label_path(self, shot: Shot, drug: Drug) -> str:
        """Return where the label of one pill of the picture lies."""
        folder = f"{self.label_dir}/{drug.code}" if self.is_combo else self.label_dir
        return f"{folder}/{self.stem(shot)}.json"


def folder_code(drugs: Sequence[Drug]) -> str:
    """Return `K-000059`, or all codes of a combination: `K-000059-000250-003483`."""
    return "K-" + "-".join(drug.code.removeprefix("K-") for drug in drugs)


def max_combo_pictures(num_drugs: int) -> int:
    """Return how many combination pictures so few drugs allow: no two folders hold the same pills."""
    return len(COMBO_SHOTS) * (comb(num_drugs, 3) + comb(num_drugs, 4))


def plan_jobs(
    known: Sequence[Drug],
    unknown: Sequence[Drug],
    *,
    singles_per_drug: int,
    num_combos: int,
    seed: int,
    top: str,
) -> list[Job]:
    """Decide every picture of a data set.

    Args:
        known: Drugs of the train part.
        unknown: Drugs that occur in the val part only; without any there is no val part.
        singles_per_drug: Pictures of each drug, at most `GRID_SIZE`.
        num_combos: Combination pictures of all parts together; rounded up to whole folders of three.
        seed: Which cells of the grid and which combinations are taken.
        top: "" or "data/": the level between the root and the parts.
    """
    num_folders = ceil(num_combos / len(COMBO_SHOTS))
    num_val = max(1, round(VAL_COMBO_SHARE * num_folders)) if unknown and num_folders > 1 else 0
    hands = _deal_hands(known, num_folders - num_val, (3, 4), sample_generator(seed, "train combinations"))
    # Val combinations hold train pills and one that training never saw, like the real set's.
    few = _deal_hands(known, num_val, (2, 3), sample_generator(seed, "val combinations"))
    val_hands = [(*hand, unknown[index % len(unknown)]) for index, hand in enumerate(few)]
    return [
        *_single_jobs(known, singles_per_drug, seed, f"{top}train"),
        *_combo_jobs(hands, f"{top}train"),
        *_single_jobs(unknown, singles_per_drug, seed, f"{top}val"),
        *_combo_jobs(val_hands, f"{top}val"),
    ]


def single_shots(code: str, num_shots: int, seed: int) -> list[Shot]:
    """Choose cells of the grid for one drug: all 18 (background, side, light) groups before any gets one more."""
    rng = sample_generator(seed, code, "grid")
    groups = [GROUPS[i] for i in rng.permutation(len(GROUPS))]
    starts = rng.integers(len(ANGLES), size=len(GROUPS))
    shots = []
    for index in range(num_shots):
        turn, group = divmod(index, len(GROUPS))
        background, side, light = groups[group]
        latitude, longitude = ANGLES[(int(starts[group]) + turn * ANGLE_STRIDE) % len(ANGLES)]
        shots.append(Shot(background, side, light, latitude, longitude))
    return shots


def _single_jobs(drugs: Sequence[Drug], singles_per_drug: int, seed: int, part: str) -> Iterator[Job]:
    letter = _archive_letter(part)
    for index, drug in enumerate(drugs):
        archive = 1 + index // DRUGS_PER_ARCHIVE
        image_dir = f"{part}/images/single/{letter}S_{archive}_single/{drug.code}"
        label_dir = f"{part}/labels/single/{letter}L_{archive}_single/{drug.code}_json"
        shots = single_shots(drug.code, singles_per_drug, seed)
        for first in range(0, len(shots), PICTURES_PER_JOB):
            yield Job((drug,), tuple(shots[first : first + PICTURES_PER_JOB]), image_dir, label_dir)


def _combo_jobs(hands: Sequence[tuple[Drug, ...]], part: str) -> Iterator[Job]:
    letter = _archive_letter(part)
    for index, hand in enumerate(hands):
        archive = 1 + index // COMBOS_PER_ARCHIVE
        drugs = tuple(sorted(hand, key=lambda drug: drug.code))
        folder = folder_code(drugs)
        image_dir = f"{part}/images/combination/{letter}S_{archive}_combo/{folder}"
        label_dir = f"{part}/labels/combination/{letter}L_{archive}_combo/{folder}_json"
        yield Job(drugs, COMBO_SHOTS, image_dir, label_dir)


def _archive_letter(part: str) -> str:
    return "T" if part.endswith("train") else "V"


def _deal_hands(
    drugs: Sequence[Drug], num_hands: int, sizes: tuple[int, int], rng: np.random.Generator
) -> list[tuple[Drug, ...]]:
    """Deal different sets of few or (mostly) many drugs, each drug about equally often; there must be enough sets."""
    hands: list[tuple[Drug, ...]] = []
    seen: set[tuple[int, ...]] = set()
    deck: list[int] = []
    while len(hands) < num_hands:
        size = min(len(drugs), sizes[1] if rng.random() < MANY_PILLS_SHARE else sizes[0])
        if len(deck) < size:
            deck += [int(i) for i in rng.permutation(len(drugs)) if i not in deck]
        hand, deck = tuple(sorted(deck[:size])), deck[size:]
        if hand in seen:
            deck = [int(i) for i in rng.permutation(len(drugs))]
            continue
        seen.add(hand)
        hands.append(tuple(drugs[i] for i in hand))
    return hands
