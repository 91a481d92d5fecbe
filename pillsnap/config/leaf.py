"""What one key of the configuration may hold: read from its annotation in the schema, checked, and told in words."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pillsnap.config.rules import PATH, Rule

_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text (in quotes if it looks like a number)",
    list: "a list",
}


@dataclass(frozen=True, kw_only=True)
class LeafType:
    """The type of one key."""

    base: type
    """bool, int, float, str or list."""
    choices: tuple[str | int, ...] = ()
    """The allowed values, of one type; empty where any of the type will do."""
    rules: tuple[Rule, ...] = ()
    item: LeafType | None = None
    """The type of each item of a list."""
    is_nullable: bool = False

    @classmethod
    def from_annotation(cls, annotation: Any) -> LeafType:
        """Read a field's annotation: `int`, `Literal[...]`, `list[T]`, `T | None` or `Annotated[T, rule, ...]`."""
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            inner = cls.from_annotation(arguments[0])
            return replace(inner, rules=(*inner.rules, *arguments[1:]))
        if origin in (Union, UnionType):
            (inner_annotation,) = (argument for argument in arguments if argument is not NoneType)
            return replace(cls.from_annotation(inner_annotation), is_nullable=True)
        if origin is Literal:
            return cls(base=type(arguments[0]), choices=arguments)
        if origin is list:
            return cls(base=list, item=cls.from_annotation(arguments[0]))
        return cls(base=annotation)

    def accepts(self, value: Any) -> bool:
        """Tell whether `value` has this type, is one of the choices and follows the rules."""
        if value is None:
            return self.is_nullable
        if not _is_a(value, self.base) or (self.choices and value not in self.choices):
            return False
        if self.item is not None and not all(self.item.accepts(item) for item in value):
            return False
        return all(rule.holds(value) for rule in self.rules)

    def convert(self, value: Any) -> Any:
        """Return an accepted value as the program uses it: whole numbers as float where asked, paths expanded."""
        if value is None:
            return None
        if self.base is float:
            return float(value)
        if PATH in self.rules:
            return os.path.normpath(Path(value).expanduser())
        return value

    def describe(self) -> str:
        """Say in words what is wanted, to follow "wants"."""
        if PATH in self.rules:
            text = "the path of a file or folder"
        elif self.choices:
            text = "one of: " + ", ".join(map(str, self.choices))
        else:
            text = " ".join([_WORDS[self.base], *(rule.text for rule in self.rules)])
        if self.item is not None:
            text += f"; each item is {self.item.describe()}"
        return f"{text}; or null" if self.is_nullable else text


def _is_a(value: Any, base: type) -> bool:
    """Tell whether `value` is a `base`; a bool is no number, a whole number is a float, and infinities are neither."""
    if base is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if base is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, base)
