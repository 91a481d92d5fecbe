"""Where the machine's memory goes: planned before the first picture is decoded, refused when it does not fit.

A hot set, prefetched batches and worker processes grow while training runs; without a plan a run that asks for too much
is ended by the system hours later, without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pillsnap.errors import ConfigError

logger = logging.getLogger("pillsnap")

GB = 1e9
SYSTEM_BYTES = 8_000_000_000  # D-2.1: the operating system and what else runs, on its machine of 128 GB
SYSTEM_SHARE = 1 / 16  # of a smaller machine
WORKER_BYTES = 1_000_000_000  # D-2.1

CGROUP_DIR = Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # version 1 of control groups writes a number near 2**63 for no limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """The memory there is, in bytes."""

    total: int
    """What this process and its workers may use at most: the machine's, or its control group's if that is less."""
    in_use: int
    """In use already, this process included; what the system would give back when asked is not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderDemand:
    """One loader whose workers live while others do."""

    num_workers: int
    prefetch_factor: int
    batch_bytes: int
    """Of one step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RamDemand:
    """What the configuration asks for."""

    hotset_images: int
    hotset_bytes: Callable[[int], int]
    """Bytes of a hot set of so many images: those of the pictures that would be in it."""
    loaders: Sequence[LoaderDemand]
    labels_bytes: int
    """The picture table and what else is known of the data."""
    worker_bytes: int = WORKER_BYTES
    """Of one worker process, beside its batches; measured, or D-2.1's figure."""

    def with_workers(self, num_workers: int) -> RamDemand:
        """Return the demand with at most so many workers in each loader."""
        loaders = [replace(loader, num_workers=min(loader.num_workers, num_workers)) for loader in self.loaders]
        return replace(self, loaders=loaders)

    def with_prefetch(self, prefetch_factor: int) -> RamDemand:
        """Return the demand with at most so many batches ahead in each worker."""
        loaders = [
            replace(loader, prefetch_factor=min(loader.prefetch_factor, prefetch_factor)) for loader in self.loaders
        ]
        return replace(self, loaders=loaders)


