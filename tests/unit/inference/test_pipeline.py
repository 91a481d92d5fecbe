import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pillsnap.errors import BrokenImageError, CheckpointError, ConfigError
from pillsnap.inference import pipeline as pipeline_module
from pillsnap.inference.engines import DetectorEngine
from pillsnap.inference.pipeline import Pipeline, predict_pipeline
from tests.unit.inference.builders import (
    GREEN_BOX,
    INFERENCE,
    MODEL,
    RED_BOX,
    FixedDetector,
    colour_calibration,
    colour_pipeline,
    input_box,
    painted_picture,
    pill_picture,
    write_experiment,
)

BOTH = [input_box(GREEN_BOX, 0.9), input_box(RED_BOX, 0.6)]


@pytest.mark.req("INF-1", "TRN-1")
def test_single_classifies_the_whole_picture() -> None:
    pipeline, _ = colour_pipeline([])
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 1] = 255
    answer = pipeline.predict(image)
    [pill] = answer["pills"]
    assert (pill["code"], pill["name"], pill["box_xyxy"]) == ("K-000002", "Green", None)
    assert pill["confidence"] > 0.99
    assert [one["code"] for one in pill["top5"]] == ["K-000002", "K-000001", "K-000003"]
    assert (answer["mode_used"], answer["image_size_wh"]) == ("single", [40, 40])


@pytest.mark.req("INF-1")
def test_combo_names_each_pill_at_its_place() -> None:
    pipeline, _ = colour_pipeline(BOTH)
    pills = pipeline.predict(painted_picture(), mode="combo")["pills"]
    assert [(pill["code"], pill["name"]) for pill in pills] == [("K-000002", "Green"), ("K-000001", "빨간약")]
    assert [pill["detection_confidence"] for pill in pills] == pytest.approx([0.9, 0.6])
    assert pills[0]["box_xyxy"] == pytest.approx(GREEN_BOX, abs=1.2)  # a pixel of the input is 2.3 of the picture
    assert pills[1]["box_xyxy"] == pytest.approx(RED_BOX, abs=1.2)


@pytest.mark.req("INF-1")
def test_all_crops_of_a_picture_go_through_the_classifier_at_once() -> None:
    pipeline, classifier = colour_pipeline(BOTH)
    pipeline.predict(painted_picture(), mode="combo")
    assert classifier.batch_sizes == [2]


def test_a_picture_without_pills_has_an_empty_answer() -> None:
    pipeline, classifier = colour_pipeline([input_box(RED_BOX, 0.1)])
    assert pipeline.predict(painted_picture(), mode="combo")["pills"] == []
    assert classifier.batch_sizes == []


def test_the_threshold_of_the_call_wins() -> None:
    pipeline, _ = colour_pipeline(BOTH)
    assert len(pipeline.predict(painted_picture(), "combo", 0.7)["pills"]) == 1


def test_a_box_in_the_grey_margin_is_no_pill() -> None:
    pipeline, _ = colour_pipeline([[10, 2, 50, 15, 0.9]])  # the picture begins at row 21 of the input
    assert pipeline.predict(painted_picture(), mode="combo")["pills"] == []


@pytest.mark.req("INF-1")
def test_detect_answers_pictures_of_different_sizes_in_one_batch() -> None:
    pipeline, _ = colour_pipeline([[0, 0, 64, 64, 0.9]])
    small, large = pipeline.detect([np.zeros((64, 64, 3), np.uint8), np.zeros((256, 256, 3), np.uint8)])
    assert small.boxes_xyxy.tolist() == [[0, 0, 32, 32]]
    assert large.boxes_xyxy.tolist() == [[0, 0, 128, 128]]
    assert pipeline.detect([]) == []


@pytest.mark.req("MEA-1")
def test_an_answer_is_plain_data_with_times() -> None:
    pipeline, _ = colour_pipeline(BOTH)
    answer = json.loads(json.dumps(pipeline.predict(painted_picture(), mode="combo")))
    times = answer["elapsed_ms"]
    assert sorted(times) == ["classify", "decode", "detect", "total"]
    assert times["total"] >= times["classify"] + times["decode"] + times["detect"] > 0


def test_a_file_and_its_pixels_have_the_same_answer(tmp_path: Path) -> None:
    pipeline, _ = colour_pipeline(BOTH)
    path = tmp_path / "내 사진.png"
    Image.fromarray(painted_picture()).save(path)
    answers = [pipeline.predict(image, mode="combo")["pills"] for image in (path, str(path), painted_picture())]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.req("INF-1")
