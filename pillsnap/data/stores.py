"""The pixel stores of a run: opened once, shared by every loader that is built from them."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from pillsnap.data.pixels import Parts


@dataclass
class Stores:
    """The pixel stores of a run."""

    @classmethod
    def none(cls) -> Stores:
        """Return stores that keep nothing: every sample is decoded from its original."""
        return cls()

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Stores:
        """Return the stores that `dataloader.ram_optimization` asks for; nothing is opened yet."""
        return cls()

    def open(self, purpose: str, parts: Parts) -> None:
        """Give `parts` a store."""
