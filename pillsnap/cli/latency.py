"""`pillsnap latency EXP`: how long the models of an experiment take for one answer (MEA-1)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAMES = {"single": "one pill", "combo": "several pills", "detector": "detector alone", "classifier": "classifier alone"}


def latency(experiment: Annotated[Path, typer.Argument(metavar="EXP", help="The folder of an experiment.")]) -> None:
    """Measure one answer at a time, 200 runs after 20 to warm up, and write reports/latency.json."""
    # Imported here, not above: `pillsnap --help` must not wait for PyTorch.
    from rich.console import Console
    from rich.table import Table

    from pillsnap.evaluation.latency import RESULTS_NAME, measure_latency

    results = measure_latency(experiment)
    table = Table(title=f"milliseconds an answer, batch 1, {results['device']}", title_justify="left")
    for column in ("what", "p50", "p95", "p99", "mean", "runs"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, title in NAMES.items():
        timing = results[name]
        if timing is not None:
            values = [f"{timing[f'{figure}_ms']:.1f}" for figure in ("p50", "p95", "p99", "mean")]
            table.add_row(title, *values, f"{timing['n']}")
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"results: {experiment / RESULTS_NAME}", highlight=False)
