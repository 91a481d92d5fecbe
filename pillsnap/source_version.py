"""Which commit of the source tree this is: what a figure or a checkpoint was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path


def get_git_sha() -> str:
    """Return the commit of the source tree this package lies in, or "nogit" (UTL-6)."""
    folder = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "nogit"
    return result.stdout.strip()
