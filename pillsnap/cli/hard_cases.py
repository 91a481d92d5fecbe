"""`pillsnap hard-cases EXP`: the answers of an experiment worth a second look, as a page."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer


def hard_cases(
    exp: Annotated[Path, typer.Argument(metavar="EXP", help="Folder of an experiment.")],
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write the gallery of an experiment's hard cases, one page without a server, and say where it lies."""
    # Imported here, not above: `pillsnap --help` must not wait for what writes pages.
    from pillsnap.evaluation.gallery import write_gallery

    page = write_gallery(exp)
    typer.echo(f"gallery: {page}")
    if open_page and not webbrowser.open(page.resolve().as_uri()):
        typer.echo("No browser could be opened here; open the file above in one.")
