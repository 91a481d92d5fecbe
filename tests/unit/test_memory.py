"""What counts as running out of memory, and a limit that makes it happen."""

from __future__ import annotations

import errno
import gc
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from pillsnap.errors import ConfigError
from pillsnap.memory import GB, DeviceMemory, describe_failure, free_memory, is_out_of_memory, lift_address_space_limit

CPU = torch.device("cpu")

# Wordings of PyTorch and the libraries below it.
EXHAUSTED = {
    "typed": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "text": RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 15.47 GiB total capacity)"),
    "driver": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    "driver call": RuntimeError("CUDA driver error: out of memory"),
    "triton": RuntimeError("Triton Error [CUDA]: out of memory"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "cpu on windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    "pinned": RuntimeError("CUDA error: out of memory (cudaHostAlloc)"),
    "pinning": RuntimeError("Pin memory thread: pinned memory: out of memory"),
    "c++": RuntimeError("std::bad_alloc"),
    "python": MemoryError(),
    "mapping": RuntimeError("unable to mmap 113246208 bytes from file </torch_1_2>: Cannot allocate memory (12)"),
    "a worker's": OSError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 12] Cannot allocate memory"),
    "system call": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "opencv": cv2.error("OpenCV(4.10) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 1228800 bytes"),
}
SUSPECTS = {
    "not supported": RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in"),
    "internal": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    "engine": RuntimeError("GET was unable to find an engine to execute this computation"),
    "onednn": RuntimeError("could not create a primitive"),
    "python's thread": RuntimeError("can't start new thread"),
    "c++'s thread": RuntimeError("Resource temporarily unavailable"),
}
BUGS = {
    "shape": RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x512 and 256x10)"),
    "size": RuntimeError("The size of tensor a (8) must match the size of tensor b (4) at non-singleton dimension 0"),
    "assert": RuntimeError("CUDA error: device-side assert triggered"),
    "illegal": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "index": IndexError("index 9 is out of range; out of memory is not what this is"),
    "file": OSError(errno.ENOSPC, "No space left on device"),
    "memory format": RuntimeError("unsupported memory format option ChannelsLast"),
}


@pytest.mark.req("OOM-6")
@pytest.mark.parametrize("error", EXHAUSTED.values(), ids=EXHAUSTED.keys())
@pytest.mark.parametrize("is_scarce", [True, False], ids=["scarce", "ample"])
def test_every_wording_of_a_failed_allocation_is_recognised(error: Exception, is_scarce: bool) -> None:
    assert is_out_of_memory(error, is_memory_scarce=is_scarce)


@pytest.mark.req("OOM-6")
@pytest.mark.parametrize("error", SUSPECTS.values(), ids=SUSPECTS.keys())
def test_an_ambiguous_error_counts_only_while_memory_is_scarce(error: Exception) -> None:
    assert is_out_of_memory(error, is_memory_scarce=True)
    assert not is_out_of_memory(error, is_memory_scarce=False)


@pytest.mark.req("OOM-6")
@pytest.mark.parametrize("error", BUGS.values(), ids=BUGS.keys())
@pytest.mark.parametrize("is_scarce", [True, False], ids=["scarce", "ample"])
def test_nothing_else_is(error: Exception, is_scarce: bool) -> None:
    assert not is_out_of_memory(error, is_memory_scarce=is_scarce)


@pytest.mark.req("OOM-6")
def test_an_error_raised_from_a_failed_allocation_is_one() -> None:
    error = RuntimeError("backend='inductor' raised:")
    error.__cause__ = EXHAUSTED["typed"]
    assert is_out_of_memory(error, is_memory_scarce=False)


def test_a_failure_is_described_in_one_line() -> None:
    assert describe_failure(EXHAUSTED["driver"]) == "RuntimeError: CUDA error: out of memory"
    assert describe_failure(MemoryError()) == "MemoryError: "


