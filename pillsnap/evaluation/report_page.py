"""Rendering a page: the template engine, and a file that is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pillsnap.atomicfile import atomic_path
from pillsnap.errors import PillError

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **content: object) -> str:
    """Return a page as text.

    Args:
        template: A file in `templates/`.
        **content: What the template names; all text is escaped, because drug and file names come from the data.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content)


def write_page(page: str, path: Path) -> Path:
    """Write a page and return its path; a missing folder is made.

    Raises:
        PillError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as err:
        raise PillError(
            f"{path} cannot be written: {err.strerror}; wanted to put the report there. Check that the folder is "
            "writable and has free space."
        ) from err
    return path
