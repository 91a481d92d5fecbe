"""`pillsnap compare A B`: lays two experiments side by side on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The experiment to compare with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The experiment in question.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Page to write. [default: <B>/reports/compare_<A>.html]")
    ] = None,
) -> None:
    """Compare two experiments: figures, the same pictures one by one, settings and curves."""
    from pillsnap.gates.comparison_page import write_comparison

    path, outcome = write_comparison(a, b, out)
    typer.echo(outcome.title)
    typer.echo(outcome.sentence)
    typer.echo(f"comparison: {path}")
