"""What can be wrong with a configuration, where, and the one report about all of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pillsnap.errors import ConfigError

COMMAND_LINE = "command line"


@dataclass(frozen=True, order=True)
class Place:
    """Where a value was written. Places sort from the outermost parent file to the command line."""

    layer: int
    """1: the command line; 0: the file that was asked for; -1: the file it extends; and so on."""
    line: int
    """1-based; 0 for a file as a whole. On the command line, the number of the override."""
    source: str
    """The file as the user would name it, or `COMMAND_LINE`."""

    def __str__(self) -> str:
        """Return `file:line`, or what there is of it."""
        return f"{self.source}:{self.line}" if self.line and self.source != COMMAND_LINE else self.source


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `key` is a dotted path, several, or empty."""

    places: tuple[Place, ...]
    key: str
    text: str

    def __str__(self) -> str:
        """Return `file:line: key: what was got and what is wanted`."""
        where = " and ".join(dict.fromkeys(str(place) for place in self.places))
        return ": ".join(part for part in (where, self.key, self.text) if part)


def report(cfg_path: Path, problems: Iterable[Problem]) -> ConfigError:
    """Return one error that lists every problem in the order of the files and lines."""
    lines = [f"  {problem}" for problem in sorted(problems, key=lambda problem: problem.places)]
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return ConfigError("\n".join([f"The configuration {cfg_path} cannot be used ({count}):", *lines]))
