"""The loaders one would use instead: timm's, torchvision's with PyTorch's `DataLoader`, and litdata's.

All of them crop at random to 8..100 % of the area, resize to the input, mirror, and jitter brightness, contrast and
saturation by 0.4: timm's defaults for training.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import ColorJitter, Compose, PILToTensor, RandomHorizontalFlip, RandomResizedCrop

from benchmarks.loader_contender import Build, Contender, Setting, TensorLoader
from benchmarks.loader_pictures import TRAIN

CROP_SCALE, JITTER = (0.08, 1.0), 0.4
LITDATA_CHUNK = "64MB"


class Timm(Contender):
    """`create_loader` with its defaults for training: its prefetcher normalises on the device."""

    def __init__(self, root: Path, setting: Setting, folder: Path, *, color_jitter: float = JITTER) -> None:
        """Load `root`/train; nothing is written to `folder`."""
        dataset = create_dataset("", root=str(root / TRAIN), split="", is_training=True)
        self._loader = create_loader(
            dataset,
            setting.image_size,
            setting.batch_size,
            is_training=True,
            color_jitter=color_jitter,
            num_workers=setting.num_workers,
            pin_memory=setting.device.type == "cuda",
            device=setting.device,
        )

    def epoch(self, *, to_device: bool) -> Iterator[int]:
        """See `Contender`; without the prefetcher its batches are uint8 in host memory."""
        for images, _ in self._loader if to_device else self._loader.loader:
            yield len(images)

    def close(self) -> None:
        """End the workers."""
        del self._loader


def torchvision_folder(root: Path, setting: Setting, folder: Path) -> Contender:
    """Return a `DataLoader` over torchvision's ImageFolder; nothing is written to `folder`."""
    dataset = ImageFolder(root / TRAIN, Compose([_augmentation(setting), PILToTensor()]))
    loader = DataLoader(
        dataset,
        setting.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=setting.num_workers,
        persistent_workers=True,
        pin_memory=setting.device.type == "cuda",
    )
    return TensorLoader(loader, setting.device)


def litdata_stream(root: Path, setting: Setting, folder: Path) -> Contender:
    """Return litdata's loader over the pictures as its `optimize` packs them: JPEG as it is, others as raw pixels."""
    litdata = importlib.import_module("litdata")
    packed = folder / "litdata"
    classes = sorted(path.name for path in (root / TRAIN).iterdir())
    inputs = [(str(path), classes.index(path.parent.name)) for path in sorted((root / TRAIN).glob("*/*"))]
    litdata.optimize(
        fn=_packed, inputs=inputs, output_dir=str(packed), chunk_bytes=LITDATA_CHUNK, num_workers=setting.num_workers
    )
    transform = _Transform(_augmentation(setting))
    dataset = litdata.StreamingDataset(str(packed), shuffle=True, drop_last=True, transform=transform)
    loader = litdata.StreamingDataLoader(
        dataset,
        batch_size=setting.batch_size,
        num_workers=setting.num_workers,
        persistent_workers=True,
        pin_memory=setting.device.type == "cuda",
    )
    return TensorLoader(loader, setting.device)


PEERS: dict[str, Build] = {
    "timm": Timm,
    "timm_no_jitter": partial(Timm, color_jitter=0.0),
    "torchvision": torchvision_folder,
    "litdata": litdata_stream,
}
NOT_MEASURED = {"ffcv": "has no wheel: it is built with OpenCV's, libjpeg-turbo's and pthread's headers"}


def missing_peers() -> dict[str, str]:
    """Return the peers that are not measured here, with the reason."""
    reasons = {}
    for name, reason in {"litdata": "", **NOT_MEASURED}.items():
        try:
            importlib.import_module(name)
        except ImportError as error:
            reasons[name] = "; ".join(filter(None, (f"not installed ({error})", reason)))
        else:
            if name in NOT_MEASURED:
                reasons[name] = "installed, but this benchmark has no loader for it"
    return reasons


def _augmentation(setting: Setting) -> Any:
    return Compose(
        [
            RandomResizedCrop(setting.image_size, CROP_SCALE),
            RandomHorizontalFlip(),
            ColorJitter(JITTER, JITTER, JITTER),
        ]
    )


def _packed(item: tuple[str, int]) -> tuple[Any, int]:
    """Give `optimize` a picture the way litdata's manual does: opened by Pillow."""
    path, label = item
    return Image.open(path), label


class _Transform:
    """Augments what litdata unpacks: a tensor for a JPEG, a Pillow picture for raw pixels."""

    def __init__(self, augmentation: Any) -> None:
        self._augmentation = augmentation
        self._to_tensor = PILToTensor()

    def __call__(self, sample: tuple[Any, int], *_: Any, **__: Any) -> tuple[torch.Tensor, int]:
        image, label = self._augmentation(sample[0]), sample[1]
        return image if isinstance(image, torch.Tensor) else self._to_tensor(image), label
