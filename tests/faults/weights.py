"""One number for all weights a run ends with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pillsnap.training.checkpoint import load_ckpt

NAMES = ("last.pt", "detection_last.pt", "best.pt", "detection_best.pt")


def weights_hash(exp_dir: Path) -> str:
    """Return the SHA-256 over the raw and averaged weights of the last and the best checkpoints of both tasks."""
    digest = hashlib.sha256()
    for name in NAMES:
        checkpoint = load_ckpt(exp_dir / "checkpoints" / name)
        for kind in ("model_state", "ema_state"):
            for key, tensor in sorted(checkpoint[kind].items()):
                digest.update(f"{name} {kind} {key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
