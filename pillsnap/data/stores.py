"""The pixel stores of a run: opened once, shared by every loader that is built from them."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from pillsnap.data.pixels import Parts
from pillsnap.data.store.layout import StoreLayout, StoreOptions, hotset_bytes, stat_stamps
from pillsnap.data.store.opening import open_store
from pillsnap.data.store.tiers import PixelStore

logger = logging.getLogger("pillsnap")


@dataclass
class Stores:
    """The pixel stores of a run, one for each purpose; the places in the hot set go to those that are opened first."""

    options: StoreOptions
    """`hotset_entries` are the places that are left for the stores still to be opened."""
    cache_dir: Path | None
    opened: dict[str, PixelStore] = field(default_factory=dict)
    hotset_bytes: int = 0
    """Most bytes of RAM that the hot sets of the opened stores take."""

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
            self.opened[purpose] = store
        parts.store = self.opened[purpose]

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
        if options.cache_policy == "hotset":
            num_entries = min(options.hotset_entries, len(layout.kept))
            self.hotset_bytes += hotset_bytes(layout, num_entries)
            self.options = replace(self.options, hotset_entries=self.options.hotset_entries - num_entries)
        if self.cache_dir is not None and any(self.cache_dir.glob(f"{name}*")):
            layout = self._stamped(layout, parts)
        return open_store(layout, options, self.cache_dir, name=name)

    def _stamped(self, layout: StoreLayout, parts: Parts) -> StoreLayout:
        """Return `layout` with the size and time of change that each original has now."""
        rows, entry_of = np.unique(parts.rows_of_entries(), return_inverse=True)
        originals = parts.originals
        stamps = stat_stamps(lambda index: str(originals.path(int(rows[index]))), len(rows))
        return replace(layout, stamps=stamps[entry_of])
