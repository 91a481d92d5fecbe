"""PillSnap's training loader of the classifier, over the same folders as the others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.loader_contender import IMAGENET_MEAN, IMAGENET_STD, Build, Contender, Setting
from benchmarks.tasks import benchmark_config
from pillsnap.data.batches import ClassificationBatch, LoadStats
from pillsnap.data.loaders import build_loaders
from pillsnap.data.preprocess import ClassifierInput
from pillsnap.data.samplers import StepSampler
from pillsnap.data.twostage import load_data
from pillsnap.training.classification import model_input
from pillsnap.training.feed import feed

MOST_EPOCHS_TO_FILL = 8
HOTSET_PICTURES = 1_000_000  # all of them


class Ours(Contender):
    """Batches of `build_loaders` with the production configuration's augmentation."""

    def __init__(self, root: Path, setting: Setting, folder: Path, *, cache_policy: str) -> None:
        """Build the loader; where there is a store, fill it with as many epochs as that takes.

        Args:
            root: Has `train/<drug>/*` and `val/<drug>/*`.
            setting: What is the same for all.
            folder: The store's files go there.
            cache_policy: `none`, `mmap` or `hotset`.
        """
        cfg = benchmark_config(
            folder / cache_policy,
            "train.tasks=[classification]",
            f"data.root={root}",
            "data.reader=folders",
            "data.split.policy=given",
            f"paths.cache_dir={folder / cache_policy / 'cache'}",
            f"model.image_size={setting.image_size}",
            f"train.classification.batch_size={setting.batch_size}",
            "train.classification.grad_accum_steps=1",
            f"dataloader.num_workers={setting.num_workers}",
            f"dataloader.ram_optimization.cache_policy={cache_policy}",
            f"dataloader.ram_optimization.hotset_size_images={HOTSET_PICTURES}",
        )
        self._spec = ClassifierInput(
            size_px=setting.image_size, mean=IMAGENET_MEAN, std=IMAGENET_STD, frame_fit="letterbox"
        )
        self._loaders = build_loaders(load_data(cfg), cfg, self._spec)
        self._device = setting.device
        self._epoch = 0
        self._load = LoadStats()
        self._num_epochs_to_fill = self._fill() if cache_policy != "none" else 0

    def epoch(self, *, to_device: bool) -> Iterator[int]:
        """See `Contender`."""
        loader = self._loaders.cls_train
        assert loader is not None
        sampler = loader.batch_sampler
        assert isinstance(sampler, StepSampler)
        sampler.set_position(self._epoch)
        self._epoch += 1
        for batch in feed(iter(loader), self._device) if to_device else loader:
            assert isinstance(batch, ClassificationBatch)
            if to_device:
                model_input(batch, self._device, self._spec)
            self._load.add(batch.load)
            yield len(batch)

    def facts(self) -> dict[str, Any]:
        """Return milliseconds a sample of the loader's stages, where pixels came from, and what the store holds."""
        stages = {name: getattr(self._load, name) for name in ("read_s", "decode_s", "view_s", "cpu_s", "wall_s")}
        return {
            "worker_ms_per_sample": {
                name: round(seconds * 1000 / max(self._load.num_samples, 1), 4) for name, seconds in stages.items()
            },
            "hits": self._load.hits,
            "epochs_to_fill": self._num_epochs_to_fill,
            "stores": self._loaders.meta.stores.counts(),
        }

    def close(self) -> None:
        """Close the store and end the workers."""
        self._loaders.meta.stores.close()
        del self._loaders

    def _fill(self) -> int:
        for number in range(1, MOST_EPOCHS_TO_FILL + 1):
            self._load = LoadStats()
            sum(self.epoch(to_device=False))
            if not self._load.hits.get("original"):
                self._load = LoadStats()
                return number - 1
        raise AssertionError(f"the store still asks for originals after {MOST_EPOCHS_TO_FILL} epochs")


def ours(cache_policy: str) -> Build:
    """Return how to build the loader with a cache policy."""
    return partial(Ours, cache_policy=cache_policy)
