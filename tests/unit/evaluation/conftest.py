"""What the plot tests share: the figures as they were drawn, before they became pixels."""

from __future__ import annotations

import matplotlib.figure
import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect every figure that is saved; it is saved all the same, with warnings as errors."""
    figures: list[Figure] = []
    real = matplotlib.figure.Figure.savefig

    def savefig(figure: Figure, *args: object, **kwargs: object) -> None:
        figures.append(figure)
        real(figure, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return figures
