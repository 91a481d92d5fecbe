"""Finds copies of one photograph among millions: re-encoded, resized or renamed, but not another shot.

Thumbnails (24 x 24 cells of area-averaged RGB) are compared first. Two of one class are candidates when no value
differs by more than 12 grey levels and all by no more than 1.1 on average; of two classes, where thousands of white
round tablets look alike, when they differ by no more than 6 and 0.75. Candidates are looked at again at 256 px: what is
left of each without a blurred version of itself (edges, texture, noise) must correlate by `MIN_CORRELATION`.

Measured, largest difference and largest mean difference of copies as thumbnails, smallest correlation at 256 px:

    drug1, pushin_pill, synthetic 488x640    JPEG quality 75 and more     5, 0.71   0.94
                                             JPEG quality 50              6, 1.12   0.90
                                             half the size, quality 85    9, 0.71   0.86
                                             0.37 of it, quality 85      24, 1.15   0.69
    nearest other shots: phone photographs (pushin_pill)                 78, 4.86   0.25
                         another angle of a synthetic pill               16, 1.68   0.54
                         shots of a scene in which nothing moved (drug1)  3, 0.31   0.75 (median)

The last kind is no copy but is as good as one: it leaks just as well, and is found.

Nobody compares all pairs. Differences within the limits bound the Euclidean distance of two thumbnails, projecting both
on common axes never takes them farther apart: a k-d tree over a few principal axes lists all candidates, their distance
over more axes rules out most, and what is left is compared value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KDTree

from pillsnap.data.images import RgbImage

Thumbnails = NDArray[np.uint8]
IntArray = NDArray[np.int64]
Points = NDArray[np.float32]

VERSION = "1"  # raise it whenever other copies are found
MIN_CORRELATION = 0.6
CLOSE_LOOK_PX = 256
BLUR_SIGMA_PX = 2.0
WEAK_DETAIL = 0.5  # grey levels (root of the mean square); the photographs measured have 2 and more
MAX_PAIRS = 2000  # enough to act on; data full of copies would have millions
MAX_LOOKS = 5000  # pairs that are decoded and looked at again: about a minute
NUM_TREE_AXES = 12
NUM_AXES = 64
NUM_SAMPLED = 600  # thumbnails the axes are found from
CHUNK = 8192  # thumbnails, or pairs of them, at a time: 60 MB as float32


@dataclass(frozen=True, slots=True)
class Limits:
    """How far the thumbnails of copies may differ, in grey levels."""

    largest: int
    mean: float

    def radius(self, num_values: int) -> float:
        """Return the Euclidean distance that such a difference cannot exceed."""
        return 1.001 * float(np.sqrt(self.largest * self.mean * num_values))  # a margin for float32


SAME_CLASS = Limits(12, 1.1)
OTHER_CLASS = Limits(6, 0.75)


@dataclass(frozen=True, slots=True)
class CopyPair:
    """Two pictures that show one photograph, by their places, and how far their thumbnails differ."""

    first: int
    second: int
    mean_difference: float
    max_difference: int


@dataclass(frozen=True, slots=True)
class FoundCopies:
    """What a search found."""

    pairs: list[CopyPair]
    """The more alike first."""
    is_complete: bool
    """False when the search ended at `MAX_PAIRS` copies or at `MAX_LOOKS` pictures that look alike."""


def find_copies(
    thumbnails: Thumbnails,
    sides: NDArray[np.integer[Any]],
    classes: NDArray[np.integer[Any]],
    looks_alike: Callable[[int, int], bool] = lambda first, second: True,
) -> FoundCopies:
    """Return the copies among pictures of different sides.

    Args:
        thumbnails: (N, D) uint8; may be memory-mapped, it is read in pieces.
        sides: (N,) number of the side of each. Those of one side are not compared.
        classes: (N,) number of the class of each.
        looks_alike: Looks at the pictures at two places again; see `is_same_photograph`.
    """
    points = _projected(thumbnails)
    found: dict[tuple[int, int], CopyPair] = {}
    is_complete = True
    for num_looks, pair in enumerate(_all_pairs(thumbnails, points, sides, classes)):
        if len(found) == MAX_PAIRS or num_looks == MAX_LOOKS:
            is_complete = False
            break
        if looks_alike(pair.first, pair.second):
            found[pair.first, pair.second] = pair
    pairs = sorted(found.values(), key=lambda pair: (pair.mean_difference, pair.first, pair.second))
    return FoundCopies(pairs, is_complete)


def is_same_photograph(one: RgbImage, other: RgbImage) -> bool:
    """Tell whether two pictures, uint8 (H, W, 3), have the same edges, texture and noise at the same places."""
    height, width = one.shape[:2]
    scale = CLOSE_LOOK_PX / max(height, width)
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    details = [_details(image, size_wh) for image in (one, other)]
    strength = float(np.sqrt((details[0] ** 2).sum() * (details[1] ** 2).sum()))
    if (
        strength < WEAK_DETAIL**2 * details[0].size
    ):  # what is left is JPEG's noise: the thumbnails have said all there is
        return True
    return float((details[0] * details[1]).sum()) / strength >= MIN_CORRELATION


def _details(image: RgbImage, size_wh: tuple[int, int]) -> NDArray[np.float32]:
    grey = cv2.cvtColor(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), BLUR_SIGMA_PX), np.float32)


def _all_pairs(
    thumbnails: Thumbnails, points: Points, sides: NDArray[np.integer[Any]], classes: NDArray[np.integer[Any]]
) -> Iterator[CopyPair]:
    """Yield the pairs whose thumbnails are near enough, those of one class first."""
    for places in _by_class(classes):
        if len(np.unique(sides[places])) > 1:
            for first, second in _candidates(points[places], sides[places], SAME_CLASS.radius(thumbnails.shape[1])):
                yield from _verified(thumbnails, places[first], places[second], SAME_CLASS)
    for first, second in _candidates(points, sides, OTHER_CLASS.radius(thumbnails.shape[1])):
        is_other = classes[first] != classes[second]
        yield from _verified(thumbnails, first[is_other], second[is_other], OTHER_CLASS)


def _by_class(classes: NDArray[np.integer[Any]]) -> list[IntArray]:
    order = np.argsort(classes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(classes[order])) + 1) if len(order) else []


def _projected(thumbnails: Thumbnails) -> Points:
    """Return the thumbnails on their principal axes, (N, A), the widest first."""
    step = max(1, len(thumbnails) // NUM_SAMPLED)
    sample = thumbnails[::step][:NUM_SAMPLED].astype(np.float32)
    middle = sample.mean(0) if len(sample) else np.zeros(thumbnails.shape[1], np.float32)
    sample -= middle
    _, mixtures = np.linalg.eigh(sample @ sample.T)  # ascending; far smaller than the covariance of the values
    axes = np.linalg.qr(sample.T @ mixtures[:, : -NUM_AXES - 1 : -1])[0].astype(np.float32)
    pieces = [(thumbnails[start : start + CHUNK] - middle) @ axes for start in range(0, len(thumbnails), CHUNK)]
    return np.concatenate([np.zeros((0, axes.shape[1]), np.float32), *pieces])


def _candidates(points: Points, sides: NDArray[np.integer[Any]], radius: float) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield pairs of different sides that lie within `radius`, as two arrays of places, some queries at a time."""
    names, counts = np.unique(sides, return_counts=True)
    by_size = names[np.argsort(-counts, kind="stable")]
    for number, tree_side in enumerate(by_size[:-1]):
        members = np.flatnonzero(sides == tree_side)
        queries = np.flatnonzero(np.isin(sides, by_size[number + 1 :]))
        tree = KDTree(points[members, :NUM_TREE_AXES])
        for start in range(0, len(queries), CHUNK):
            asked = queries[start : start + CHUNK]
            near = tree.query_radius(points[asked, :NUM_TREE_AXES], radius)
            lengths = np.array([len(each) for each in near])
            if lengths.any():
                yield _near(points, members[np.concatenate(near)], np.repeat(asked, lengths), radius)


