import copy
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pillsnap.errors import ModelError
from pillsnap.models import detector_yolo11m as detector
from pillsnap.models.detector_yolo11m import build_criterion_detection, build_yolo_model, decode_predictions

TARGETS = {
    "batch_idx": torch.tensor([0.0, 1.0, 1.0]),
    "cls": torch.zeros(3, 1),
    "bboxes": torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.4, 0.4]]),
}
NO_TARGETS = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}


def tiny_detector(num_classes: int = 1, weights: Path | None = None) -> nn.Module:
    torch.manual_seed(0)
    path = None if weights is None else str(weights)
    model = build_yolo_model("n", num_classes, lazy_load=False, pretrained=False, weights=path)
    assert model is not None
    return model


def images(size_px: int = 64) -> Tensor:
    return torch.rand(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))


def replace_download(monkeypatch: pytest.MonkeyPatch, download: Callable[..., Any]) -> None:
    library = SimpleNamespace(**{**vars(detector._library()), "download": download})
    monkeypatch.setattr(detector, "_library", lambda: library)


@pytest.mark.req("TRN-1", "INF-1")
def test_a_deferred_detector_is_none() -> None:
    assert build_yolo_model("m", 1) is None


@pytest.mark.req("ADR-2", "TRN-1")
def test_the_detector_knows_one_class_called_pill() -> None:
    model: Any = tiny_detector()
    assert model.names == {0: "pill"}
    assert (model.args.box, model.args.cls, model.args.dfl) == (7.5, 0.5, 1.5)


def test_an_unknown_size_lists_the_choices() -> None:
    with pytest.raises(ModelError, match=r"detection\.model_size is 'xl'\. Set it to one of n, s, m, l, x\."):
        build_yolo_model("xl", 1)


@pytest.mark.req("PRC-7")
def test_an_unreachable_hub_names_the_two_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise ConnectionError("Environment may be offline.")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    replace_download(monkeypatch, no_network)
    with pytest.raises(ModelError, match=r"offline\)\. Set detection\.weights=/path/yolo11n\.pt, or detection\.pretr"):
        build_yolo_model("n", 1, lazy_load=False)


@pytest.mark.req("PRC-7")
def test_coco_weights_are_fetched_once_and_loaded_without_their_80_classes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coco: Any = tiny_detector(num_classes=80)
    fetched: list[str] = []

    def download(path: str, **_: Any) -> None:
        fetched.append(path)
        Path(path).parent.mkdir(parents=True)
        torch.save({"model": copy.deepcopy(coco).half(), "ema": None}, path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    replace_download(monkeypatch, download)
    with caplog.at_level("INFO"):
        models = [build_yolo_model("n", 1, lazy_load=False) for _ in range(2)]
    name = "model.0.conv.weight"
    assert fetched == [str(tmp_path / "hub" / "checkpoints" / "yolo11n.pt")]
    assert all(
        torch.equal(model.get_parameter(name), coco.get_parameter(name).half().float()) for model in models if model
    )
    assert "keep their random start, because the number of classes differs: model.23.cv3" in caplog.text


@pytest.mark.req("PRC-7")
def test_our_own_checkpoint_is_loaded_whole(tmp_path: Path) -> None:
    source = tiny_detector()
    torch.save({"model_state": source.state_dict(), "ema_state": None}, tmp_path / "detection_best.pt")
    torch.manual_seed(9)
    model = tiny_detector(weights=tmp_path / "detection_best.pt")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), model.parameters(), strict=True))


@pytest.mark.req("PRC-7")
def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    other = build_yolo_model("s", 1, lazy_load=False, pretrained=False)
    assert other is not None
    torch.save(other.state_dict(), tmp_path / "yolo11s.pt")
    with pytest.raises(ModelError, match=r"belong to another model: .*model\.0\.conv\.weight \(32, 3, 3, 3\) instead"):
        tiny_detector(weights=tmp_path / "yolo11s.pt")


class Intruder:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch intruder-was-here",)


