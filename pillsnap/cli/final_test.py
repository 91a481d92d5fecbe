"""`pillsnap final-test EXP`: judges a completed stage 4 on the test split, once (FIN-1, FIN-2)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer


def final_test(
    experiment: Annotated[Path, typer.Argument(metavar="EXP", help="The folder of an experiment.")],
    force: Annotated[bool, typer.Option(help="Use the test split again; the use is recorded as forced.")] = False,
) -> None:
    """Judge the best models on the test split, which is used once; training at stage 4 has done so when it ended."""
    # Imported here, not above: `pillsnap --help` must not wait for PyTorch.
    from rich.console import Console

    from pillsnap.cli.figures_table import figures_table, show_verdict
    from pillsnap.config.loading import load_experiment_config
    from pillsnap.evaluation.final_test import (
        best_models,
        final_test_evaluation,
        open_test_loaders,
        require_first_use,
        require_stage_completed,
    )
    from pillsnap.evaluation.test_ledger import RESULTS_NAME

    cfg = load_experiment_config(experiment)
    require_stage_completed(cfg, experiment)
    if not force:
        require_first_use(cfg, experiment)  # before the data set is read for nothing
    logger = logging.getLogger("pillsnap")
    models = best_models(cfg, experiment)
    results = final_test_evaluation(cfg, open_test_loaders(cfg), models, logger, experiment, force=force)
    console = Console(soft_wrap=True)
    console.print(figures_table(results["test_results"], "test"))
    show_verdict(results, console)
    if results["other_uses"]:
        count = len(results["other_uses"])
        console.print(f"the same pictures were used before by other experiments: {count} time(s)", highlight=False)
    console.print(f"results: {experiment / RESULTS_NAME}", highlight=False)
