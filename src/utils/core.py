"""Address fixed by the specification (ADR-1): everything here lives in the package `pillsnap`."""

from pillsnap.config.loading import load_config
from pillsnap.jsonfile import read_json, save_json
from pillsnap.source_version import get_git_sha
from pillsnap.training.batch_size import auto_find_batch_size
from pillsnap.training.checkpoint import load_ckpt, save_ckpt
from pillsnap.training.compilation import try_torch_compile
from pillsnap.training.experiment import ensure_dir
from pillsnap.training.precision import cuda_mem_mb, enable_tf32, select_amp_dtype
from pillsnap.training.reproducibility import set_seed
from pillsnap.training.telemetry import StepTimer, TBWriter, build_logger
from pillsnap.training.workers import autotune_num_workers

__all__ = [
    "StepTimer",
    "TBWriter",
    "auto_find_batch_size",
    "autotune_num_workers",
    "build_logger",
    "cuda_mem_mb",
    "enable_tf32",
    "ensure_dir",
    "get_git_sha",
    "load_ckpt",
    "load_config",
    "read_json",
    "save_ckpt",
    "save_json",
    "select_amp_dtype",
    "set_seed",
    "try_torch_compile",
]
