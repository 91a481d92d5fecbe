import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pillsnap.data.ram_plan import LoaderDemand, Machine, RamDemand, measure_machine, plan_ram, require_fit
from pillsnap.errors import ConfigError

pytestmark = pytest.mark.req("DAT-3")

GB = 10**9
IMAGE_BYTES = 384 * 384 * 3
LOADER = LoaderDemand(num_workers=8, prefetch_factor=4, batch_bytes=64 * IMAGE_BYTES)
DEMAND = RamDemand(
    hotset_images=60_000, hotset_bytes=lambda images: images * IMAGE_BYTES, loaders=[LOADER], labels_bytes=2 * GB
)
REFERENCE = Machine(total=128 * GB, in_use=3 * GB)


def test_the_reference_machine_is_planned_as_the_specification_says() -> None:
    plan = plan_ram(REFERENCE, DEMAND)
    parts = {"system": 8.0, "hot_set": 26.54, "prefetch": 0.91, "labels": 2.0, "workers": 8.0, "free": 82.55}
    assert {name: round(plan.to_dict()[name] / GB, 2) for name in parts} == parts


def test_the_parts_and_what_is_free_add_up_to_the_total() -> None:
    values = plan_ram(REFERENCE, DEMAND).to_dict()
    assert values.pop("total") == sum(values.values())


def test_what_is_in_use_counts_when_it_is_more_than_the_least() -> None:
    assert plan_ram(replace(REFERENCE, in_use=40 * GB), DEMAND).system == 40 * GB


def test_the_system_gets_less_of_a_small_machine() -> None:
    assert plan_ram(Machine(total=16 * GB, in_use=0), DEMAND).system == 1 * GB


def test_without_workers_nothing_is_prefetched() -> None:
    plan = plan_ram(REFERENCE, replace(DEMAND, loaders=[replace(LOADER, num_workers=0)]))
    assert (plan.prefetch, plan.workers) == (0, 0)


def test_the_plan_is_logged_as_a_table(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        require_fit(REFERENCE, DEMAND)
    assert re.search(r"hot set +26\.54 GB\n", caplog.text)
    assert re.search(r"free +82\.55 GB\ntotal +128\.00 GB", caplog.text)


def test_a_machine_of_24_gb_is_refused_with_the_hot_set_that_fits() -> None:
    text = r"needs 38\.9 GB of memory; the machine gives this run 24\.0 GB(.|\n)*Set \S+hotset_size_images=26000\.$"
    with pytest.raises(ConfigError, match=text):
        require_fit(Machine(total=24 * GB, in_use=GB), DEMAND)


def _after(advice: str, demand: RamDemand) -> RamDemand:
    """Follow the assignments of one way out."""
    values = {key.rpartition(".")[2]: int(value) for key, value in re.findall(r"([\w.]+)=(\d+)", advice)}
    demand = replace(demand, hotset_images=values.get("hotset_size_images", demand.hotset_images))
    demand = demand.with_workers(values.get("num_workers", 99))
    return demand.with_prefetch(values.get("prefetch_factor", 99))


@pytest.mark.parametrize("total", [38, 36, 31, 24, 13, 11.9, 8, 4])
def test_following_each_way_of_the_advice_makes_it_fit(total: float) -> None:
    machine = Machine(total=int(total * GB), in_use=GB // 4)
    with pytest.raises(ConfigError) as refusal:
        require_fit(machine, DEMAND)
    for way in str(refusal.value).rpartition("Set ")[2].split(", or "):
        assert require_fit(machine, _after(way, DEMAND)).free >= 0


def test_every_setting_that_would_do_alone_is_named() -> None:
    loaders = [replace(LOADER, batch_bytes=GB // 4)]  # 8 GB of batches: 47.4 GB in all
    with pytest.raises(ConfigError) as refusal:
        require_fit(Machine(total=45 * GB, in_use=GB), replace(DEMAND, loaders=loaders))
    assert re.findall(r"(\w+)=(\d+)", str(refusal.value)) == [
        ("hotset_size_images", "54000"),  # 45 - 2.81 - 8 - 2 - 8 GB
        ("num_workers", "6"),
        ("prefetch_factor", "2"),
    ]


def test_what_cannot_be_made_to_fit_says_so() -> None:
    with pytest.raises(ConfigError, match="Nothing of it can be made to fit: end other programs"):
        require_fit(Machine(total=GB, in_use=GB), DEMAND)


def _machine_files(folder: Path, groups: str) -> dict[str, Path]:
    (folder / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 600 kB\n", encoding="ascii")
    (folder / "groups").write_text(groups, encoding="ascii")
    (folder / "cg" / "slice" / "job").mkdir(parents=True)
    return {"meminfo": folder / "meminfo", "own_groups": folder / "groups", "cgroup_dir": folder / "cg"}


def test_the_machine_counts_where_no_group_limits(tmp_path: Path) -> None:
    files = _machine_files(tmp_path, "0::/slice/job\n")
    (tmp_path / "cg" / "slice" / "job" / "memory.max").write_text("max\n", encoding="ascii")
    assert measure_machine(**files) == Machine(total=1000 * 1024, in_use=400 * 1024)


def test_the_limit_of_a_group_above_counts_without_its_cached_files(tmp_path: Path) -> None:
    files = _machine_files(tmp_path, "0::/slice/job\n")
    above = tmp_path / "cg" / "slice"
    for name, text in {
        "memory.max": "512000",
        "memory.current": "300000",
        "memory.stat": "inactive_file 100000",
    }.items():
        (above / name).write_text(f"{text}\n", encoding="ascii")
    assert measure_machine(**files) == Machine(total=512000, in_use=200000)


def test_control_groups_of_version_1_count_too(tmp_path: Path) -> None:
    files = _machine_files(tmp_path, "5:cpu:/x\n4:memory:/job\n")
    own = tmp_path / "cg" / "memory" / "job"
    own.mkdir(parents=True)
    (own / "memory.limit_in_bytes").write_text("400000\n", encoding="ascii")
    (own / "memory.usage_in_bytes").write_text("100000\n", encoding="ascii")
    assert measure_machine(**files) == Machine(total=400000, in_use=100000)


def test_a_system_without_control_groups_is_measured(tmp_path: Path) -> None:
    files = _machine_files(tmp_path, "")
    files["own_groups"].unlink()
    assert measure_machine(**files).total == 1000 * 1024


def test_this_machine_is_measured() -> None:
    machine = measure_machine()
    assert 0 < machine.in_use < machine.total
