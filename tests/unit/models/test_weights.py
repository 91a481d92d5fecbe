from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pillsnap.errors import ModelError
from pillsnap.models.weights import PickledObjectsError, load_fitting, read_state_dict

STATE = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.ones(2)}


def tiny_model(num_classes: int = 2) -> nn.Sequential:
    return nn.Sequential(OrderedDict(body=nn.Linear(3, 3), head=nn.Linear(3, num_classes)))


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model_state": STATE, "ema_state": None},
        {"model_state": {}, "ema_state": STATE},
        {f"_orig_mod.{name}": value for name, value in STATE.items()},
        {f"module.{name}": value for name, value in STATE.items()},
    ],
    ids=["plain", "state_dict", "checkpoint", "checkpoint with EMA", "compiled", "data parallel"],
)
def test_a_pytorch_file_is_unwrapped(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save(content, tmp_path / "weights.pt")
    read = read_state_dict(tmp_path / "weights.pt")
    assert {name: value.tolist() for name, value in read.items()} == {k: v.tolist() for k, v in STATE.items()}


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.safetensors")
    assert read_state_dict(tmp_path / "weights.safetensors")["0.bias"].tolist() == [1.0, 1.0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.pt does not exist"):
        read_state_dict(tmp_path / "gone.pt")


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
@pytest.mark.parametrize("content", [b"PK\x03\x04 not really", b"", b"<html>"], ids=["cut zip", "empty", "a web page"])
def test_a_damaged_file_is_named_with_its_size(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} \({len(content)} bytes\) cannot be read"):
        read_state_dict(tmp_path / name)


def test_a_file_with_other_objects_is_refused(tmp_path: Path) -> None:
    torch.save({"model": tiny_model()}, tmp_path / "module.pt")
    with pytest.raises(PickledObjectsError, match="holds more than tensors"):
        read_state_dict(tmp_path / "module.pt")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    with pytest.raises(ModelError, match="holds no state dict"):
        read_state_dict(tmp_path / "numbers.pt")


@pytest.mark.req("PRC-7")
def test_all_weights_are_loaded_when_the_class_count_agrees() -> None:
    source, target = tiny_model(), tiny_model()
    load_fitting(target, source.state_dict(), ("head.",), "file.pt")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


@pytest.mark.req("PRC-7")
def test_a_head_of_another_class_count_is_skipped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    source, target = tiny_model(num_classes=7), tiny_model()
    with caplog.at_level("INFO"):
        load_fitting(target, source.state_dict(), ("head.",), "file.pt")
    assert torch.equal(source.get_parameter("body.weight"), target.get_parameter("body.weight"))
    assert "file.pt: 2 of 4 tensors loaded" in caplog.text
    assert "head.bias, head.weight" in caplog.text


@pytest.mark.req("PRC-7")
def test_weights_of_another_model_are_refused_with_what_differs() -> None:
    state: dict[str, Tensor] = {**tiny_model().state_dict(), "stem.weight": torch.zeros(1)}
    del state["body.bias"]
    state["body.weight"] = torch.zeros(4, 3)
    with pytest.raises(ModelError, match="belong to another model") as caught:
        load_fitting(tiny_model(), state, (), "file.pt")
    assert "1 missing (body.bias)" in str(caught.value)
    assert "1 unexpected (stem.weight)" in str(caught.value)
    assert "body.weight (4, 3) instead of (3, 3)" in str(caught.value)


def test_a_missing_batch_counter_is_tolerated() -> None:
    state = {name: value for name, value in nn.BatchNorm2d(2).state_dict().items() if name != "num_batches_tracked"}
    target = nn.BatchNorm2d(2)
    load_fitting(target, {**state, "bias": torch.full((2,), 5.0)}, (), "old.pth")
    assert target.bias.tolist() == [5.0, 5.0]


@pytest.mark.req("CKP-3")
def test_a_flipped_bit_in_a_weights_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(64)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(64).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read: the checksum of its part .* differs"):
        read_state_dict(path)
