"""Address fixed by the specification (ADR-1, DAT-1): everything here lives in the package `pillsnap`."""

from pillsnap.data.loaders import build_dataloaders_twostage

__all__ = ["build_dataloaders_twostage"]
