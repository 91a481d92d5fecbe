"""The parts of the loader benchmark; a whole run is not tried: timm's loader hung in two of twenty of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import loader, loader_peers
from benchmarks.loader_contender import Contender, load_epochs
from benchmarks.loader_pictures import PictureSet, arrange_pictures, mean_kilobytes
from benchmarks.rounds import RoundTimes, Stopwatch


class Counted(Contender):
    def __init__(self) -> None:
        self.places: list[bool] = []

    def epoch(self, *, to_device: bool) -> Iterator[int]:
        self.places.append(to_device)
        yield from (4, 4, 2)

    def close(self) -> None:
        self.places.clear()


def test_a_turn_is_whole_epochs_and_counts_their_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    contender, stopwatch = Counted(), Stopwatch(torch.device("cpu"))
    clock = iter([100.0, 100.9, 101.8, 102.7])
    monkeypatch.setattr(stopwatch, "read", lambda: next(clock))
    seconds = load_epochs(contender, stopwatch, min_s=2.0, to_device=True)
    assert contender.places == [True] * 3
    assert seconds == pytest.approx(2.7 / 30 * 1000)


def test_the_figure_is_the_median_of_the_rounds_in_host_memory() -> None:
    times = RoundTimes()
    for ours_host, timm_host in ((1.0, 8.0), (1.0, 9.0), (1.0, 30.0)):
        times.add({"ours/host": ours_host, "timm/host": timm_host, "ours/device": 2.0, "timm/device": 8.0})
    found = loader._figures(times, "ours", {}, {"litdata": "not installed"})
    assert found["ratio_to_timm_median"] == 9.0
    assert found["ratios_to_timm"] == [8.0, 9.0, 30.0]
    assert found["device"]["ratio_median_to"] == {"timm": 4.0, "litdata": None}
    assert found["host"]["images_per_s"] == {"ours": 1000.0, "timm": 111.1, "litdata": None}


def test_pictures_lie_in_a_folder_a_drug_as_both_formats(tmp_path: Path) -> None:
    pictures = PictureSet(num_drugs=2, per_drug=3, repeats=2, size_wh=(160, 200))
    for _ in range(2):  # the second time everything is there
        roots = arrange_pictures(tmp_path, pictures)
    for root, suffix in ((roots["png"], ".png"), (roots["jpeg"], ".jpg")):
        assert len(list(root.glob(f"train/*/*{suffix}"))) == 2 * 3 * 2
        assert len(list(root.glob(f"val/*/*{suffix}"))) == 2
        assert len({path.stat().st_ino for path in root.glob("train/*/*")}) == 2 * 3
    assert mean_kilobytes(roots["png"]) > mean_kilobytes(roots["jpeg"]) > 1


def test_a_peer_that_is_installed_without_a_loader_here_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.loader_peers.importlib.import_module", lambda _: None)
    assert loader_peers.missing_peers() == {"ffcv": "installed, but this benchmark has no loader for it"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--rounds", "0"], "0 is not 1 or more"),
        (["--only", "gif"], "invalid choice"),
        (["--drugs", "1"], "two drugs or more"),
        (["--batch-size", "401"], "more than the pictures of an epoch"),
        (["--size", "976"], "976 is not like 976x1280"),
        (["--json", "/nowhere/x.json"], "there is no folder"),
    ],
    ids=["no rounds", "unknown", "one drug", "large batch", "size", "no folder"],
)
def test_bad_arguments_are_refused(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        loader.main(words)
    assert error.value.code == 2
    assert text in capsys.readouterr().err


def test_a_data_set_that_cannot_be_drawn_ends_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert loader.main(["--size", "9x9"]) == 2
    assert "width is 9" in capsys.readouterr().err


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(loader, "_measure", interrupted)
    assert loader.main([]) == 130
    assert "interrupted" in capsys.readouterr().err