class _Failing(torch.autograd.Function):
    """Its backward pass runs out of memory."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("in the backward pass")


def _fail_with_a_branch_left_to_do() -> None:
    values = torch.ones(1000, requires_grad=True)
    left, right = (values * 2).exp(), (values * 3).exp()
    (left.sum() + _Failing.apply(right.sin()).sum()).backward()


def _num_tensors_alive() -> int:
    gc.collect()
    return sum(type(each) is torch.Tensor and each.shape == (1000,) for each in gc.get_objects())


@pytest.mark.req("OOM-4")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # gc hands out torch's deprecated modules too
def test_freeing_also_drops_what_a_failed_backward_pass_left_in_the_engine() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        _fail_with_a_branch_left_to_do()
    assert _num_tensors_alive() > 0
    free_memory()
    assert _num_tensors_alive() == 0


def test_without_a_limit_the_machines_memory_is_the_total() -> None:
    memory = DeviceMemory(CPU)
    assert memory.total_bytes == pytest.approx(_mem_total(), rel=1e-6)
    assert not memory.is_bounded
    assert 0 < memory.used_share() < 1
    before = resource.getrlimit(resource.RLIMIT_AS)
    with memory.enforced(0.5):
        assert resource.getrlimit(resource.RLIMIT_AS) == before


def _mem_total() -> int:
    first = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()[0]
    return int(first.split()[1]) * 1024


def test_a_limit_counts_from_here_on_and_is_lifted_after_the_block() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    memory = DeviceMemory(CPU, limit_gb=0.2)
    assert memory.is_bounded
    assert memory.total_bytes == 0.2 * GB
    with memory.enforced():
        small = torch.zeros(int(0.1 * GB), dtype=torch.uint8)
        assert memory.used_share() > 0.4
        with pytest.raises(RuntimeError, match="can't allocate memory") as raised:
            torch.zeros(int(0.15 * GB), dtype=torch.uint8)
    assert memory.is_exhausted_by(raised.value)
    assert len(small) == int(0.1 * GB)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_share_of_the_limit_can_be_enforced_and_what_is_freed_can_be_used_again() -> None:
    memory = DeviceMemory(CPU, limit_gb=0.4)
    with memory.enforced(0.25), pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.zeros(int(0.3 * GB), dtype=torch.uint8)
    with memory.enforced():
        for _ in range(5):
            assert len(torch.zeros(int(0.3 * GB), dtype=torch.uint8)) == int(0.3 * GB)


@pytest.mark.req("OOM-6")
def test_how_full_memory_is_is_asked_only_where_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = DeviceMemory(CPU)
    monkeypatch.setattr(DeviceMemory, "used_share", lambda self: 0.95)
    assert memory.is_exhausted_by(SUSPECTS["internal"])
    monkeypatch.setattr(DeviceMemory, "used_share", lambda self: 0.5)
    assert not memory.is_exhausted_by(SUSPECTS["internal"])
    monkeypatch.delattr(DeviceMemory, "used_share")
    assert memory.is_exhausted_by(EXHAUSTED["driver"])
    assert not memory.is_exhausted_by(BUGS["illegal"])


def test_the_limit_of_a_gpu_is_set_with_pytorchs_own_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the driver's side is replaced: PyTorch's checks of the arguments are real."""

    class Card:
        total_memory = int(20 * GB)

    fractions = [1.0]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.memory._lazy_init", lambda: None)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda fraction, index: fractions.append(fraction), raising=False
    )
    monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", lambda index: fractions[-1], raising=False)
    memory = DeviceMemory(torch.device("cuda"), limit_gb=16)
    with memory.enforced(), memory.enforced(0.5):
        pass
    assert fractions == [1.0, pytest.approx(0.8), pytest.approx(0.4), pytest.approx(0.8), 1.0]


def test_a_limit_above_the_cards_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        total_memory = int(8 * GB)

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with pytest.raises(ConfigError, match=r"gpu_memory_limit_gb is 16; the GPU has 8\.0 GB"):
        DeviceMemory(torch.device("cuda"), limit_gb=16)


def test_a_worker_lifts_the_limit_for_itself() -> None:
    code = (
        "import resource\n"
        "from pillsnap.memory import lift_address_space_limit\n"
        "resource.setrlimit(resource.RLIMIT_AS, (64 * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))\n"
        "lift_address_space_limit()\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_AS)\n"
        "raise SystemExit(soft != hard)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert callable(lift_address_space_limit)
