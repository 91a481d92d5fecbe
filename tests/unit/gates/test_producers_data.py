from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pillsnap.data.classes import ClassMap
from pillsnap.errors import DataError
from pillsnap.gates.producers_data import class_balance_verification, full_dataset_processing, train_pills
from pillsnap.gates.subject import Subject
from tests.unit.gates.checked import change, produced, replace

HEADER = "image_path,mapping_code,image_type,source,split\n"


@pytest.mark.req("CRT-2")
def test_pills_are_counted_in_single_pictures_and_in_combinations_of_train(experiment: Path) -> None:
    lines = "a,A,single,x,train\nb,A,single,x,train\nc,B,single,x,val\nd,A+B,combo,x,train\ne,A+B,combo,x,test\n"
    replace(experiment / "selection.csv", (HEADER + lines).encode())
    assert train_pills(Subject(experiment).selection) == {"A": 3, "B": 1}


@pytest.mark.req("CRT-2")
def test_even_classes_pass(sound_experiment: Path) -> None:
    found = produced(class_balance_verification, sound_experiment)
    assert found.status == "passed", found.message
    assert found.value == pytest.approx(
        Subject(sound_experiment).run["selection"]["class_balance"]["splits"]["train"]["imbalance_ratio"], abs=1e-4
    )


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    ("pills", "status", "value", "reason"),
    [
        ({"K-000001": 20, "K-000002": 2, "K-000003": 2}, "passed", 10.0, "2 to 20 pills each"),
        ({"K-000001": 21, "K-000002": 2, "K-000003": 2}, "failed", 10.5, "the largest class has 21 pills"),
        ({"K-000001": 5, "K-000002": 5}, "failed", None, "1 classes have no pill in train: K-000003"),
        ({"K-000001": 1, "K-000002": 1, "K-000003": 1}, "failed", 1.0, "3 classes have fewer than 2 pills"),
        ({"K-000001": 5, "K-000002": 5, "K-000003": 5, "K-9": 5}, "failed", 1.0, "not in the class map: K-9"),
    ],
    ids=["at the limit", "above it", "a class without", "few of each", "a stranger"],
)
def test_the_classes_of_train_decide(
    experiment: Path, pills: dict[str, int], status: str, value: float | None, reason: str
) -> None:
    lines = [f"{code}-{number},{code},single,x,train" for code, count in pills.items() for number in range(count)]
    replace(experiment / "selection.csv", (HEADER + "\n".join(lines) + "\n").encode())
    found = produced(class_balance_verification, experiment)
    assert (found.status, found.value) == (status, value)
    assert reason in found.message


@pytest.mark.req("CRT-2")
def test_an_empty_class_map_fails(experiment: Path) -> None:
    ClassMap(()).save(experiment / "class_map.json")
    assert "the class map is empty" in produced(class_balance_verification, experiment).message


@pytest.mark.req("CRT-2")
def test_class_keys_that_cannot_be_told_apart_in_the_selection_are_not_judged(experiment: Path) -> None:
    ClassMap(("A+B", "C")).save(experiment / "class_map.json")
    assert produced(class_balance_verification, experiment).status == "not run"


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    "content", [b"", b"image_path,split\na,train\n", b"\xff\xfe\x00"], ids=["empty", "other", "junk"]
)
def test_a_damaged_selection_is_an_error(experiment: Path, content: bytes) -> None:
    replace(experiment / "selection.csv", content)
    with pytest.raises(DataError, match=r"selection.csv cannot be used.*Copy it back"):
        produced(class_balance_verification, experiment)


@pytest.mark.req("CRT-2")
def test_a_run_over_all_pictures_passes(sound_experiment: Path) -> None:
    found = produced(full_dataset_processing, sound_experiment)
    assert found.status == "passed", found.message
    assert (found.value, found.wanted) == (60, "= 60")


@pytest.mark.req("CRT-2")
@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda run: run["selection"].update(stage=3), "the run was at stage 3"),
        (lambda run: run["data"]["counts"]["train"].update(single=1), "the data set holds 60"),
        (lambda run: run["selection"]["split"].update(digest="x"), "not those of the run any more"),
        (lambda run: run["data"].update(damaged_share=0.02), "2.00% of the pictures are damaged"),
        (lambda run: run["tasks"]["detection"].update(epochs=0), "detection has not seen all of its pictures"),
    ],
    ids=["stage", "pictures left out", "other pictures", "damage", "no epoch"],
)
def test_a_run_over_less_fails(experiment: Path, edit: Callable[[dict[str, Any]], object], reason: str) -> None:
    change(experiment, edit)
    found = produced(full_dataset_processing, experiment)
    assert found.status == "failed"
    assert reason in found.message


@pytest.mark.req("CRT-2")
def test_a_training_that_did_not_end_has_not_processed_the_data_set(experiment: Path) -> None:
    for name in ("manifest.json", "manifest.copy.json"):
        replace(experiment / "checkpoints" / name, b"{}")
    assert "training did not come to its end" in produced(full_dataset_processing, experiment).message
