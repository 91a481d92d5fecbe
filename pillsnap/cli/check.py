"""`pillsnap check --stage N --exp DIR`: runs a stage's mandatory checks and decides: exit code 0 is a go, 5 is none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pillsnap.errors import GateError

if TYPE_CHECKING:
    from rich.table import Table


class Language(StrEnum):
    """What the advisor speaks; `auto` asks the system."""

    AUTO = "auto"
    KO = "ko"
    EN = "en"


COLOURS = {"passed": "green", "failed": "red", "not run": "yellow"}


def check(
    stage: Annotated[int, typer.Option(min=1, max=4, help="Whose criteria to judge by.")],
    exp: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Experiment to check. [default: that of config.yaml]")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run this check, not all of the stage; may be repeated.")
    ] = None,
    reuse: Annotated[bool, typer.Option("--reuse", help="Leave out checks that passed and still count.")] = False,
    minutes: Annotated[float, typer.Option(min=0.001, help="Of the stability test.")] = 10.0,
    api_url: Annotated[str | None, typer.Option(metavar="URL", help="Address of the deployed service.")] = None,
    api_key_env: Annotated[
        str, typer.Option(metavar="VAR", help="Environment variable that holds the service's key.")
    ] = "PILLSNAP_API_KEY",
    public_url: Annotated[str | None, typer.Option(metavar="URL", help="Public address of the same service.")] = None,
    local_stand_in: Annotated[
        bool, typer.Option("--local-stand-in", help="The public address is a stand-in on this machine, without https.")
    ] = False,
    prometheus_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of the Prometheus that watches the service.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Experiment to compare with. [default: the last accepted one]")
    ] = None,
    lang: Annotated[
        Language | None, typer.Option(help="Of the advice. [default: the experiment's ui.language]")
    ] = None,
) -> None:
    """Run the mandatory checks of a stage, show what they found, and decide: 0 is a go, 5 is none.

    Every check leaves its evidence in reports/checks.json; the decision lies in reports/verdict.json, the advice in
    reports/advice.json. A check that was not run counts as not passed.
    """
    # Imported here, not above: `pillsnap --help` must not wait for PyTorch.
    from rich.console import Console

    from pillsnap.evaluation.latency import has_latency, measure_latency
    from pillsnap.evaluation.report import write_report
    from pillsnap.gates.advice import advise
    from pillsnap.gates.checks import run_checks
    from pillsnap.gates.service_client import ServiceClient
    from pillsnap.gates.subject import CheckOptions
    from pillsnap.gates.targets import get_stage_config
    from pillsnap.gates.verdict import FILE_NAME as VERDICT
    from pillsnap.gates.verdict import evaluate_gate
    from pillsnap.inference.pipeline import default_exp_dir

    for url in filter(None, (api_url, public_url, prometheus_url)):
        ServiceClient(url)  # a wrong address is bad input, not a failed check
    exp_dir = exp or default_exp_dir()
    options = CheckOptions(
        minutes=minutes,
        api_url=api_url,
        api_key=os.environ.get(api_key_env, ""),
        public_url=public_url,
        is_public_url_stand_in=local_stand_in,
        prometheus_url=prometheus_url,
    )
    console = Console()
    run_checks(
        exp_dir,
        only or get_stage_config(stage).mandatory_checks,
        options,
        reuse=reuse,
        on_check=lambda name, found: console.print(f"{name}: {found.status}", highlight=False),
    )
    if not has_latency(exp_dir):
        console.print("latency: measuring")
        measure_latency(exp_dir)
    verdict = evaluate_gate(exp_dir, stage, None, baseline)
    console.print(checks_table(stage, verdict.checks))
    advise(exp_dir, stage, verdict, language=None if lang is None else lang.value)
    write_report(exp_dir)
    if not verdict.go:
        raise GateError(
            f"Stage {stage} is no go for {exp_dir}: {', '.join(verdict.reasons)}. Every mandatory check must have "
            f"passed and no other reason be left; {exp_dir / VERDICT} has every figure with its file. "
            "Mend what failed, run what was not run, and check again."
        )
    typer.echo(f"Stage {stage} is a go for {exp_dir}.")


def checks_table(stage: int, checks: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return one row a check: whether it passed, its value and what was wanted, why, and where the evidence lies."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"mandatory checks of stage {stage}", title_justify="left", show_lines=True)
    table.add_column("check", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for name, found in checks.items():
        status = str(found.get("status"))
        text = [_figure(found), str(found.get("message") or ""), str(found.get("file") or "")]
        colour = COLOURS.get(status, "yellow")
        table.add_row(name, f"[{colour}]{escape(status)}[/]", escape("\n".join(filter(None, text))))
    return table


def _figure(found: Mapping[str, Any]) -> str:
    """Return the value with its unit and what was wanted; nothing where nothing was measured."""
    if found.get("value") is None:
        return ""
    wanted = f" (wanted {found['wanted']})" if found.get("wanted") else ""
    return f"{found['value']} {found.get('unit') or ''}".strip() + wanted
