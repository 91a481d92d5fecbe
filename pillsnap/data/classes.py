"""The class map: which class key (K-code, or name) has which number in the classifier's output.

It is built once from the training split and travels with the experiment and inside every checkpoint. Building one per
split from its own sorted keys shifts every number after the first class that a split lacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pillsnap.data import columns
from pillsnap.data.records import COMBO, Records
from pillsnap.errors import DataError
from pillsnap.jsonfile import read_json, save_json


def codes_shown(records: Records, is_used: NDArray[np.bool_] | None = None) -> dict[str, int]:
    """Return how many pills of each class key the pictures show: single pictures and boxes of combos.

    Args:
        records: The picture table.
        is_used: (N,) marks the pictures that count; None: all.
    """
    used = np.ones(len(records), bool) if is_used is None else is_used
    code = columns.encode(records, "code")
    box_code, offsets = columns.encode_box_codes(records)
    is_box_used = np.repeat(used & columns.equals(records, "task", COMBO), np.diff(offsets))
    found: dict[str, int] = {}
    for encoded, mask in ((code, used & (code.numbers != columns.ABSENT)), (box_code, is_box_used)):
        counts = np.bincount(encoded.numbers[mask], minlength=len(encoded.values)).tolist()
        for value, count in zip(encoded.values, counts, strict=True):
            if count:
                found[value] = found.get(value, 0) + count
    return found


@dataclass(frozen=True)
class ClassMap:
    """Class keys in the order of the classifier's outputs, and the names of those that have one.

    Raises:
        DataError: A class key occurs twice.
    """

    codes: tuple[str, ...]
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every key has one number."""
        if len(set(self.codes)) != len(self.codes):
            repeated = sorted({code for code in self.codes if self.codes.count(code) > 1})[:10]
            raise DataError(
                f"The class map lists {len(self.codes)} class keys, some of them twice: {repeated}. Every key must "
                "have one number. Use the class map that was saved with the checkpoint."
            )

    @classmethod
    def from_records(
        cls,
        records: Records,
        names: Mapping[str, str],
        ignore: frozenset[str] = frozenset(),
        is_used: NDArray[np.bool_] | None = None,
    ) -> ClassMap:
        """Build the map from training pictures.

        Args:
            records: The pictures of the training split. The pills in their combos count as well; pass single pictures
                only where crops of combos are not trained on.
            names: Class key -> drug name, for any keys.
            ignore: Keys that are not drugs and get no number.
            is_used: (N,) marks the pictures that count; None: all.

        Returns:
            The keys in sorted order, so that the same pictures always give the same map.
        """
        kept = tuple(sorted(set(codes_shown(records, is_used)) - ignore))
        return cls(kept, {code: names[code] for code in kept if code in names})

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.codes)

    def index(self, code: str) -> int | None:
        """Return the number of a class key, None for a key that is not in the map."""
        return self._number_of.get(code)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the keys in order: equal maps number all classes alike."""
        return hashlib.sha256("\n".join(self.codes).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON and checkpoints."""
        return {"codes": list(self.codes), "names": dict(self.names), "digest": self.digest}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ClassMap:
        """Build the map from what `to_dict` returned.

        Raises:
            DataError: The content is not that of a class map, or was changed since.
        """
        codes, names = content.get("codes"), content.get("names")
        if not isinstance(codes, list | tuple) or not isinstance(names, Mapping):
            raise DataError(
                f"A class map was expected; got the keys {sorted(content)} where `codes` (a list) and `names` are "
                "wanted. Use class_map.json of the experiment or a checkpoint of this program."
            )
        class_map = cls(tuple(map(str, codes)), {str(code): str(name) for code, name in names.items()})
        if content.get("digest") != class_map.digest:
            raise DataError(
                f"The class map of {len(class_map)} classes does not fit its checksum: it was changed after it was "
                f"saved (saved {content.get('digest')}, now {class_map.digest}). Restore the file, because the "
                "classifier's outputs are numbered by it."
            )
        return class_map

    def save(self, path: Path) -> None:
        """Write the map as JSON, atomically."""
        save_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> ClassMap:
        """Read a file written by `save`.

        Raises:
            PillError: The file cannot be read; DataError where it holds no class map.
        """
        return cls.from_dict(read_json(path))

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {code: number for number, code in enumerate(self.codes)}
