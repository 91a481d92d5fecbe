"""A search under a real limit of address space, as a program of its own: `python -m tests.run.limited_search`.

The limit is for a whole process, so it is tried in one that ends afterwards. Prints what came of it as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pillsnap.training.auto_batch import tune_batch_sizes
from tests.run.tiny import tiny_config
from tests.run.tiny_tasks import build_tiny_tasks, fingerprint

MB = 1_000_000


def hungry(loss: Callable[[Any], torch.Tensor], mb_a_sample: int) -> Callable[[Any], torch.Tensor]:
    """Make tiny models need as much memory as large ones, without the time that takes."""

    def with_ballast(part: Any) -> torch.Tensor:
        ballast = torch.empty(len(part) * mb_a_sample * MB, dtype=torch.uint8)
        value = loss(part)
        assert len(ballast)
        return value

    return with_ballast


def main(data_root: str, exp_dir: str, limit_gb: str, mb_a_sample: str, *words: str) -> None:
    """Search both tasks where a sample takes `mb_a_sample` and the process may take `limit_gb` more."""
    torch.set_num_threads(1)
    bench = build_tiny_tasks(tiny_config(Path(exp_dir), Path(data_root), *words), float(limit_gb))
    for task in bench.tasks:
        task.parts.loss = hungry(task.parts.loss, int(mb_a_sample))
    before = fingerprint(bench.tasks)
    with bench.context.memory.enforced():
        found = tune_batch_sizes(bench.tasks, bench.context)
        after = fingerprint(bench.tasks)
    result = {
        "changed": [path for path in before | after if before.get(path) != after.get(path)],
        "found": {name: [item.cut.batch_size, item.cut.grad_accum] for name, item in found.items()},
        "tried": {name: [[one.size, one.fits, one.reason] for one in item.tried] for name, item in found.items()},
        "seconds": {name: item.seconds for name, item in found.items()},
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
