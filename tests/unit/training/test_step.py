"""One optimizer step: cut as one likes, all or nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pillsnap.data.batches import ClassificationBatch
from pillsnap.training.average import WeightAverage
from pillsnap.training.precision import Precision
from pillsnap.training.step import TrainingParts, optimizer_step

CPU = torch.device("cpu")


def _batch(num_samples: int = 7) -> ClassificationBatch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_samples, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return ClassificationBatch(images, torch.arange(num_samples) % 3, list(range(num_samples)))


def _model(*, with_batchnorm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3)]
    if with_batchnorm:
        layers.append(nn.BatchNorm2d(4))
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def _parts(model: nn.Module, weights: torch.Tensor | None = None) -> TrainingParts:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss(weight=weights)

    def loss(part: ClassificationBatch) -> torch.Tensor:
        result: torch.Tensor = criterion(model(part.images_BCHW.float() / 255), part.labels_B)
        return result

    def weight(part: ClassificationBatch) -> float:
        return float(len(part)) if weights is None else float(weights[part.labels_B].sum())

    precision = Precision(CPU, False, torch.bfloat16, tf32=False)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return TrainingParts(model, optimizer, scheduler, precision.build_scaler(), precision, loss, weight)


def _step(parts: TrainingParts, batch: ClassificationBatch, micro_batch: int, grad_clip: float | None = None) -> float:
    loss = optimizer_step(
        parts, batch, micro_batch=micro_batch, grad_clip=grad_clip, zero_grad_set_to_none=True, seeds=(1, "test", 0)
    )
    return float(loss)


@pytest.mark.req("LOP-3")
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 1.5])], ids=["plain", "class weights"])
def test_any_cut_gives_the_step_of_the_whole_batch(micro_batch: int, weights: torch.Tensor | None) -> None:
    whole, cut = _model(), _model()
    expected_loss = _step(_parts(whole, weights), _batch(), 7)
    found_loss = _step(_parts(cut, weights), _batch(), micro_batch)
    assert found_loss == pytest.approx(expected_loss, rel=1e-5)
    for found, expected in zip(cut.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_loss_returned_is_the_mean_over_the_samples() -> None:
    model, batch = _model(), _batch()
    expected = nn.functional.cross_entropy(model(batch.images_BCHW.float() / 255), batch.labels_B)
    assert _step(_parts(model), batch, 3) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.req("INT-4", "OOM-4")
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError, KeyboardInterrupt, RuntimeError], ids=lambda kind: kind.__name__
)
def test_an_interrupted_step_leaves_no_trace(error: type[BaseException]) -> None:
    model = _model(with_batchnorm=True)
    parts = _parts(model)
    before = copy.deepcopy(model.state_dict())
    plain_loss, calls = parts.loss, []

    def failing_loss(part: ClassificationBatch) -> torch.Tensor:
        calls.append(part)
        if len(calls) == 3:
            raise error("in the third slice")
        return plain_loss(part)

    parts.loss = failing_loss
    with pytest.raises(error):
        _step(parts, _batch(), 2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} changed"
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.req("INT-4", "OOM-4")
def test_a_step_done_again_after_a_failure_equals_one_that_never_failed() -> None:
    clean, failed = _model(with_batchnorm=True), _model(with_batchnorm=True)
    _step(_parts(clean), _batch(), 2)
    parts = _parts(failed)
    plain_loss = parts.loss
    parts.loss = lambda part: (_ for _ in ()).throw(torch.OutOfMemoryError("once"))
    with pytest.raises(torch.OutOfMemoryError):
        _step(parts, _batch(), 2)
    parts.loss = plain_loss
    _step(parts, _batch(), 2)
    for found, expected in zip(failed.state_dict().values(), clean.state_dict().values(), strict=True):
        assert torch.equal(found, expected)


class _HalfUpdate(torch.optim.AdamW):
    """Runs out of memory after the first of its parameters: AdamW allocates as it goes."""

    is_failing = True

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        if not self.is_failing:
            super().step()
            return
        kept = [list(group["params"]) for group in self.param_groups]
        self.param_groups[0]["params"] = kept[0][:1]
        super().step()
        self.param_groups[0]["params"] = kept[0]
        raise torch.OutOfMemoryError("CUDA out of memory in the update")


@pytest.mark.req("INT-4", "OOM-4")
@pytest.mark.parametrize("num_steps_before", [0, 2], ids=["first step", "later step"])
def test_a_half_done_update_is_taken_back(num_steps_before: int) -> None:
    clean, failed = _adamw_parts(_HalfUpdate), _adamw_parts(_HalfUpdate)
    for parts in (clean, failed):
        parts.optimizer.is_failing = False  # type: ignore[attr-defined]
        for _ in range(num_steps_before):
            _step(parts, _batch(), 3)
    failed.optimizer.is_failing = True  # type: ignore[attr-defined]
    with pytest.raises(torch.OutOfMemoryError, match="in the update"):
        _step(failed, _batch(), 3)
    _assert_same(failed, clean)
    failed.optimizer.is_failing = False  # type: ignore[attr-defined]
    for parts in (clean, failed):
        _step(parts, _batch(), 3)
    _assert_same(failed, clean)


@pytest.mark.req("INT-4", "OOM-4")
def test_an_average_that_runs_out_of_memory_takes_the_whole_update_back() -> None:
    clean, failed = _adamw_parts(torch.optim.AdamW), _adamw_parts(torch.optim.AdamW)
    assert failed.ema is not None
    update = failed.ema.update

    def failing_update(model: nn.Module, step: int | None = None) -> None:
        update(model, step=step)
        raise torch.OutOfMemoryError("CUDA out of memory in the average")

    failed.ema.update = failing_update  # type: ignore[method-assign]
    with pytest.raises(torch.OutOfMemoryError, match="in the average"):
        _step(failed, _batch(), 3)
    _assert_same(failed, clean)


@pytest.mark.req("INT-4", "OOM-4", "PRC-2")
def test_a_failed_update_leaves_nothing_of_the_scalers_in_a_fused_optimizer() -> None:
    clean, failed = _scaled_parts(), _scaled_parts()
    update = failed.optimizer.step

    def failing_step(*args: object, **kwargs: object) -> None:
        failed.optimizer.step = update  # type: ignore[method-assign]
        raise torch.OutOfMemoryError("CUDA out of memory before the moments exist")

    failed.optimizer.step = failing_step  # type: ignore[method-assign,assignment]
    with pytest.raises(torch.OutOfMemoryError):
        _step(failed, _batch(), 3)
    for parts in (clean, failed):
        _step(parts, _batch(), 3)
    _assert_equal(failed.model.state_dict(), clean.model.state_dict())
    assert failed.scaler.get_scale() == clean.scaler.get_scale()


def _scaled_parts() -> TrainingParts:
    parts = _parts(_model(with_batchnorm=True))
    parts.optimizer = torch.optim.AdamW(parts.model.parameters(), lr=0.1, fused=True)
    parts.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return parts


def _adamw_parts(kind: type[torch.optim.AdamW]) -> TrainingParts:
    model = _model(with_batchnorm=True)
    parts = _parts(model)
    parts.optimizer = kind(model.parameters(), lr=0.1)
    parts.ema = WeightAverage(model, 0.9)
    return parts


def _assert_same(found: TrainingParts, expected: TrainingParts) -> None:
    assert found.ema is not None
    assert expected.ema is not None
    _assert_equal(found.model.state_dict(), expected.model.state_dict())
    _assert_equal(found.ema.module.state_dict(), expected.ema.module.state_dict())
    states = found.optimizer.state_dict()["state"], expected.optimizer.state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for index, values in states[1].items():
        _assert_equal(states[0][index], values)


def _assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    different = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not different


@pytest.mark.req("PRC-5")
def test_gradients_are_clipped_to_the_norm() -> None:
    model = _model()
    start = copy.deepcopy(model.state_dict())
    _step(_parts(model), _batch(), 7, grad_clip=1e-3)
    moved = torch.sqrt(sum(((value - start[name]) ** 2).sum() for name, value in model.state_dict().items()))
    assert float(moved) == pytest.approx(0.1 * 1e-3, rel=1e-2)


@pytest.mark.req("LOP-4")
def test_dropout_belongs_to_the_step_and_not_to_what_ran_before() -> None:
    def run() -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3))
        torch.rand(int(torch.randint(1, 9, ())))
        _step(_parts(model), _batch(), 7)
        return next(iter(model.parameters()))

    first = run()
    torch.rand(5)
    assert torch.equal(first, run())
