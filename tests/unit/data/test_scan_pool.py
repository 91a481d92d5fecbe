from __future__ import annotations

import gc
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pillsnap.data.scan_pool import map_jobs, num_processes
from pillsnap.errors import DataError
from tests.unit.data.scan_jobs import die_in_a_helper, refuse_in_a_helper, slow_square, write_to_stdout

pytestmark = pytest.mark.req("DAT-4")

MANY = 40


def test_results_come_in_the_order_of_the_jobs_and_from_several_processes() -> None:
    results = map_jobs(slow_square, range(MANY), 3)
    assert [square for square, _ in results] == [number * number for number in range(MANY)]
    assert len({pid for _, pid in results}) > 1


def test_few_jobs_are_done_here() -> None:
    assert map_jobs(slow_square, [3], 3) == [(9, os.getpid())]


def test_one_process_is_this_one() -> None:
    assert {pid for _, pid in map_jobs(slow_square, range(5), 1)} == {os.getpid()}


def test_what_a_killed_helper_had_is_done_here(caplog: pytest.LogCaptureFixture) -> None:
    jobs = [(number, os.getpid()) for number in range(MANY)]
    assert map_jobs(die_in_a_helper, jobs, 2) == jobs
    assert "has ended; its work is done again" in caplog.text


def test_an_error_of_a_helper_is_raised_here() -> None:
    with pytest.raises(DataError, match=r"job \d+ cannot be done"):
        map_jobs(refuse_in_a_helper, [(number, os.getpid()) for number in range(MANY)], 2)


def test_without_another_process_it_only_takes_longer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_args: Any, **_options: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert len(map_jobs(slow_square, range(MANY), 2)) == MANY
    assert "cannot be started" in caplog.text


def test_what_a_library_prints_does_not_end_up_among_the_answers(tmp_path: Path) -> None:
    paths = [str(tmp_path / str(number)) for number in range(MANY)]
    assert map_jobs(write_to_stdout, paths, 2) == paths


def test_the_garbage_collector_is_as_it_was() -> None:
    map_jobs(slow_square, [1], 1)
    assert gc.isenabled()


def test_there_is_a_process_for_each_core_unless_told_otherwise() -> None:
    assert num_processes() == min(len(os.sched_getaffinity(0)), 16)
    assert num_processes(3) == 3
