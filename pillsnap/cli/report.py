"""`pillsnap report EXP`: writes an experiment's page again, from the files that lie there now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    exp: Annotated[Path, typer.Argument(metavar="EXP", help="Folder of an experiment.")],
) -> None:
    """Write reports/index.html of an experiment from its files."""
    # Imported here, not above: `pillsnap --help` must not wait for matplotlib and arrow.
    from pillsnap.evaluation.report import write_report

    typer.echo(f"report: {write_report(exp)}")
