"""The advisor's box in the terminal, and the question to the user (ADV-1, ADV-2)."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TextIO

NO_CHOICE = "no choice"
CHOICES = ("1", "2", "3")
WIDTH = 66
"""Columns between the corners of the box."""


@dataclass(frozen=True)
class Terminal:
    """Where the advisor speaks and listens."""

    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: sys.stdout)

    @property
    def is_interactive(self) -> bool:
        """Whether somebody sits at both ends."""
        return self.stdin.isatty() and self.stdout.isatty()

    def show(self, text: str) -> None:
        """Write a text; what the terminal's encoding lacks becomes a question mark."""
        encoding = self.stdout.encoding or "utf-8"
        self.stdout.write(text.encode(encoding, errors="replace").decode(encoding))
        self.stdout.flush()

    def ask(self, prompt: str) -> str:
        """Ask until one of the choices is given; "no choice" where the input ends."""
        while True:
            self.show(prompt)
            line = self.stdin.readline()
            if not line:
                return NO_CHOICE
            if line.strip() in CHOICES:
                return line.strip()


def box(title: str, parts: Sequence[Sequence[str]]) -> str:
    """Draw a box; lines may be longer than it is wide, so its right side stays open.

    Args:
        title: Stands in the middle of its head.
        parts: Groups of lines, with an empty line between them.
    """
    return "\n".join(
        ["", f"╔{'═' * WIDTH}╗", _centred(title), f"╠{'═' * WIDTH}╣", *_body(parts), f"╚{'═' * WIDTH}╝", ""]
    )


def _body(parts: Sequence[Sequence[str]]) -> Iterator[str]:
    for number, lines in enumerate(part for part in parts if part):
        if number:
            yield "║"
        yield from (f"║ {line}" for line in lines)


def _centred(text: str) -> str:
    room = max(WIDTH - _columns(text), 0)
    return f"║{' ' * (room // 2)}{text}{' ' * (room - room // 2)}║"


def _columns(text: str) -> int:
    """Return the columns a text takes: two for Korean letters and emoji."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
