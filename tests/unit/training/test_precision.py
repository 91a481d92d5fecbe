"""Number formats on a machine without a GPU."""

from __future__ import annotations

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from pillsnap.training.precision import (
    classification_precision,
    cuda_mem_mb,
    detection_precision,
    enable_tf32,
    select_amp_dtype,
    select_device,
)

CPU = torch.device("cpu")


@pytest.mark.req("UTL-7")
def test_the_amp_type_follows_the_policy() -> None:
    assert select_amp_dtype("fp16") is torch.float16
    assert select_amp_dtype("bf16") is torch.bfloat16
    with pytest.raises(ValueError, match="wanted one of auto, fp16, bf16"):
        select_amp_dtype("fp8")


@pytest.mark.req("UTL-7")
@pytest.mark.parametrize(("supported", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_takes_bf16_where_the_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch, supported: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert select_amp_dtype("auto") is expected


@pytest.mark.req("UTL-8")
def test_tf32_is_switched_in_both_places() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        enable_tf32(True)
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        enable_tf32(False)
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.req("PRC-1", "UTL-10")
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_cuda_the_cpu_is_used_and_no_gpu_memory_is_reported() -> None:
    assert select_device() == CPU
    assert cuda_mem_mb() == 0.0


def _task(**values: object) -> DictConfig:
    return OmegaConf.create(
        {
            "train": {
                "classification": {"amp": True, "amp_dtype": "auto", "tf32": True, **values},
                "detection": {"amp": True, "tf32": True},
            }
        }
    )


@pytest.mark.req("PRC-2")
@pytest.mark.parametrize(
    ("values", "scaled"),
    [({"amp_dtype": "bf16"}, False), ({"amp_dtype": "fp16"}, True), ({"amp_dtype": "fp16", "amp": False}, False)],
    ids=["bf16", "fp16", "off"],
)
def test_gradients_are_scaled_for_fp16_only(values: dict[str, object], scaled: bool) -> None:
    assert classification_precision(_task(**values), CPU).build_scaler().is_enabled() is scaled


@pytest.mark.req("PRC-2")
def test_bf16_autocast_computes_in_bf16_on_a_cpu() -> None:
    layer, x = torch.nn.Linear(2, 2), torch.zeros(1, 2)
    with classification_precision(_task(amp_dtype="bf16"), CPU).autocast():
        assert layer(x).dtype is torch.bfloat16
    with detection_precision(_task(), CPU).autocast():
        assert layer(x).dtype is torch.float32
