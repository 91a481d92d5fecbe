"""The folder of a run: what it decided stays readable whatever cut off the writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillsnap.jsonfile import read_json
from pillsnap.training.checkpoint import CheckpointStore
from pillsnap.training.experiment import Experiment

WHOLE = '{"time": "2026-01-01T00:00:00+00:00", "what": "a", "from": "1", "to": "2", "why": "b"}'


def _experiment(exp_dir: Path, decisions: bytes) -> Experiment:
    for name in ("logs", "reports"):
        (exp_dir / name).mkdir()
    (exp_dir / "logs" / "decisions.jsonl").write_bytes(decisions)
    return Experiment(exp_dir, CheckpointStore(exp_dir))


def _decided(experiment: Experiment) -> list[str]:
    experiment.write_facts()
    return [decision["what"] for decision in read_json(experiment.dir / "reports" / "run.json")["decisions"]]


@pytest.mark.req("CKP-3")
@pytest.mark.parametrize("length", [1, 14, 25, len(WHOLE) - 1])
def test_a_decision_cut_off_while_it_was_written_spoils_no_later_one(tmp_path: Path, length: int) -> None:
    experiment = _experiment(tmp_path, f"{WHOLE}\n{WHOLE[:length]}".encode())
    experiment.decide("batch size", 8, 4, "out of memory")
    experiment.decide("workers", 2, 0, "a worker died")
    assert _decided(experiment) == ["a", "batch size", "workers"]


@pytest.mark.req("CKP-3")
def test_lines_that_do_not_parse_are_skipped(tmp_path: Path) -> None:
    # The first is what a torn line became when the next entry continued it.
    experiment = _experiment(
        tmp_path, f'{{"time": "2026{WHOLE}\n\x00\x00\n[1]\n7\n\n{WHOLE}\n'.encode() + b"{\xed\x95}\n"
    )
    assert _decided(experiment) == ["a"]


@pytest.mark.req("CKP-3")
def test_decisions_stand_one_a_line(tmp_path: Path) -> None:
    experiment = _experiment(tmp_path, b"")
    experiment.decide("first\u2028line", "\n", None, "한글")
    experiment.decide("second", 1, 2, "b")
    lines = (tmp_path / "logs" / "decisions.jsonl").read_bytes().split(b"\n")
    assert [line[:1] for line in lines] == [b"{", b"{", b""]
    assert _decided(experiment) == ["first\u2028line", "second"]
