"""`pillsnap train` and `python -m src.train`: train as a configuration says, and end with a table of figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from omegaconf import DictConfig
from rich.console import Console

from pillsnap.cli.figures_table import figures_table, show_verdict
from pillsnap.cli.main import exit_code_of
from pillsnap.config.loading import load_config
from pillsnap.training.ending import RunResult
from pillsnap.training.run import run_training


def train(
    cfg: Annotated[Path, typer.Option(help="A YAML file.")] = Path("config.yaml"),
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c ...]", help="Values that win.")] = None,
) -> None:
    """Train both models, judge them, and write the report."""
    run_and_show(load_config(cfg, overrides or []))


def main(args: Sequence[str] | DictConfig | None = None) -> int:
    """Train; the entry point of `python -m src.train --cfg config.yaml [a.b=c ...]`.

    Args:
        args: The words of the command line, or a configuration that is already loaded; None takes the process's words.

    Returns:
        The exit code: 0 done, 2 configuration, 3 data, 4 out of memory, 5 time limit without success,
        130 interrupted, 1 anything else.
    """
    if isinstance(args, DictConfig):
        return exit_code_of(lambda: run_and_show(args))
    parser = argparse.ArgumentParser(prog="python -m src.train", description="Train both models.")
    parser.add_argument("--cfg", default="config.yaml", help="a YAML file (default: config.yaml)")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="values that win over the file's")
    words = parser.parse_intermixed_args(args)
    return exit_code_of(lambda: run_and_show(load_config(words.cfg, words.overrides)))


def run_and_show(cfg: DictConfig) -> None:
    """Run the training and print its table of figures."""
    show_result(run_training(cfg), Console(soft_wrap=True))


def show_result(result: RunResult, console: Console) -> None:
    """Print the figures of a finished run, of the final test where there was one, and where its report lies."""
    test = result.final_test
    shown, split = (result.figures, "val") if test is None else (test["test_results"], "test")
    console.print(figures_table(shown, split))
    if test is not None:
        show_verdict(test, console)
    console.print(f"finished in {result.seconds:.0f} s")
    console.print(f"figures: {result.metrics_path}")
    console.print(f"report:  {result.report_path}")