def _near(points: Points, first: IntArray, second: IntArray, radius: float) -> tuple[IntArray, IntArray]:
    """Return those of the candidate pairs that lie within `radius` over all axes."""
    is_near = np.empty(len(first), bool)
    for start in range(0, len(first), CHUNK):
        piece = slice(start, start + CHUNK)
        differences = points[first[piece]] - points[second[piece]]
        is_near[piece] = np.einsum("ij,ij->i", differences, differences) <= radius**2
    return first[is_near], second[is_near]


def _verified(thumbnails: Thumbnails, first: IntArray, second: IntArray, limits: Limits) -> Iterator[CopyPair]:
    """Yield those of the candidate pairs whose thumbnails differ within the limits, the more alike of a piece first."""
    for start in range(0, len(first), CHUNK):
        ones, others = first[start : start + CHUNK], second[start : start + CHUNK]
        differences = np.abs(thumbnails[ones].astype(np.int16) - thumbnails[others])
        largest, mean = differences.max(1), differences.mean(1)
        passed = np.flatnonzero((largest <= limits.largest) & (mean <= limits.mean))
        for place in passed[np.argsort(mean[passed], kind="stable")]:
            low, high = sorted((int(ones[place]), int(others[place])))
            yield CopyPair(low, high, float(mean[place]), int(largest[place]))
