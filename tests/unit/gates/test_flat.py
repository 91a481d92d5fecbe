from typing import Any

import pytest

from pillsnap.gates.flat import find_figure


@pytest.mark.req("ADV-1")
@pytest.mark.parametrize(
    ("results", "name", "expected"),
    [
        ({"detection.mAP_0.5": 0.5}, "detection.mAP_0.5", 0.5),
        ({"detection_mAP_0.5": 0.5}, "detection.mAP_0.5", 0.5),
        ({"detection": {"mAP_0.5": 0.5}}, "detection.mAP_0.5", 0.5),
        ({"classification_accuracy": 0.5}, "classification.accuracy", 0.5),
        ({"gpu_memory_gb": 12}, "system.gpu_memory_gb", 12),
        ({"data_loading_time_s": 4}, "system.data_loading_s", 4),
        ({"accuracy": 0.5}, "classification.accuracy", None),
        ({"inference_time_ms": 5}, "detection.inference_time_ms", None),
        ({"repeated_oom": 2}, "repeated_oom", 2),
        ({"detection": 3}, "detection.recall", None),
        ({}, "detection.recall", None),
    ],
)
def test_a_figure_is_found_under_each_of_its_names(results: dict[str, Any], name: str, expected: object) -> None:
    assert find_figure(results, name) == expected
