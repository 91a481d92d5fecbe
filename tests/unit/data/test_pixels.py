"""Decoded parts of pictures: the same pixels from every tier, and the same batches however they are loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pillsnap.data.batches import ClassificationBatch, safe_collate
from pillsnap.data.classes import ClassMap
from pillsnap.data.colour import Augmentation
from pillsnap.data.datasets import ClassificationTrainingDataset
from pillsnap.data.items import classification_items
from pillsnap.data.levels import LevelSizes
from pillsnap.data.originals import Originals
from pillsnap.data.pixels import DetectorParts, EvaluationParts, Parts, part_keys
from pillsnap.data.preprocess import ClassifierInput, resize_longer_side
from pillsnap.data.records import Picture, Records
from pillsnap.data.samplers import StepSampler
from pillsnap.data.store.layout import StoreOptions, hash_order
from pillsnap.data.stores import Stores
from pillsnap.data.training_parts import TrainingParts

SIZE_PX = 32
SPEC = ClassifierInput(size_px=SIZE_PX, mean=(0.5,) * 3, std=(0.5,) * 3, frame_fit="letterbox")
STRONG = Augmentation(rotation_degrees=180, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, blur=0.3)
TIERS = {
    "hot set": StoreOptions(cache_policy="hotset", hotset_entries=10_000),
    "half in the hot set": StoreOptions(cache_policy="hotset", hotset_entries=300),
    "memory map": StoreOptions(cache_policy="mmap"),
    "lossless LMDB": StoreOptions(cache_policy="none", use_lmdb=True),
}


def _draw(path: Path, seed: int, size_wh: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 5, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize(size_wh, Image.Resampling.BICUBIC)
    smooth.save(path, quality=90)


def _records(root: Path, count: int) -> Records:
    """Singles with and without a box, JPEG and PNG, and combinations of three pills."""
    pictures = []
    for index in range(count):
        kind, suffix = index % 5, "jpg" if index % 2 else "png"
        name = f"{index:03d}.{suffix}"
        _draw(root / name, index, (96, 128))
        boxes = [(10.0, 20.0, 50.0, 70.0), (52.0, 80.0, 90.0, 120.0), (40.0, 10.0, 80.0, 40.0)]
        num_boxes = {0: 3, 1: 0}.get(kind, 1)
        pictures.append(
            Picture(
                image_path=name, task="combo" if kind == 0 else "single", code=None if kind == 0 else f"c{index % 3}",
                group=name, source="yolo", part="", width=96, height=128, boxes_xyxy=boxes[:num_boxes],
                box_codes=["c0", "c1", "c2"][:num_boxes] if kind == 0 else [f"c{index % 3}"] * num_boxes,
            )
        )  # fmt: skip
    return Records.from_pictures(pictures)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def records(root: Path) -> Records:
    return _records(root, 300)


def _training(records: Records, root: Path) -> TrainingParts:
    items = classification_items(records, np.arange(len(records)), ClassMap.from_records(records, {}))
    return TrainingParts(Originals(records, root), items, LevelSizes(SIZE_PX, "letterbox"), "both")


def _evaluation(records: Records, root: Path) -> EvaluationParts:
    items = classification_items(records, np.arange(len(records)), ClassMap.from_records(records, {}))
    return EvaluationParts(Originals(records, root), items, SPEC, "box", 0.1)


def _detector(records: Records, root: Path) -> DetectorParts:
    return DetectorParts(Originals(records, root), np.arange(len(records)), 64, is_training=True)


def _digest(parts: Parts) -> tuple[int, str]:
    """Return how many entries have a place, and a hash of the pixels of all of them in order."""
    digest, kept = hashlib.sha256(), parts.layout().kept
    for entry in kept.tolist():
        stored = None if parts.store is None else parts.store.read(entry)
        pixels = parts.make(entry)[0] if stored is None else stored
        digest.update(str(pixels.shape).encode() + pixels.tobytes())
    return len(kept), digest.hexdigest()


@pytest.mark.req("DAT-3")
@pytest.mark.parametrize("tiers", TIERS.values(), ids=list(TIERS))
def test_pixels_are_those_of_the_originals_in_every_tier(
    tiers: StoreOptions, records: Records, root: Path, tmp_path: Path
) -> None:
    num_entries = 0
    for purpose, build in {"levels": _training, "views": _evaluation, "photographs": _detector}.items():
        count, expected = _digest(build(records, root))
        num_entries += count
        stores, parts = Stores(tiers, tmp_path), build(records, root)
        stores.open(purpose, parts)
        assert _digest(parts) == (count, expected), "while it fills"
        assert parts.store is not None
        written = parts.store.counts().written
        assert _digest(parts) == (count, expected), "when it is full"
        assert parts.store.counts().written == written, "nothing was made a second time"
        stores.close()
        again, reopened = Stores(tiers, tmp_path), build(records, root)
        again.open(purpose, reopened)
        assert _digest(reopened) == (count, expected), "in the next run"
        again.close()
    assert num_entries >= 1000


@pytest.mark.req("DAT-3")
def test_another_input_size_finds_nothing_of_the_old_one(records: Records, root: Path, tmp_path: Path) -> None:
    first, parts = Stores(TIERS["memory map"], tmp_path), _training(records, root)
    first.open("levels", parts)
    _digest(parts)
    first.close()
    other = _training(records, root)
    other.sizes = LevelSizes(SIZE_PX + 8, "letterbox")
    second = Stores(TIERS["memory map"], tmp_path)
    second.open("levels", other)
    assert other.store is not None
    assert other.store.counts().on_disk == 0
    second.close()


@pytest.mark.req("DAT-3")
def test_a_picture_that_changed_is_decoded_again(root: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    records = _records(pictures, 6)
    stores, parts = Stores(TIERS["memory map"], tmp_path / "cache"), _detector(records, pictures)
    stores.open("photographs", parts)
    before = [parts.pixels(position).copy() for position in range(6)]
    stores.close()
    _draw(pictures / "003.jpg", 99, (96, 128))
    os.utime(pictures / "003.jpg", ns=(1, 1))
    again, parts = Stores(TIERS["memory map"], tmp_path / "cache"), _detector(records, pictures)
    again.open("photographs", parts)
    after = [parts.pixels(position) for position in range(6)]
    assert [np.array_equal(*pair) for pair in zip(before, after, strict=True)] == [True, True, True, False, True, True]
    again.close()


@pytest.mark.parametrize("first_wants_region", [True, False])
def test_a_part_does_not_depend_on_which_was_asked_for_first(
    first_wants_region: bool, records: Records, root: Path, tmp_path: Path
) -> None:
    parts, alone = _training(records, root), _training(records, root)
    stores = Stores(TIERS["hot set"], tmp_path)
    stores.open("levels", parts)
    num_items = len(parts.items)
    for position in np.flatnonzero(parts.layout().capacity[num_items:] > 0)[:40].tolist():
        entries = [num_items + position, position]
        for entry in entries if first_wants_region else entries[::-1]:
            if parts.layout().capacity[entry] > 0:
                assert np.array_equal(parts.make(entry)[0], alone.make(entry)[0])
    stores.close()


def test_one_decode_of_a_combination_fills_the_places_of_all_its_pills(
    records: Records, root: Path, tmp_path: Path
) -> None:
    parts = _training(records, root)
    stores = Stores(TIERS["hot set"], tmp_path)
    stores.open("levels", parts)
    combo = int(np.flatnonzero(parts.items.rows == parts.items.rows[0])[0])
    assert parts.originals.is_combo(int(parts.items.rows[combo]))
    parts.make(len(parts.items) + combo)
    assert parts.store is not None
    assert parts.store.counts().in_ram == 3
    stores.close()


def test_keys_of_parts_are_all_different() -> None:
    ids = np.random.default_rng(0).integers(0, 2**63, 50_000).astype(np.uint64)
    keys = np.concatenate([part_keys(ids, np.full(len(ids), part)) for part in range(5)])
    assert len(np.unique(keys)) == len(keys)


def _batches(records: Records, root: Path, stores: Stores, num_workers: int, start: int = 0) -> list[str]:
    parts = _training(records, root)
    stores.open("levels", parts)
    dataset = ClassificationTrainingDataset(parts, SPEC, STRONG, seed=3)
    sampler = StepSampler(
        len(dataset), batch_size=16, grad_accum_steps=2, drop_last=True, seed=3, task="classification"
    )
    sampler.set_position(1, start_sample=start * sampler.step_size)
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_sampler=sampler, num_workers=num_workers, collate_fn=safe_collate,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    return [_batch_digest(batch) for batch in loader]


def _batch_digest(batch: ClassificationBatch) -> str:
    assert batch.colour_BK is not None
    digest = hashlib.sha256(batch.images_BCHW.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
    digest.update(batch.labels_B.numpy().tobytes() + batch.colour_BK.numpy().tobytes())
    return f"{digest.hexdigest()} {batch.sample_ids}"


@pytest.mark.req("WRK-1", "DAT-3")
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_batches_do_not_depend_on_workers_store_or_where_an_epoch_is_resumed(
    records: Records, root: Path, tmp_path: Path
) -> None:
    expected = _batches(records, root, Stores.none(), 0)
    stores = Stores(TIERS["half in the hot set"], tmp_path)
    for num_workers in (0, 1, 2, 4):
        assert _batches(records, root, stores, num_workers) == expected
    assert _batches(records, root, stores, 2, start=5) == expected[5:]
    stores.close()


@pytest.mark.req("DAT-3")
def test_the_places_of_the_hot_set_go_to_the_stores_that_are_opened_first(
    records: Records, root: Path, tmp_path: Path
) -> None:
    stores = Stores(StoreOptions(cache_policy="hotset", hotset_entries=600), tmp_path)
    views, levels = _evaluation(records, root), _training(records, root)
    stores.open("views", views)
    stores.open("levels", levels)
    num_views = len(views.layout().kept)
    assert (stores.options.hotset_entries, stores.hotset_images()) == (0, 600)
    assert stores.hotset_bytes(num_views) == num_views * SIZE_PX**2 * 3
    _digest(views), _digest(levels)
    found = stores.counts()
    assert (found["views"]["in_ram"], found["levels"]["in_ram"]) == (num_views, 600 - num_views)
    assert found["views"]["ram_bytes"] + found["levels"]["ram_bytes"] <= stores.hotset_bytes(600) + 600 * 64
    stores.close()


BUILDERS: dict[str, Callable[[Records, Path], Parts]] = {
    "levels": _training, "views": _evaluation, "photographs": _detector,
}  # fmt: skip


@pytest.mark.parametrize("build", BUILDERS.values(), ids=list(BUILDERS))
def test_parts_fit_the_places_planned_for_them(
    build: Callable[[Records, Path], Parts], records: Records, root: Path
) -> None:
    parts = build(records, root)
    layout = parts.layout()
    for entry in layout.kept[::7].tolist():
        assert parts.make(entry)[0].nbytes <= layout.capacity[entry]


@pytest.mark.req("DAT-3")
def test_what_is_decoded_before_the_first_step_is_packed_once(records: Records, root: Path, tmp_path: Path) -> None:
    jpeg = StoreOptions(cache_policy="none", use_lmdb=True, lmdb_codec="jpeg")
    preloaded, read = _detector(records, root), _detector(records, root)
    first, second = Stores(jpeg, tmp_path / "first"), Stores(jpeg, tmp_path / "second")
    first.open("photographs-train", preloaded)
    first.preload(20, 0)
    second.open("photographs-train", read)
    assert first.counts()["photographs-train"]["written"] == 20
    for entry in hash_order(read.layout())[:20].tolist():
        assert np.array_equal(preloaded.pixels(entry), read.pixels(entry))
    first.close()
    second.close()


@pytest.fixture(scope="module")
def odd_sizes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Records, Path]:
    """JPEG photographs of sizes that no reduction divides, in the scales 1/1 to 1/8 of an input of 64."""
    root, pictures = tmp_path_factory.mktemp("odd"), []
    for index, (width, height) in enumerate(np.random.default_rng(0).integers(30, 700, (63, 2)).tolist()):
        name = f"{index:02d}.jpg"
        _draw(root / name, index, (width, height))
        pictures.append(
            Picture(
                image_path=name, task="single", code="c0", group=name, source="yolo", part="", width=width,
                height=height, boxes_xyxy=[(1.0, 1.0, 20.0, 20.0)], box_codes=["c0"],
            )
        )  # fmt: skip
    return Records.from_pictures(pictures), root


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "validation"])
def test_photographs_of_odd_sizes_fill_their_places(odd_sizes: tuple[Records, Path], is_training: bool) -> None:
    parts = DetectorParts(Originals(*odd_sizes), np.arange(63), 64, is_training=is_training)
    assert [parts.make(entry)[0].nbytes for entry in range(63)] == parts.layout().capacity.tolist()


def test_photographs_that_are_judged_are_resized_as_everywhere_else(odd_sizes: tuple[Records, Path]) -> None:
    parts = DetectorParts(Originals(*odd_sizes), np.arange(63), 64, is_training=False)
    for row in range(63):
        assert np.array_equal(parts.make(row)[0], resize_longer_side(parts.originals.open(row).full(), 64))


@pytest.mark.parametrize(
    ("options", "is_said"),
    [
        (StoreOptions(hotset_entries=10), True),
        (StoreOptions(hotset_entries=0), True),
        (TIERS["hot set"], False),
        (TIERS["memory map"], False),
        (StoreOptions(hotset_entries=10, use_lmdb=True), False),
    ],
    ids=["small", "none", "large", "mmap", "LMDB"],
)
def test_parts_without_a_place_are_said_with_what_would_keep_them(
    options: StoreOptions, is_said: bool, records: Records, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stores = Stores(options, tmp_path)
    stores.open("photographs", _detector(records, root))
    text = f"has no place for {300 - options.hotset_entries} of the 300 picture parts of photographs: these are decoded"
    assert (text in caplog.text) is is_said
    stores.close()


@pytest.mark.req("DAT-3")
def test_a_later_store_does_not_count_on_the_disk_of_an_earlier_one(
    records: Records, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promised: list[int] = []

    def choose(*_: object, **words: Any) -> StoreOptions:
        promised.append(words["promised"])
        return StoreOptions(cache_policy="mmap")

    monkeypatch.setattr("pillsnap.data.stores.choose_store", choose)
    stores, views = Stores(StoreOptions(cache_policy="auto"), tmp_path), _evaluation(records, root)
    stores.open("views", views)
    stores.open("photographs", _detector(records, root))
    expected = int(views.layout().capacity.sum())
    assert promised[0] == 0
    assert expected - 100_000 < promised[1] <= expected  # the records of the first lie there already
    stores.close()