@pytest.mark.req("CKP-3")
def test_code_in_a_weights_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Intruder()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="neither a state dict nor an ultralytics YOLO checkpoint"):
        tiny_detector(weights=tmp_path / "evil.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]


@pytest.mark.req("TRN-1")
def test_the_loss_is_the_librarys_own_divided_by_the_images() -> None:
    model = tiny_detector().eval()
    with torch.no_grad():
        output = model(images())
        loss, items = build_criterion_detection()(model, output, TARGETS)
        reference, _ = detector._library().v8_detection_loss(model)(output, dict(TARGETS))
    assert loss.item() == pytest.approx(reference.sum().item() / 2, rel=1e-6)
    assert [items[name].item() for name in ("box", "cls", "dfl")] == pytest.approx((reference / 2).tolist(), rel=1e-6)


@pytest.mark.req("OOM-3")
@pytest.mark.parametrize("targets", [TARGETS, NO_TARGETS], ids=["boxes", "no boxes"])
def test_loss_and_gradients_are_those_of_the_library_to_the_bit(targets: dict[str, Tensor]) -> None:
    def gradients_of(loss: Tensor) -> list[Tensor]:
        used = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return list(torch.autograd.grad(loss, used, allow_unused=True, materialize_grads=True))

    model = tiny_detector()
    loss, items = build_criterion_detection()(model, model(images()), targets)
    reference, _ = detector._library().v8_detection_loss(model)(model(images()), dict(targets))
    reference = reference / 2
    assert torch.equal(loss, reference.sum())
    assert torch.equal(torch.stack([items[name] for name in ("box", "cls", "dfl")]), reference.detach())
    assert all(map(torch.equal, gradients_of(loss), gradients_of(reference.sum())))


@pytest.mark.req("OOM-3", "OOM-4")
def test_memory_that_runs_out_while_boxes_are_assigned_comes_out_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model, criterion = tiny_detector(), build_criterion_detection()
    expected, _ = criterion(model, model(images()), TARGETS)
    assigner = criterion._loss_of(model).assigner
    assign, failures = assigner._forward, [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")]

    def assign_after_a_failure(*args: Tensor) -> Any:
        if failures:
            raise failures.pop()
        return assign(*args)

    monkeypatch.setattr(assigner, "_forward", assign_after_a_failure)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        criterion(model, model(images()), TARGETS)
    again, _ = criterion(model, model(images()), TARGETS)
    assert torch.equal(again, expected)


def test_the_loss_reaches_the_first_layer() -> None:
    model = tiny_detector()
    loss, _ = build_criterion_detection()(model, model(images()), TARGETS)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = model.get_parameter("model.0.conv.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@pytest.mark.req("DAT-2")
def test_a_batch_without_boxes_has_only_a_class_loss() -> None:
    model = tiny_detector()
    loss, items = build_criterion_detection()(model, model(images()), NO_TARGETS)
    loss.backward()  # type: ignore[no-untyped-call]
    assert items["box"] == items["dfl"] == 0
    assert loss.item() == pytest.approx(items["cls"].item())


@pytest.mark.req("PRC-2")
def test_the_loss_is_float32_under_autocast() -> None:
    model = tiny_detector()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = model(images())
        loss, _ = build_criterion_detection()(model, predictions, TARGETS)
    exact, _ = build_criterion_detection()(model, model(images()), TARGETS)
    assert predictions["boxes"].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)


def test_the_loss_stays_out_of_state_dicts_and_copies() -> None:
    model, criterion = tiny_detector(), build_criterion_detection()
    names = set(model.state_dict())
    criterion(model, model(images()), TARGETS)
    duplicate = copy.deepcopy(model)
    assert set(model.state_dict()) == names == set(duplicate.state_dict())
    assert criterion(duplicate.eval(), duplicate(images()), TARGETS)[0] > 0


@pytest.mark.req("VAL-2")
def test_decoded_boxes_are_pixels_of_the_input_at_any_size() -> None:
    model: Any = tiny_detector().eval()
    head = model.model[-1]
    for branch in head.cv2:
        nn.init.zeros_(branch[-1].weight)
        nn.init.zeros_(branch[-1].bias)  # all 16 distances equally likely: 7.5 strides to each side
    with torch.no_grad():
        decoded = decode_predictions(model(images(size_px=96)))
    assert decoded.shape == (2, 5, 12 * 12 + 6 * 6 + 3 * 3)
    assert decoded[0, :4, 0].tolist() == pytest.approx([4, 4, 15 * 8, 15 * 8])  # first point of the grid with stride 8
    assert decoded[0, :4, -1].tolist() == pytest.approx([80, 80, 15 * 32, 15 * 32])  # last with stride 32
    assert ((decoded[:, 4] > 0) & (decoded[:, 4] < 1)).all()
