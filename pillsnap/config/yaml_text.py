"""Turns YAML text into settings: a dotted key, a value, and the place where it was written.

What people trip over in PyYAML is read as meant: `1e-3` is a number; `2026-01-31`, `12:30` and `000123` (a class key)
are text. A key may be dotted in a file too (`train.lr: 1e-3`); merge keys (`<<`) are not supported.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from pillsnap.config.keys import KeyTree
from pillsnap.config.problems import Place, Problem

_MAX_SHOWN = 60


@dataclass(frozen=True)
class Setting:
    """A value as written."""

    key: str
    """Dotted path."""
    value: Any
    place: Place

    @property
    def shown(self) -> str:
        """The value for a message: as YAML on one line, shortened."""
        text = yaml.safe_dump(self.value, default_flow_style=True, allow_unicode=True, width=float("inf"))
        text = text.removesuffix("...\n").strip()
        return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


@dataclass
class Parsed:
    """What one text holds."""

    settings: list[Setting] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    is_readable: bool = True
    """False where the text broke off, so that a missing key proves nothing."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with its own idea of what a number looks like, and without dates and merge keys."""


_REPLACED = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_DROPPED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED + _DROPPED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9]+([eE][-+]?[0-9]+)?)$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, key: str, place_at: Callable[[int], Place], keys: KeyTree) -> Parsed:
    """Read a YAML text.

    Args:
        text: A whole file, or the value of an override.
        key: The dotted key that the text is the value of; "" for a file.
        place_at: Gives the place of a line, counted from 1; line 0 is the text as a whole.
        keys: Its sections are looked into; anything else is a value, whatever its form.

    Returns:
        One setting a value, in the order written; keys and types are not checked.
    """
    parsed = Parsed()
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if key or isinstance(node, yaml.MappingNode):
            _Collector(loader, place_at, keys, parsed).visit(node, key, place_at(1))
        else:
            got = "an empty file" if node is None else _form(node)
            parsed.problems.append(Problem((place_at(0),), "", f"got {got}; wants keys with values, such as `train:`"))
    except yaml.reader.ReaderError as err:
        line = text.count("\n", 0, err.position) + 1
        parsed.problems.append(Problem((place_at(line),), key, f"broken YAML: {err.reason}"))
        parsed.is_readable = False
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 0
        begin = f" ({err.context} from line {err.context_mark.line + 1})" if err.context_mark and not key else ""
        parsed.problems.append(Problem((place_at(line),), key, f"broken YAML: {err.problem}{begin}"))
        parsed.is_readable = False
    return parsed


@dataclass
class _Collector:
    """Walks the nodes of one text and fills `parsed`."""

    loader: _Loader
    place_at: Callable[[int], Place]
    keys: KeyTree
    parsed: Parsed
    first_places: dict[str, Place] = field(default_factory=dict)

    def visit(self, node: yaml.Node | None, key: str, place: Place) -> None:
        """Look into a section; take anything else as the value of `key`."""
        if isinstance(node, yaml.MappingNode) and (not key or key in self.keys.sections):
            for key_node, value_node in node.value:
                self._visit_item(key_node, value_node, key)
            return
        value = None if node is None else self.loader.construct_document(node)
        if key in self.first_places:
            text = f"given twice in one file, first at line {self.first_places[key].line}; remove one"
            self.parsed.problems.append(Problem((place,), key, text))
        self.first_places.setdefault(key, place)
        self.parsed.settings.append(Setting(key, value, place))

    def _visit_item(self, key_node: yaml.Node, value_node: yaml.Node, parent: str) -> None:
        place = self.place_at(key_node.start_mark.line + 1)
        if isinstance(key_node, yaml.ScalarNode):
            self.visit(value_node, f"{parent}.{key_node.value}".removeprefix("."), place)
        else:
            self.parsed.problems.append(Problem((place,), parent, f"got {_form(key_node)} as a key; wants a name"))


def _form(node: yaml.Node) -> str:
    return {yaml.ScalarNode: "a single value", yaml.SequenceNode: "a list"}.get(type(node), "a mapping")
