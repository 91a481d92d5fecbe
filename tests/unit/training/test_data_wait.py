"""Why steps wait for data: one table of windows, and what is reported of them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pillsnap.data.batches import LoadStats
from pillsnap.training.data_wait import DataWait, LoaderSetup, Window, diagnose
from tests.run.tiny_tasks import Scalars

pytestmark = pytest.mark.req("UTL-4", "WRK-1", "LOP-2")

STORED = {"store": 900, "original": 100}
DECODED = {"original": 1000}


def window(
    wait: float = 0.4,
    *,
    read: float = 0.05,
    decode: float = 0.8,
    view: float = 0.15,
    cpu: float = 0.95,
    wall_s: float = 40.0,
    hits: dict[str, int] | None = None,
    epoch: int = 1,
) -> Window:
    """Return a window of 10 s of steps; shares are of the time samples were loaded, `wall_s` over all workers."""
    load = LoadStats(read * wall_s, decode * wall_s, view * wall_s, cpu * wall_s, wall_s, hits or DECODED, 1000)
    return Window(epoch=epoch, steps=50, data_s=10 * wait, compute_s=10 * (1 - wait), load=load)


def setup(num_workers: int = 4, num_cores: int = 4, **more: Any) -> LoaderSetup:
    return LoaderSetup(num_workers=num_workers, num_cores=num_cores, **more)


RAM = "dataloader.ram_optimization"
READING: dict[str, Any] = {"read": 0.8, "decode": 0.1, "view": 0.1, "cpu": 0.2}
VIEWING: dict[str, Any] = {"read": 0.0, "decode": 0.1, "view": 0.9}
TABLE: list[tuple[str, Window, LoaderSetup, tuple[str, str]]] = [
    ("cores to spare", window(), setup(4, 8), ("decode", "dataloader.num_workers=8")),
    ("two loaders share the cores", window(), setup(2, 8, num_loaders=2), ("decode", "dataloader.num_workers=4")),
    ("no core to spare, nothing kept", window(), setup(), ("decode", f"{RAM}.cache_policy=auto")),
    ("first epoch", window(epoch=0), setup(cache_policy="hotset"), ("decode", f"{RAM}.use_lmdb=true")),
    ("first epoch, a map", window(epoch=0), setup(cache_policy="mmap"), ("decode", f"{RAM}.cache_policy")),
    (
        "first epoch, LMDB",
        window(epoch=0),
        setup(cache_policy="hotset", use_lmdb=True),
        ("decode", f"{RAM}.cache_policy"),
    ),
    ("small hot set", window(hits=STORED), setup(cache_policy="hotset"), ("decode", f"{RAM}.use_lmdb=true")),
    ("full map", window(hits=STORED), setup(cache_policy="mmap"), ("decode", f"{RAM}.cache_policy")),
    ("in process", window(wall_s=4), setup(0, 4), ("decode", "dataloader.num_workers=4")),
    ("in process, one core", window(wall_s=4), setup(0, 1), ("decode", f"{RAM}.cache_policy=auto")),
    ("disk, nothing kept", window(**READING), setup(), ("disk", f"{RAM}.cache_policy=auto")),
    ("disk, all kept", window(**READING), setup(cache_policy="mmap", use_lmdb=False), ("disk", "data.root")),
    ("too many workers", window(cpu=0.5), setup(4, 2), ("cores", "dataloader.num_workers=2")),
    ("other programs", window(cpu=0.5), setup(4, 4), ("cores", "dataloader.num_workers")),
    ("views, cores to spare", window(**VIEWING), setup(4, 8), ("view", "dataloader.num_workers=8")),
    ("views", window(**VIEWING), setup(), ("view", "train.classification.augment")),
    ("workers with time left", window(wall_s=20), setup(prefetch_factor=4), ("bursts", "dataloader.prefetch_factor=8")),
]


@pytest.mark.parametrize(("found", "given", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_reason_and_the_setting_follow_from_the_figures(
    found: Window, given: LoaderSetup, expected: tuple[str, str]
) -> None:
    diagnosis = diagnose(found, given)
    assert diagnosis is not None
    assert (diagnosis.reason, diagnosis.setting) == expected
    assert diagnosis.key in diagnosis.text or diagnosis.value is None


def test_the_text_has_the_figures_it_was_concluded_from() -> None:
    diagnosis = diagnose(window(0.231, hits=STORED), setup(4, 8))
    assert diagnosis is not None
    assert diagnosis.text == (
        "23.1% of the time of 50 steps was waiting for data. Reason: decode. While loading samples, 4 worker processes "
        "on 8 cores computed 95% of the time (reading 5%, decoding 80%, views 15%); 90% of the pictures came from the "
        "store. There are cores for more workers: set dataloader.num_workers=8."
    )


@pytest.mark.parametrize(
    "found", [window(0.05), window(wall_s=0.0), Window(epoch=0)], ids=["tolerable", "no figures", "no steps"]
)
def test_nothing_is_concluded_from(found: Window) -> None:
    assert diagnose(found, setup()) is None


class Watched:
    """A watch and all it told."""

    def __init__(self, *, warmup_steps: int = 0) -> None:
        self.tb, self.decisions = Scalars(), list[tuple[Any, ...]]()
        self.wait = DataWait(
            setup(4, 8),
            label="train",
            prefix="detection/",
            logger=logging.getLogger("test of data wait"),
            tb=self.tb,
            decide=lambda *words: self.decisions.append(words),
            warmup_steps=warmup_steps,
        )

    def steps(self, count: int, share: float = 0.4, **parts: Any) -> None:
        found = window(share, **parts)
        for _ in range(count):
            self.wait.add(found.data_s, found.compute_s, found.load)


def test_a_reason_is_reported_once_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.steps(10)
    for epoch, parts in [(0, {}), (0, {}), (0, VIEWING), (1, {})]:
        watched.steps(50, **parts)
        watched.wait.close_window(epoch, 50)
    assert [decision[0] for decision in watched.decisions] == ["train: data wait"] * 3
    assert [message.split("Reason: ")[1].split(".")[0] for message in caplog.messages] == ["decode", "view", "decode"]
    facts = watched.wait.facts()
    assert facts["decode"] == {
        "windows": 3,
        "largest_share": pytest.approx(0.4),
        "setting": "dataloader.num_workers=8",
    }
    assert facts["view"]["windows"] == 1


def test_every_window_has_its_share_in_tensorboard_and_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.steps(10)
    for share in (0.4, 0.01):
        watched.steps(5, share)
        watched.wait.close_window(0, 50)
    assert {tag for tag, _, _ in watched.tb.values} == {"detection/perf/data_wait_share"}
    assert [value for _, value, _ in watched.tb.values] == pytest.approx([0.4, 0.01])
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(("warmup_steps", "expected"), [(0, 10), (100, 100)])
def test_the_first_steps_are_left_out(warmup_steps: int, expected: int) -> None:
    watched = Watched(warmup_steps=warmup_steps)
    watched.steps(expected, 0.9)
    watched.wait.close_window(0, expected)
    assert watched.tb.values == []
    watched.steps(1, 0.02)
    watched.wait.close_window(0, expected + 1)
    assert [value for _, value, _ in watched.tb.values] == pytest.approx([0.02])
