"""The moving average beside timm's own, and what it must not lose sight of."""

from __future__ import annotations

import copy

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from pillsnap.training.average import WeightAverage


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_it_moves_exactly_like_timms() -> None:
    model = _model()
    ours, theirs = WeightAverage(model, 0.9), ModelEmaV3(model, decay=0.9, use_warmup=True, warmup_power=2 / 3)
    for step in range(5):
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        for average in (ours, theirs):
            average.update(model, step=step)
    for found, expected in zip(ours.module.state_dict().values(), theirs.module.state_dict().values(), strict=True):
        assert torch.equal(found, expected)


def test_it_follows_weights_that_were_loaded_later() -> None:
    model = _model()
    average = WeightAverage(model, 0.9)
    other = copy.deepcopy(model.state_dict())
    other["0.weight"].fill_(7)
    model.load_state_dict(other)
    average.module.load_state_dict(other)
    average.update(model, step=0)
    assert torch.equal(average.module.state_dict()["0.weight"], other["0.weight"])
    assert any(tensor.data_ptr() == average.module.state_dict()["0.weight"].data_ptr() for tensor in average.tensors)
