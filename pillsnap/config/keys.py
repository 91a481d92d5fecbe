"""The dotted keys of the schema, and the nearest one to a key that does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from difflib import SequenceMatcher
from types import NoneType
from typing import Any, get_args, get_type_hints

from pillsnap.config.leaf import LeafType
from pillsnap.config.schema import Config

# A name less alike than this is not a misspelling: the keys of the section are listed instead.
_MIN_LIKENESS = 0.7
_MAX_LISTED = 10


@dataclass(frozen=True)
class KeyTree:
    """All keys by dotted path, in the order of the schema."""

    paths: list[str] = field(default_factory=list)
    """Sections and leaves, a section before what it holds."""
    leaves: dict[str, LeafType] = field(default_factory=dict)
    sections: dict[str, bool] = field(default_factory=dict)
    """Whether the section may be null."""

    @classmethod
    def from_schema(cls, schema: type) -> KeyTree:
        """Walk a dataclass whose fields are values or further dataclasses."""
        tree = cls()
        for path, annotation in _walk(schema, ""):
            section = _section_of(annotation)
            tree.paths.append(path)
            if section is None:
                tree.leaves[path] = LeafType.from_annotation(annotation)
            else:
                tree.sections[path] = section is not annotation
        return tree

    def children(self, section: str) -> list[str]:
        """Return the dotted keys directly below a section; "" is the root."""
        return [path for path in self.paths if path.rpartition(".")[0] == section]

    def nearest(self, path: str, *, among_sections: bool) -> list[str]:
        """Return the keys most like `path`, none when nothing is alike; more than one when they are equally near.

        A key of the same section goes before all others. Else the last name counts most, then the sections before it,
        then that the key lies high up: so `batch_szie` is `train.batch_size` rather than `train.detection.batch_size`.
        """
        name, parent = _split(path)
        scores: dict[str, tuple[bool, float, float, int]] = {}
        for key in self.sections if among_sections else self.leaves:
            key_name, key_parent = _split(key)
            likeness = _likeness(name, key_name)
            if likeness >= _MIN_LIKENESS:
                parent_likeness = SequenceMatcher(None, parent, key_parent).ratio()
                parent_likeness = parent_likeness if parent_likeness >= _MIN_LIKENESS else 0
                scores[key] = (parent == key_parent, likeness, parent_likeness, -key.count("."))
        best = max(scores.values(), default=None)
        return [key for key, score in scores.items() if score == best]

    def advice(self, path: str, *, among_sections: bool) -> str:
        """Say which key was probably meant, or which keys there are."""
        parent = path.rpartition(".")[0]
        while parent and parent not in self.paths:
            parent = parent.rpartition(".")[0]
        if parent in self.leaves:
            return f"{parent} holds one value, there are no keys below it"
        if nearest := self.nearest(path, among_sections=among_sections):
            return f"did you mean {' or '.join(nearest)}?"
        names = [child.rpartition(".")[2] for child in self.children(parent)]
        listed = ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")
        return f"the keys of {parent or 'the configuration'} are: {listed}"


def _walk(schema: type, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, annotation) of every field, sections before what they hold."""
    for name, annotation in get_type_hints(schema, include_extras=True).items():
        path = f"{prefix}{name}"
        yield path, annotation
        section = _section_of(annotation)
        if section is not None:
            yield from _walk(section, f"{path}.")


def _section_of(annotation: Any) -> type | None:
    """Return the dataclass of a field `T` or `T | None`; None where the field is a value."""
    candidates = [annotation, *(argument for argument in get_args(annotation) if argument is not NoneType)]
    return next((each for each in candidates if isinstance(each, type) and is_dataclass(each)), None)


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.lower().replace("-", "_").rpartition(".")
    return name, parent


def _likeness(text: str, other: str) -> float:
    """Return 0 to 1; initials count as near (`lr` and `learning_rate`), a part of the name too (`workers`)."""
    if text == other:
        return 1.0
    if len(text) > 1 and (text == _initials(other) or _initials(text) == other):
        return 0.95
    ratio = SequenceMatcher(None, text, other).ratio()
    is_part = min(len(text), len(other)) > 2 and (text in other or other in text)
    return max(ratio, 0.8 + 0.1 * ratio) if is_part else ratio


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


KEYS = KeyTree.from_schema(Config)
