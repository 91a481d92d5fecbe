"""How many processor cores this process may use, which in a container is fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP_DIR = Path("/sys/fs/cgroup")


def usable_cores(cgroup_dir: Path = CGROUP_DIR) -> int:
    """Return the number of cores this process may keep busy: its affinity, and the quota of its container.

    Args:
        cgroup_dir: Where the quota is looked up, of either version of cgroups.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup_dir / "cpu.max") or _quota_v1(cgroup_dir / "cpu")
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota_v2(path: Path) -> float | None:
    fields = _read(path).split()  # "200000 100000", or "max 100000" without a quota
    return _cores(fields) if len(fields) == 2 and fields[0] != "max" else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")  # -1 without a quota
    return _cores([quota, period]) if quota and period and not quota.startswith("-") else None


def _cores(fields: list[str]) -> float:
    return int(fields[0]) / int(fields[1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
