"""Running one cut of a task for real, at its worst: whole training steps and validation, on the hardest samples."""

from __future__ import annotations

from typing import Any

import torch

from pillsnap.data.batches import ClassificationBatch
from pillsnap.data.datasets import ClassificationDataset
from pillsnap.evaluation.predictions import classify_loader, detect_loader
from pillsnap.evaluation.slicing import EvaluationCut
from pillsnap.training.batch_size import Measured, forget_peak, peak_bytes, timed
from pillsnap.training.classification import ClassificationTask
from pillsnap.training.recovery import Cut
from pillsnap.training.step import optimizer_step
from pillsnap.training.task import Task
from pillsnap.training.worst_case import hardest_training_batch, validation_batch


class StepProbe:
    """Runs cuts of one task; the weights move with every one of them."""

    def __init__(self, task: Task, largest: int) -> None:
        """Decode and put together the samples.

        Args:
            task: The task to probe.
            largest: The largest micro-batch that will be asked for, samples.

        Raises:
            DataError: Not one picture can be decoded.
        """
        self._task = task
        self._device = task.parts.precision.device
        # Two slices of the largest are enough to have the gradients of one slice resident during another. The same
        # samples for every cut: then each carries the same share of the optimizer's time, and speeds can be compared.
        num_samples = min(task.recovery.cut.step_size, 2 * largest)
        self._batch = hardest_training_batch(task, num_samples)
        self._val_batch = validation_batch(task, min(num_samples, largest))

    def __call__(self, cut: Cut) -> Measured:
        """Do a step to warm up, validate, and time a few steps.

        Whatever memory runs out of comes out as the error it is.
        """
        self._task.context.stop.check()
        batch = self._batch.part(0, min(len(self._batch), cut.step_size))
        forget_peak(self._device)
        self._step(batch, cut.batch_size)
        self._validate(cut.batch_size)
        steps_per_s = timed(lambda: self._step(batch, cut.batch_size), self._device)
        return Measured(len(batch) * steps_per_s, peak_bytes(self._device))

    def _step(self, batch: Any, micro_batch: int) -> None:
        train = self._task.cfg.train
        optimizer_step(
            self._task.parts,
            batch,
            micro_batch=micro_batch,
            grad_clip=train.grad_clip,
            zero_grad_set_to_none=train.zero_grad_set_to_none,
            seeds=(train.seed, self._task.name, self._task.clock.step),
        )

    def _validate(self, num_samples: int) -> None:
        if self._val_batch is None:
            return
        task, model = self._task, self._task.evaluation_model
        batch = self._val_batch.part(0, num_samples)
        cut = _Whole(self._device)
        if isinstance(batch, ClassificationBatch):
            assert isinstance(task, ClassificationTask)
            assert task.val_loader is not None
            dataset = task.val_loader.dataset
            assert isinstance(dataset, ClassificationDataset)
            classify_loader(model, [batch], dataset.spec, task.criterion, cut=cut)
        else:
            options = task.cfg.inference
            detect_loader(
                model, [batch], iou_threshold=options.iou_threshold, max_detections=options.max_detections, cut=cut
            )


class _Whole(EvaluationCut):
    """Evaluates batches whole, so that memory running out is not mended but seen."""

    def over(self, batch: Any, compute: Any) -> list[Any]:
        return [compute(batch)]


def make_resident(task: Task) -> None:
    """Let the optimizer allocate its state, by a step over gradients of zero; it moves the weights by their decay.

    It needs nothing but what every step needs, whatever its micro-batch.
    """
    parts = task.parts
    for group in parts.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    parts.optimizer.step()
    parts.optimizer.zero_grad(set_to_none=task.cfg.train.zero_grad_set_to_none)
