"""Memory of the device that trains: how much there is and is used, a limit for it, and what running out looks like.

On a GPU this is the card's memory. Without one it is the process's address space, which the operating system can limit
in the same way; the limit then counts from the process's start of work, so that libraries do not fall under it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import logging
import re
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import torch

from pillsnap.errors import ConfigError

logger = logging.getLogger("pillsnap")

GB = 1e9
M_MMAP_THRESHOLD = -3  # mallopt's number for it (malloc.h)
MMAP_THRESHOLD_BYTES = 128 * 1024  # glibc's own, before it starts to grow
SCARCE_SHARE = 0.8  # OOM-1: from here on memory counts as scarce

MEMORY_ERRORS = (MemoryError, RuntimeError, OSError, cv2.error)
"""What to catch around work that may run out of memory; `DeviceMemory.is_exhausted_by` says whether it did."""

# Texts of errors that have no type of their own. The list is the union of what accelerate, Lightning, Composer and
# ultralytics look for, and CUDNN_STATUS_ALLOC_FAILED, which none of them does.
_ALLOCATION_FAILED = re.compile(
    "|".join(
        (
            r"CUDA (driver )?(error: )?out of memory",
            r"CUDA driver error: out of memory",
            r"Triton Error \[CUDA\]: out of memory",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"CUDNN_STATUS_ALLOC_FAILED",
            r"DefaultCPUAllocator: (can't allocate|not enough) memory",
            r"unable to mmap \d+ bytes .*Cannot allocate memory",
            r"\[Errno 12\]",  # a worker's error, which comes without its number
            r"(cudaHostAlloc|cudaMallocHost|pinned memory).*out of memory",
            r"out of memory.*(cudaHostAlloc|cudaMallocHost|pinned)",
            r"std::bad_alloc",
            r"Insufficient memory",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)
# cuDNN and oneDNN say these both when a workspace does not fit and when they cannot do the operation at all; a thread
# that cannot be started lacks memory for its stack or is one too many.
_MAYBE_ALLOCATION_FAILED = re.compile(
    "|".join(
        (
            r"CUDNN_STATUS_NOT_SUPPORTED",
            r"CUDNN_STATUS_INTERNAL_ERROR",
            r"unable to find an engine",
            r"could not (create|execute) a primitive",
            r"can't start new thread",
            r"Resource temporarily unavailable",
        )
    ),
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException, *, is_memory_scarce: bool) -> bool:
    """Tell whether an error means that memory ran out, and nothing else (OOM-6).

    Args:
        error: Any error; the ones it was raised from are looked at too.
        is_memory_scarce: Whether the device was nearly full. Decides the errors that cuDNN and oneDNN raise both for
            lack of workspace and for operations they cannot do: a bug in a shape must not be tried again.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, (torch.OutOfMemoryError, MemoryError)):
            return True
        if isinstance(link, OSError) and link.errno == errno.ENOMEM:
            return True
        if isinstance(link, (RuntimeError, OSError, cv2.error)):
            text = str(link)
            if _ALLOCATION_FAILED.search(text) or (is_memory_scarce and _MAYBE_ALLOCATION_FAILED.search(text)):
                return True
        link = link.__cause__
    return False