@dataclass(frozen=True, slots=True)
class RamPlan:
    """Bytes by part; what is left is free."""

    total: int
    system: int
    hot_set: int
    prefetch: int
    labels: int
    workers: int

    @property
    def free(self) -> int:
        """What no part takes; negative when the plan does not fit."""
        return self.total - self.system - self.hot_set - self.prefetch - self.labels - self.workers

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for run.json, bytes by part."""
        return {name: getattr(self, name) for name in ("total", *PARTS)}

    def lines(self) -> list[str]:
        """Return the plan as lines of a table, in GB."""
        rows = [(text, getattr(self, name)) for name, text in PARTS.items()]
        return [f"{text:<28}{num_bytes / GB:>9.2f} GB" for text, num_bytes in (*rows, ("total", self.total))]


PARTS = {
    "system": "system and other programs",
    "hot_set": "hot set",
    "prefetch": "prefetched batches",
    "labels": "labels and picture table",
    "workers": "worker processes",
    "free": "free",
}


def plan_ram(machine: Machine, demand: RamDemand) -> RamPlan:
    """Return where the memory would go.

    What is in use now counts as the system's part, but at least `SYSTEM_BYTES` or, on a machine of less than 128 GB,
    a 16th of it.
    """
    least = min(SYSTEM_BYTES, int(machine.total * SYSTEM_SHARE))
    return RamPlan(
        total=machine.total,
        system=max(machine.in_use, least),
        hot_set=demand.hotset_bytes(demand.hotset_images) if demand.hotset_images else 0,
        prefetch=sum(loader.num_workers * loader.prefetch_factor * loader.batch_bytes for loader in demand.loaders),
        labels=demand.labels_bytes,
        workers=sum(loader.num_workers for loader in demand.loaders) * demand.worker_bytes,
    )


def require_fit(machine: Machine, demand: RamDemand) -> RamPlan:
    """Plan, log the table, and refuse what does not fit.

    Raises:
        ConfigError: It does not fit; names the settings that would.
    """
    plan = plan_ram(machine, demand)
    if plan.free >= 0:
        logger.info("memory plan:\n%s", "\n".join(plan.lines()))
        return plan
    table = "\n".join(plan.lines())
    raise ConfigError(
        f"The configuration needs {(plan.total - plan.free) / GB:.1f} GB of memory; the machine gives this run "
        f"{plan.total / GB:.1f} GB:\n{table}\n{_advice(machine, demand)}"
    )


def _advice(machine: Machine, demand: RamDemand) -> str:
    ways = []
    if demand.hotset_images:
        ways.append(_fitting("hotset_size_images", demand.hotset_images, _with_hotset, machine, demand))
    most_workers = max((loader.num_workers for loader in demand.loaders), default=0)
    most_ahead = max((loader.prefetch_factor for loader in demand.loaders), default=0)
    if most_workers:
        ways.append(_fitting("num_workers", most_workers, RamDemand.with_workers, machine, demand))
        ways.append(_fitting("prefetch_factor", most_ahead, RamDemand.with_prefetch, machine, demand, least=1))
    single = [way for way in ways if way is not None]
    if single:
        return f"Set {', or '.join(single)}."
    bare = _with_hotset(demand, 0)
    both = _fitting("num_workers", most_workers, RamDemand.with_workers, machine, bare) if most_workers else None
    if both is not None:
        return f"Set {KEYS['hotset_size_images']}=0 and {both}."
    return "Nothing of it can be made to fit: end other programs, give the container more memory, or use less data."


KEYS = {
    "hotset_size_images": "dataloader.ram_optimization.hotset_size_images",
    "num_workers": "dataloader.num_workers",
    "prefetch_factor": "dataloader.prefetch_factor",
}


def _with_hotset(demand: RamDemand, images: int) -> RamDemand:
    return replace(demand, hotset_images=images)


def _fitting(
    name: str,
    value: int,
    changed: Callable[[RamDemand, int], RamDemand],
    machine: Machine,
    demand: RamDemand,
    *,
    least: int = 0,
) -> str | None:
    """Return the assignment of the largest value from `least` to below `value` that fits; None when none does."""
    if plan_ram(machine, changed(demand, least)).free < 0:
        return None
    fits, fails = least, value
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if plan_ram(machine, changed(demand, middle)).free >= 0:
            fits = middle
        else:
            fails = middle
    return f"{KEYS[name]}={_round_down(fits)}"


def _round_down(value: int) -> int:
    """Return a number a person would type: two digits and zeros, not more than `value`."""
    unit = int(10 ** max(len(str(value)) - 2, 0))
    return value // unit * unit


def measure_machine(
    *,
    meminfo: Path = Path("/proc/meminfo"),
    cgroup_dir: Path = CGROUP_DIR,
    own_groups: Path = Path("/proc/self/cgroup"),
) -> Machine:
    """Measure this machine, or the control group (container) that this process is in where that has less.

    Args:
        meminfo: The kernel's table.
        cgroup_dir: Where control groups are mounted.
        own_groups: The kernel's list of the groups of this process.
    """
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
    total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    machine = Machine(total=total, in_use=total - available)
    for folder, limit_name, used_name in _groups(cgroup_dir, own_groups):
        limit, used = _number(folder / limit_name), _number(folder / used_name)
        if limit is not None and used is not None and limit < machine.total:
            # Files in the page cache count as used by a group, and are given back when memory gets short.
            machine = Machine(total=limit, in_use=max(used - _cached_files(folder / "memory.stat"), 0))
    return machine


def _groups(cgroup_dir: Path, own_groups: Path) -> list[tuple[Path, str, str]]:
    """Return the folders that may limit this process, with the names of the limit and of what is used."""
    found: list[tuple[Path, str, str]] = []
    try:
        entries = own_groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for entry in entries:
        _, controllers, path = entry.split(":", 2)
        if controllers == "":
            root, names = cgroup_dir, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = cgroup_dir / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # A limit of any group above counts too. In a container the path may be the host's: then only the root is there.
        own = root / path.lstrip("/")
        found += [(folder, *names) for folder in (own, *own.parents) if folder.is_relative_to(root) and folder.is_dir()]
    return found


def _number(path: Path) -> int | None:
    try:
        value = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max": no limit
        return None
    return value if value < UNLIMITED else None


def _cached_files(stat: Path) -> int:
    try:
        fields = dict(line.split() for line in stat.read_text(encoding="ascii").splitlines())
    except OSError:
        return 0
    # Active files too: a store's file that was read twice is active, and is given back all the same.
    return sum(int(fields.get(f"total_{name}", fields.get(name, 0))) for name in ("inactive_file", "active_file"))
