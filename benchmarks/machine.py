"""What a figure was measured on: without it a figure says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("pillsnap", "torch", "torchvision", "timm", "ultralytics", "numpy")


def circumstances(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return machine, versions, date and command, as plain data.

    Args:
        module: Name of the benchmark, as `python -m` takes it.
        arguments: Its command line.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", module, *arguments]),
        "machine": {
            "cpu": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": platform.platform(),
            "load_average": list(os.getloadavg()),
        },
        "versions": {
            "python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        },
    }


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
