"""Number formats: which 16-bit type, TF32, gradient scaling, and how much GPU memory was used."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from omegaconf import DictConfig

AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def select_device() -> torch.device:
    """Return the GPU when there is one, else the CPU (PRC-1)."""
    # With its index: the functions that limit a device's memory refuse "cuda" alone.
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def select_amp_dtype(policy: str) -> torch.dtype:
    """Choose the 16-bit type of autocast (UTL-7).

    Args:
        policy: `auto` (bfloat16 where the device supports it, else float16), `fp16` or `bf16`.

    Raises:
        ValueError: Any other policy.
    """
    if policy == "auto":
        supported = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else True
        return torch.bfloat16 if supported else torch.float16
    if policy not in AMP_DTYPES:
        raise ValueError(f"amp_dtype is {policy!r}; wanted one of auto, fp16, bf16.")
    return AMP_DTYPES[policy]


def enable_tf32(flag: bool) -> None:
    """Allow or forbid TF32 in matrix products and convolutions (UTL-8)."""
    torch.backends.cuda.matmul.allow_tf32 = flag
    torch.backends.cudnn.allow_tf32 = flag
    torch.set_float32_matmul_precision("high" if flag else "highest")


def cuda_mem_mb() -> float:
    """Return the peak of allocated GPU memory in megabytes (1e6 bytes), 0.0 without CUDA (UTL-10)."""
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0


@dataclass(frozen=True, slots=True)
class Precision:
    """How one task computes its forward pass."""

    device: torch.device
    is_amp: bool
    dtype: torch.dtype
    tf32: bool

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of the training forward pass."""
        enable_tf32(self.tf32)
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.is_amp)

    def build_scaler(self) -> torch.amp.GradScaler:
        """Return the gradient scaler; it does nothing unless the task computes in float16 (PRC-2)."""
        return torch.amp.GradScaler(self.device.type, enabled=self.is_amp and self.dtype == torch.float16)


def classification_precision(cfg: DictConfig, device: torch.device) -> Precision:
    """Return the classifier's precision from `train.classification` (PRC-2)."""
    task = cfg.train.classification
    return Precision(device, task.amp, select_amp_dtype(task.amp_dtype), task.tf32)


def detection_precision(cfg: DictConfig, device: torch.device) -> Precision:
    """Return the detector's precision: YOLO's own setting, float16 on CUDA and none on a CPU (PRC-2)."""
    task = cfg.train.detection
    return Precision(device, task.amp and device.type == "cuda", torch.float16, task.tf32)
