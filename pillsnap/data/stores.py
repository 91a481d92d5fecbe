"""The pixel stores of a run: opened once, shared by every loader that is built from them."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from pillsnap.data.pixels import Parts
from pillsnap.data.ram_plan import measure_machine
from pillsnap.data.store.layout import StoreLayout, StoreOptions, hash_order, stat_stamps
from pillsnap.data.store.measure import choose_store
from pillsnap.data.store.opening import open_store
from pillsnap.data.store.preload import preload
from pillsnap.data.store.room import planned_bytes
from pillsnap.data.store.tiers import PixelStore

ROOM_SHARE = 0.5  # of the free RAM; the rest is for workers, batches, and files of raw pixels that are in use
TRAINING = "-train"  # ends the purposes that training reads

logger = logging.getLogger("pillsnap")


@dataclass
class Stores:
    """The pixel stores of a run, one for each purpose; the places in the hot set go to those that are opened first."""

    options: StoreOptions
    """`hotset_entries` are the places that are left for the stores still to be opened."""
    cache_dir: Path | None
    opened: dict[str, PixelStore] = field(default_factory=dict)
    places: list[NDArray[np.int64]] = field(default_factory=list)
    """Bytes of each place in the hot set of each opened store, in the order in which places are given away."""
    _parts: dict[str, Parts] = field(default_factory=dict)
    _planned: dict[str, int] = field(default_factory=dict)
    """Bytes of the disk that each opened store takes once it is full."""

    @classmethod
    def none(cls) -> Stores:
        """Return stores that keep nothing: every sample is decoded from its original."""
        return cls(StoreOptions(cache_policy="none"), None)

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Stores:
        """Return the stores that `dataloader.ram_optimization` asks for; nothing is opened yet."""
        asked = cfg.dataloader.ram_optimization
        options = StoreOptions(
            cache_policy=asked.cache_policy,
            hotset_entries=asked.hotset_size_images,
            use_lmdb=asked.use_lmdb,
            lmdb_codec=asked.lmdb_codec,
        )
        return cls(options, Path(cfg.paths.cache_dir))

    def open(self, purpose: str, parts: Parts) -> None:
        """Give `parts` the store of a purpose; loaders that are built again get the one that is open.

        Args:
            purpose: What the pixels are for, such as `classification-train`; leads the names of the store's files.
            parts: What is kept; the same parts for the same purpose.
        """
        if purpose not in self.opened:
            store = self._opened(purpose, parts)
            if store is None:
                return
            self.opened[purpose], self._parts[purpose] = store, parts
        parts.store = self.opened[purpose]

    def preload(self, num_samples: int, num_processes: int) -> None:
        """Decode samples of each training set into its store, before the first step has to wait for them.

        Args:
            num_samples: Picture parts of each store; those that the hot set keeps come first.
            num_processes: How many decode at once; 0 does it in this process.
        """
        for purpose, store in self.opened.items():
            if purpose.endswith(TRAINING) and num_samples:
                parts = self._parts[purpose]
                preload(store, hash_order(parts.layout())[:num_samples].tolist(), parts.make, num_processes)

    def hotset_images(self) -> int:
        """Return the places in the hot sets of the opened stores."""
        return sum(map(len, self.places))

    def hotset_bytes(self, num_images: int) -> int:
        """Return the most bytes of RAM that hot sets of `num_images` places in all would take."""
        total = 0
        for places in self.places:
            total += int(places[:num_images].sum())
            num_images = max(num_images - len(places), 0)
        return total

    def counts(self) -> dict[str, dict[str, Any]]:
        """Return what each store holds and has done, as plain data."""
        return {purpose: store.counts().to_dict() for purpose, store in self.opened.items()}

    def close(self) -> None:
        """Commit and close all stores; whoever still reads decodes originals from here on."""
        for store in self.opened.values():
            store.close()

    def _opened(self, purpose: str, parts: Parts) -> PixelStore | None:
        options = self.options
        if options.cache_policy == "none" and not options.use_lmdb:
            return None
        layout = parts.layout()
        root = str(parts.originals.root.resolve()).encode(errors="surrogateescape")
        name = f"{purpose}-{hashlib.blake2b(root, digest_size=6).hexdigest()}"
        promised = self._promised()
        if options.cache_policy == "auto":
            options = choose_store(
                layout,
                lambda entry: parts.make(entry)[0],
                self._room(),
                self.cache_dir,
                name=name,
                promised=promised,
            )
        if options.cache_policy == "hotset":
            places = layout.capacity[hash_order(layout)[: options.hotset_entries]]
            self.places.append(places)
            left = self.options.hotset_entries - len(places)
            self.options = replace(self.options, hotset_entries=max(left, 0))
        if self.cache_dir is not None and any(self.cache_dir.glob(f"{name}*")):
            layout = self._stamped(layout, parts)
        store = open_store(layout, options, self.cache_dir, name=name, promised=promised)
        self._planned[purpose] = planned_bytes(layout, options)
        self._warn_of_few_places(purpose, len(layout.kept), len(layout.kept) - store.counts().entries)
        return store

    def _promised(self) -> int:
        """Return the bytes of the disk that the opened stores will still take."""
        return sum(max(self._planned[name] - store.counts().disk_bytes, 0) for name, store in self.opened.items())

    def _warn_of_few_places(self, purpose: str, num_entries: int, num_without: int) -> None:
        if self.options.cache_policy == "hotset" and not self.options.use_lmdb and num_without:
            logger.warning(
                "the hot set has no place for %d of the %d picture parts of %s: these are decoded in every epoch. To "
                "keep them on the disk, set dataloader.ram_optimization.cache_policy=mmap or use_lmdb=true.",
                num_without,
                num_entries,
                purpose,
            )

    def _room(self) -> int:
        """Return the bytes of RAM that a store may still take when that is decided by measurement."""
        machine = measure_machine()
        return int(ROOM_SHARE * (machine.total - machine.in_use)) - self.hotset_bytes(self.hotset_images())

    def _stamped(self, layout: StoreLayout, parts: Parts) -> StoreLayout:
        """Return `layout` with the size and time of change that each original has now."""
        rows, entry_of = np.unique(parts.rows_of_entries(), return_inverse=True)
        originals = parts.originals
        stamps = stat_stamps(lambda index: str(originals.path(int(rows[index]))), len(rows))
        return replace(layout, stamps=stamps[entry_of])
