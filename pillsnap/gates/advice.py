"""The advice at the end of a run or of `pillsnap check`: `reports/advice.json`, and the box in the terminal (ADV-1)."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pillsnap.config.loading import load_experiment_config
from pillsnap.errors import ConfigError
from pillsnap.gates import messages
from pillsnap.gates.advisor import OptimizationAdvisor
from pillsnap.gates.messages import choose_language
from pillsnap.gates.terminal import Terminal
from pillsnap.gates.verdict import Verdict
from pillsnap.jsonfile import save_json

logger = logging.getLogger("pillsnap")

FILE_NAME = Path("reports", "advice.json")


def advise(
    exp_dir: Path,
    stage: int,
    verdict: Verdict,
    *,
    language: str | None = None,
    interactive: bool = True,
    terminal: Terminal | None = None,
) -> dict[str, Any]:
    """Say what to do after a run, ask the user where one sits at a terminal, and write `reports/advice.json`.

    Args:
        exp_dir: The experiment's folder; new values are computed from its `config.yaml`.
        stage: 1 to 4.
        verdict: What the gate came to, with the figures it was made from.
        language: `auto`, `ko` or `en`; None takes `ui.language` of the experiment.
        interactive: Ask where the terminal is one; else the choice is "no choice".
        terminal: Where to speak; None: standard input and output.

    Returns:
        What the file holds: as `OptimizationAdvisor.evaluate_and_recommend`, with `gate` ("go" or "no-go"),
        `gate_reasons` and `time`.

    Raises:
        PillError: The file cannot be written.
    """
    cfg = _config(exp_dir)
    spoken = choose_language(language or ("auto" if cfg is None else cfg.ui.language))
    advisor = OptimizationAdvisor(language=spoken, cfg=cfg, terminal=terminal or Terminal(), is_interactive=interactive)
    results = verdict.results.for_advisor(stage)
    recommend = advisor.recommend_after_time_cap if verdict.is_time_cap else advisor.recommend
    gate = messages.GATE_GO if verdict.go else messages.GATE_NO_GO
    lines = [gate.to(spoken), *(f"   {reason}" for reason in verdict.reasons)]
    said = advisor.present(recommend(stage, results), lines)
    advice = {
        **said.to_dict(),
        "language": spoken,
        "gate": "go" if verdict.go else "no-go",
        "gate_reasons": verdict.reasons,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    save_json(exp_dir / FILE_NAME, advice)
    return advice


def _config(exp_dir: Path) -> DictConfig | None:
    """Return the run's configuration; None, and a warning, where it is missing or of another version."""
    try:
        return load_experiment_config(exp_dir)
    except ConfigError as error:
        logger.warning("%s Suggestions name keys without new values.", error)
        return None
