"""Kill training runs at random instants and see whether each goes on as if nothing had happened.

    python -m tests.faults.kill --kills 50 [--seed 0] [--jobs 2] [--dir DIR]

Every run trains both tasks, interleaved, with or without a loader worker, and saves every tenth of a second. It is
killed several times in a row, after a random time or before a random file operation below its checkpoints, and resumed
with `train.resume=last` each time. Prints a line a kill; exit code 1 when one of them changed the weights or cannot be
resumed. A run is a process of its own, forked from this one to save the imports, and does `python -m src.train`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from pillsnap.data.synthetic import SyntheticSpec, draw_dataset
from tests.faults.instants import DYING
from tests.faults.processes import COUNTED, KILLED, Child, train_in_fork
from tests.faults.weights import weights_hash
from tests.run.tiny import tiny_config

MOST_KILLS_IN_A_ROW = 4
PROGRESS = re.compile(r"starting anew|goes on at epoch.*|\[(?:train|val)(?:/detection)?\] e=\S+(?: s=\S+)?|best models")


@dataclass(frozen=True)
class Uninterrupted:
    """What the run is like that nothing happens to."""

    data_root: Path
    weights: str
    seconds: float
    file_operations: int


@dataclass(frozen=True)
class Chain:
    """One experiment to be killed `kills` times and then finished."""

    number: int
    kills: int
    seed: int
    exp_dir: Path


@dataclass(frozen=True)
class ChainEnd:
    """What became of it; `problem` is empty when it ended with the weights of the uninterrupted run."""

    kills: list[str]
    problem: str
    is_resumable: bool


def main(words: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.kill", description="Kill training runs at random instants and resume them."
    )
    parser.add_argument("--kills", type=int, default=50, help="how many kills (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--dir", type=Path, help="where to work, kept; default: a temporary folder")
    options = parser.parse_args(words)
    if options.dir is not None:
        options.dir.mkdir(parents=True, exist_ok=True)
        if any(options.dir.iterdir()):
            parser.error(f"--dir {options.dir} is not empty; name a new folder")
        return _run(options.dir, options.kills, options.seed, options.jobs)
    with tempfile.TemporaryDirectory(prefix="pillsnap-kill-") as folder:
        return _run(Path(folder), options.kills, options.seed, options.jobs)


def _run(folder: Path, kills: int, seed: int, jobs: int) -> int:
    torch.set_num_threads(1)
    plain = _uninterrupted(folder)
    _say(f"the uninterrupted run: {plain.seconds:.1f} s, {plain.file_operations} file operations, {plain.weights[:16]}")
    killed, good, stuck = 0, 0, 0
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        for done in as_completed([pool.submit(_run_chain, chain, plain) for chain in _chains(folder, kills, seed)]):
            end = done.result()
            for kill in end.kills:
                killed += 1
                _say(f"kill {killed}: {kill}: {end.problem or 'same weights'}")
            good += 0 if end.problem else len(end.kills)
            stuck += 0 if end.is_resumable else 1
    verdict = f"{good} of {killed} resumed runs ended with the weights of the uninterrupted run"
    _say(f"{verdict}; {stuck} could not be resumed")
    return 0 if good == killed == kills else 1


def _uninterrupted(folder: Path) -> Uninterrupted:
    data_root, exp_dir = folder / "data", folder / "uninterrupted"
    draw_dataset(data_root, SyntheticSpec(**tiny_config(exp_dir, data_root).data.synthetic), num_processes=1)
    began = time.monotonic()
    child = train_in_fork(exp_dir, data_root)
    if child.wait() != 0:
        raise SystemExit(f"the uninterrupted run failed:\n{child.text()}")
    operations = int(child.text().rsplit(COUNTED, 1)[1])
    return Uninterrupted(data_root, weights_hash(exp_dir), time.monotonic() - began, operations)


def _chains(folder: Path, kills: int, seed: int) -> Iterator[Chain]:
    chance = random.Random(seed)
    number = 0
    while kills:
        number += 1
        in_a_row = min(kills, chance.randint(1, MOST_KILLS_IN_A_ROW))
        kills -= in_a_row
        yield Chain(number, in_a_row, chance.getrandbits(32), folder / f"run{number:03d}")


def _run_chain(chain: Chain, plain: Uninterrupted) -> ChainEnd:
    chance = random.Random(chain.seed)
    workers = f"dataloader.num_workers={chance.randint(0, 1)}"
    kills: list[str] = []
    while len(kills) < chain.kills:
        child, instant = _start_to_be_killed(chain.exp_dir, plain, workers, chance)
        code = child.wait()
        if code == KILLED:
            kills.append(f"run {chain.number} ({workers}) {instant}, {_progress(child)}")
            continue
        # The run ended before its kill: it is judged like any other, and the next kill meets a new one.
        problem = _problem(child, code, plain)
        if problem:
            return ChainEnd(kills, problem, code == 0)
        shutil.rmtree(chain.exp_dir)
    child = _start(chain.exp_dir, plain, workers)
    code = child.wait()
    problem = _problem(child, code, plain)
    if not problem:
        shutil.rmtree(chain.exp_dir)
    return ChainEnd(kills, problem, code == 0)


def _start(exp_dir: Path, plain: Uninterrupted, workers: str, instant: int | None = None) -> Child:
    words = [workers, "train.resume=last"] if exp_dir.exists() else [workers]
    return train_in_fork(exp_dir, plain.data_root, words, instant=instant)


def _start_to_be_killed(exp_dir: Path, plain: Uninterrupted, workers: str, chance: random.Random) -> tuple[Child, str]:
    if chance.random() < 0.5:
        number = chance.randrange(plain.file_operations)
        return _start(exp_dir, plain, workers, number), f"before file operation {number}"
    seconds = chance.uniform(0, plain.seconds)
    child = _start(exp_dir, plain, workers)
    time.sleep(seconds)
    child.kill()
    return child, f"after {seconds:.2f} s"


def _progress(child: Child) -> str:
    """Return what a killed process was about to do, and how far it had come."""
    text = child.text()
    label = text.rsplit(DYING, 1)[1].strip() if DYING in text else ""
    reached = PROGRESS.findall(text) or ["before its first line"]
    return ", ".join(filter(None, [label, reached[-1]]))


def _problem(child: Child, code: int, plain: Uninterrupted) -> str:
    """Return what is wrong with a run that ended; empty when nothing is."""
    exp_dir = child.output.with_suffix("")
    if code != 0:
        return f"exit code {code}: {child.text()[-600:]}"
    left = sorted(path.name for path in (exp_dir / "checkpoints").rglob(".*.tmp"))
    if left:
        return f"temporary files were left: {left}"
    return "" if weights_hash(exp_dir) == plain.weights else "other weights"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