def describe_failure(error: BaseException) -> str:
    """Return an error's first line for a log, without keeping its traceback (and so its tensors) alive."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line[:200]}"


def free_memory() -> None:
    """Give back what nothing uses any more. Call it outside the `except` block: the traceback holds the tensors."""
    gc.collect()
    # Its thread may find no memory either; then the next backward pass does its work.
    with contextlib.suppress(RuntimeError, MemoryError):
        _drop_unfinished_backward()
    if torch.cuda.is_available() and torch.cuda.memory_reserved():
        torch.cuda.empty_cache()


def _drop_unfinished_backward() -> None:
    """Release the graph of a backward pass that failed on this thread of a CPU.

    PyTorch's engine leaves what was ready to run in the thread's queue, with all the activations it would have needed
    (torch 2.15; several hundred MB in the tests of this project), until another backward pass takes it out. The queue
    is ordered by when an operation was recorded, latest first, and each thread counts from 0: one operation recorded by
    a new thread comes last, so everything left over is taken out, and dropped, before it.
    """
    recorded: list[torch.Tensor] = []

    def record() -> None:
        recorded.append(torch.zeros((), requires_grad=True) * 1)

    thread = threading.Thread(target=record)
    thread.start()
    thread.join()
    recorded[0].backward()  # type: ignore[no-untyped-call]


class DeviceMemory:
    """The memory a run may use on its device."""

    def __init__(self, device: torch.device, limit_gb: float | None = None) -> None:
        """Measure from here on.

        Args:
            device: The device that trains.
            limit_gb: GB (1e9 bytes) that may be used; None for all there is.

        Raises:
            ConfigError: The GPU has less memory than the limit.
        """
        self.is_cuda = device.type == "cuda"
        # The functions that limit a device's memory want its index.
        self.device = torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device
        self._baseline = 0 if self.is_cuda else _address_space()
        installed = torch.cuda.get_device_properties(device).total_memory if self.is_cuda else _installed_ram()
        if limit_gb is not None and self.is_cuda and limit_gb * GB > installed:
            raise ConfigError(
                f"hardware.gpu_memory_limit_gb is {limit_gb:g}; the GPU has {installed / GB:.1f} GB. Set at most that, "
                "or null for all of it."
            )
        self._installed = installed
        self.limit_bytes: int | None = None if limit_gb is None else int(limit_gb * GB)

    @property
    def total_bytes(self) -> int:
        """Bytes that may be used: the limit, or all there is."""
        return self._installed if self.limit_bytes is None else self.limit_bytes

    @property
    def is_bounded(self) -> bool:
        """Whether running out can be provoked: always on a GPU, without one only under a limit."""
        return self.is_cuda or self.limit_bytes is not None

    @contextmanager
    def enforced(self, share: float = 1.0) -> Iterator[None]:
        """Make allocations beyond `share` of the memory fail while the block runs; blocks may be nested.

        Under a limit on a CPU, oneDNN is off: once an allocation of its own has failed it keeps the tensors it was
        given and fails for ever after (torch 2.15), so nothing could recover. PyTorch's own kernels do.
        """
        if self.is_cuda:
            before = torch.cuda.get_per_process_memory_fraction(self.device)
            torch.cuda.set_per_process_memory_fraction(share * self.total_bytes / self._installed, self.device)
            try:
                yield
            finally:
                torch.cuda.set_per_process_memory_fraction(before, self.device)
            return
        if self.limit_bytes is None:
            yield
            return
        _return_freed_blocks()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = self._baseline + int(share * self.limit_bytes)
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
        onednn = torch.backends.mkldnn.enabled
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.backends.mkldnn.enabled = onednn
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    def used_bytes(self) -> int:
        """Return the bytes in use that no emptied cache would give back.

        On a GPU: all programs' memory, less what this process's allocator merely keeps for later. Under a limit, only
        this process counts. On a CPU without a limit: the machine's memory that is not available.
        """
        if self.is_cuda:
            allocated = torch.cuda.memory_allocated(self.device)
            if self.limit_bytes is not None:
                return allocated
            free, total = torch.cuda.mem_get_info(self.device)
            return total - free - (torch.cuda.memory_reserved(self.device) - allocated)
        if self.limit_bytes is not None:
            return max(_address_space() - self._baseline, 0)
        return self._installed - _meminfo("MemAvailable")

    def used_share(self) -> float:
        """Return `used_bytes` as a share of `total_bytes`."""
        return self.used_bytes() / self.total_bytes

    def is_exhausted_by(self, error: BaseException) -> bool:
        """Tell whether `error` means that this memory ran out; ask inside the `except` block, while it is full."""
        if is_out_of_memory(error, is_memory_scarce=False):
            return True
        # Asked only for errors that turn on it: after a fault of the GPU the question itself would raise another error.
        return is_out_of_memory(error, is_memory_scarce=True) and self.used_share() >= SCARCE_SHARE


def lift_address_space_limit() -> None:
    """Undo an enforced limit in a worker process: the limit is for the models, not for decoding pictures."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _return_freed_blocks() -> None:
    """Make glibc give freed blocks back at once, so that what a failed step held can be used by the next attempt.

    By default its threshold for separate mappings grows to 32 MiB with use; smaller blocks then stay in the heap, where
    they still count against an address-space limit. Stays in force for the process; other C libraries do without.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def _installed_ram() -> int:
    return _meminfo("MemTotal")


def _meminfo(name: str) -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