@pytest.mark.parametrize("mode", ["automatic", "Combo", ""])
def test_another_mode_lists_the_choices(mode: str) -> None:
    with pytest.raises(ConfigError, match=rf"mode is '{mode}'\. Choose one of: single, combo, auto\."):
        colour_pipeline([])[0].predict(painted_picture(), mode)


def test_a_threshold_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"conf_threshold is 30\. Give a number from 0 to 1"):
        predict_pipeline(painted_picture(), "combo", 30)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["grey", "float", "alpha", "empty"],
)
def test_an_array_that_is_no_picture_is_refused(image: Any) -> None:
    with pytest.raises(BrokenImageError, match=r"uint8 \(height, width, 3\) in RGB order was wanted"):
        colour_pipeline([])[0].predict(image)


@pytest.fixture
def detector_loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files detectors were loaded from, so far."""
    files: list[Path] = []

    def load_detector(_: object, path: Path, __: object) -> DetectorEngine:
        files.append(path)
        return DetectorEngine(FixedDetector(BOTH), 128)

    monkeypatch.setattr(pipeline_module, "load_detector", load_detector)
    return files


@pytest.mark.req("INF-1")
def test_the_detector_is_loaded_once_on_the_first_combo(experiment: Path, detector_loads: list[Path]) -> None:
    pipeline = Pipeline.from_experiment(experiment)
    pipeline.predict(painted_picture())
    assert detector_loads == []
    for _ in range(2):
        pipeline.predict(painted_picture(), mode="combo")
    assert detector_loads == [experiment / "checkpoints" / "detection_best.pt"]


@pytest.mark.req("INF-1")
def test_the_detector_is_loaded_at_once_when_configured(tmp_path: Path, detector_loads: list[Path]) -> None:
    snapshot = {"model": dict(MODEL), "inference": {**INFERENCE, "lazy_load_detector": False}}
    Pipeline.from_experiment(write_experiment(tmp_path / "exp", config_snapshot=snapshot))
    assert len(detector_loads) == 1


@pytest.mark.req("INF-1")
def test_an_experiment_answers_both_modes_with_its_real_models(experiment: Path) -> None:
    pipeline = Pipeline.from_experiment(experiment)
    assert len(pipeline.predict(painted_picture())["pills"]) == 1
    assert 1 <= len(pipeline.predict(painted_picture(), "combo", 0.0)["pills"]) <= 7


@pytest.mark.req("CFG-1")
def test_an_experiment_brings_its_own_settings(experiment: Path) -> None:
    settings = Pipeline.from_experiment(experiment).settings
    assert (settings.conf_threshold, settings.iou_threshold) == (0.25, 0.4)
    assert (settings.max_detections, settings.crop_padding) == (7, 0.2)


def test_without_a_detector_combo_says_what_is_missing(tmp_path: Path) -> None:
    pipeline = Pipeline.from_experiment(write_experiment(tmp_path / "exp", with_detector=False))
    assert len(pipeline.predict(painted_picture())["pills"]) == 1
    with pytest.raises(CheckpointError, match=r"detection_best\.pt does not exist.*train\.tasks=\[detection\]"):
        pipeline.predict(painted_picture(), mode="combo")


@pytest.mark.req("TRN-1")
def test_predict_pipeline_keeps_its_models_until_they_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    load = Pipeline.from_experiment

    def counted(exp_dir: Path) -> Pipeline:
        loads.append(exp_dir)
        return load(exp_dir)

    monkeypatch.setattr(Pipeline, "from_experiment", counted)
    exp_dir = write_experiment(tmp_path / "exp", with_detector=False)
    first = predict_pipeline(painted_picture(), exp_dir=exp_dir)
    assert predict_pipeline(painted_picture(), exp_dir=str(exp_dir))["pills"] == first["pills"]
    assert len(loads) == 1
    os.utime(exp_dir / "checkpoints" / "best.pt", ns=(1, 1))
    predict_pipeline(painted_picture(), exp_dir=exp_dir)
    assert len(loads) == 2


@pytest.mark.req("CLI-1")
def test_predict_pipeline_takes_the_experiment_of_the_configuration(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path("config.yaml").resolve()
    (tmp_path / "config.yaml").write_text(f"extends: {base}\npaths:\n  exp_dir: {experiment}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert pipeline_module.default_exp_dir() == experiment
    assert len(predict_pipeline(painted_picture())["pills"]) == 1


@pytest.mark.req("FIN-3")
def test_without_a_calibration_nothing_is_refused() -> None:
    answer = colour_pipeline([])[0].predict(pill_picture((220, 30, 30)))
    assert (answer["pills"][0]["is_unknown"], answer["pills"][0]["accept_score"]) == (None, None)


@pytest.mark.req("FIN-3")
def test_a_pill_like_the_training_pills_gets_its_name() -> None:
    [pill] = colour_pipeline([], colour_calibration())[0].predict(pill_picture((220, 30, 30)))["pills"]
    assert (pill["code"], pill["name"], pill["is_unknown"]) == ("K-000001", "빨간약", False)
    assert pill["accept_score"] is not None
    assert pill["accept_score"] > 0.5


@pytest.mark.req("FIN-3")
@pytest.mark.parametrize("size_wh", [(90, 20), (100, 100)], ids=["another shape", "another size"])
def test_a_pill_of_the_same_colour_that_looks_different_is_unknown(size_wh: tuple[int, int]) -> None:
    [pill] = colour_pipeline([], colour_calibration())[0].predict(pill_picture((220, 30, 30), size_wh))["pills"]
    assert (pill["code"], pill["name"], pill["is_unknown"]) == ("unknown", None, True)
    assert (pill["top5"][0]["code"], pill["top5"][0]["confidence"]) == ("K-000001", pill["confidence"])


@pytest.mark.req("FIN-3", "INF-1")
def test_each_pill_of_a_combination_is_refused_by_itself() -> None:
    image = np.full((200, 300, 3), 245, np.uint8)
    image[40:80, 25:65] = (220, 30, 30)
    image[125:145, 195:285] = (30, 200, 30)
    boxes = [input_box([25, 40, 65, 80], 0.9), input_box([195, 125, 285, 145], 0.8)]
    pills = colour_pipeline(boxes, colour_calibration())[0].predict(image, "combo")["pills"]
    assert [pill["code"] for pill in pills] == ["K-000001", "unknown"]


@pytest.mark.req("VAL-1")
def test_a_temperature_changes_confidences_and_no_order() -> None:
    picture = pill_picture((140, 120, 110))
    plain, warm = (
        colour_pipeline([], colour_calibration(temperature=value))[0].predict(picture)["pills"][0] for value in (1, 3)
    )
    assert warm["confidence"] < plain["confidence"]
    assert [one["code"] for one in warm["top5"]] == [one["code"] for one in plain["top5"]]


@pytest.mark.req("DAT-6", "INF-1")
def test_auto_reads_one_pill_as_a_whole() -> None:
    red = pill_picture((220, 30, 30))
    answer = colour_pipeline([[51, 51, 77, 77, 0.9]])[0].predict(red, "auto")
    assert (answer["mode_used"], answer["fallback_reason"]) == ("single", None)
    assert answer["gating_score"] == 0.0
    assert answer["single_confidence"] == answer["pills"][0]["confidence"]


@pytest.mark.req("DAT-6", "INF-1")
def test_auto_reads_several_pills_one_by_one() -> None:
    answer = colour_pipeline(BOTH)[0].predict(painted_picture(), "auto")
    assert (answer["mode_used"], answer["fallback_reason"]) == ("combo", "multi_object_hint")
    assert answer["gating_score"] == pytest.approx(0.6)
    assert [pill["code"] for pill in answer["pills"]] == ["K-000002", "K-000001"]
    assert 0 < (answer["single_confidence"] or 0) < 1


@pytest.mark.req("DAT-6", "FIN-3")
def test_auto_looks_closer_where_the_whole_picture_is_refused() -> None:
    pipeline, _ = colour_pipeline([[0, 0, 128, 128, 0.9]], colour_calibration(threshold=2.0))
    answer = pipeline.predict(pill_picture((220, 30, 30)), "auto")
    assert (answer["mode_used"], answer["fallback_reason"]) == ("combo", "low_confidence")


@pytest.mark.req("DAT-6")
def test_who_asks_for_combo_is_noted() -> None:
    answer = colour_pipeline(BOTH)[0].predict(painted_picture(), "combo")
    assert (answer["fallback_reason"], answer["gating_score"], answer["single_confidence"]) == (
        "manual_combo",
        None,
        None,
    )


@pytest.mark.req("FIN-3")
def test_an_experiment_brings_its_calibration(tmp_path: Path) -> None:
    exp_dir = write_experiment(tmp_path / "exp", with_detector=False)
    colour_calibration(threshold=2.0).save(exp_dir, exp_dir / "checkpoints" / "best.pt")
    [pill] = Pipeline.from_experiment(exp_dir).predict(painted_picture())["pills"]
    assert (pill["code"], pill["is_unknown"]) == ("unknown", True)
