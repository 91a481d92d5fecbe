from pathlib import Path
from typing import Any

import pytest
import torch

from pillsnap.data.preprocess import RESIZER
from pillsnap.errors import CheckpointError
from pillsnap.inference.checkpoints import CLASSIFIER_FILE, load_classifier, load_detector, read_checkpoint
from pillsnap.models.classifier_efficientnetv2_s import build_classification_model
from tests.unit.inference.builders import BACKBONE, COLOURS, checkpoint_of, random_classifier, random_detector

CPU = torch.device("cpu")
SPEC = {"size_px": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "resizer": RESIZER, "frame_fit": "center"}
PATH = Path("exp", CLASSIFIER_FILE)


def classifier_checkpoint(**changes: Any) -> dict[str, Any]:
    return checkpoint_of("classification", random_classifier(), **{"classifier_input": SPEC, **changes})


@pytest.mark.req("CKP-1", "DAT-5")
def test_a_classifier_comes_back_as_it_was_saved() -> None:
    engine = load_classifier(classifier_checkpoint(), PATH, CPU)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(engine.model(images), random_classifier()(images))
    assert (engine.class_map, engine.spec.to_dict(), engine.model.training) == (COLOURS, SPEC, False)


@pytest.mark.req("CKP-1")
def test_averaged_weights_are_used_where_there_are_some() -> None:
    averaged = random_classifier(seed=5)
    engine = load_classifier(classifier_checkpoint(ema_state=averaged.state_dict()), PATH, CPU)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(engine.model(images), averaged(images))


@pytest.mark.req("CKP-1")
def test_a_detector_comes_back_as_it_was_saved() -> None:
    engine = load_detector(checkpoint_of("detection", random_detector(), image_size=64), PATH, CPU)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(engine.model(images)[0], random_detector()(images)[0])
    assert (engine.size_px, engine.model.training) == (64, False)


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"best\.pt does not exist.*paths\.exp_dir=.* train\.tasks=\[classific"):
        read_checkpoint(tmp_path / CLASSIFIER_FILE, "classification")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"<html>"], ids=["empty", "cut off", "a web page"])
def test_a_damaged_file_is_named_with_its_size(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"best\.pt \({len(content)} bytes\) is not a readable checkpoint"):
        read_checkpoint(path, "classification")


@pytest.mark.req("CKP-3")
def test_a_file_with_objects_in_it_is_not_read(tmp_path: Path) -> None:
    torch.save({"task": "classification", "model": random_classifier()}, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match="is not a readable checkpoint: Weights only load failed"):
        read_checkpoint(tmp_path / "best.pt", "classification")


@pytest.mark.parametrize(
    ("content", "found"),
    [({"task": "detection"}, "a checkpoint for detection"), ({"w": 1}, "no PillSnap checkpoint"), ([1], "no PillSnap")],
    ids=["other task", "other dictionary", "list"],
)
def test_a_file_of_another_kind_says_what_it_is(tmp_path: Path, content: object, found: str) -> None:
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=f"holds {found}.* one for classification was wanted"):
        read_checkpoint(tmp_path / "best.pt", "classification")


@pytest.mark.parametrize("key", ["class_map", "classifier_input", "config_snapshot", "model_state"])
def test_a_missing_part_is_named(key: str) -> None:
    checkpoint = classifier_checkpoint()
    del checkpoint[key]
    with pytest.raises(CheckpointError, match=rf"best\.pt lacks {key}"):
        load_classifier(checkpoint, PATH, CPU)


@pytest.mark.req("DAT-5")
@pytest.mark.parametrize(
    "changes",
    [{"class_map": {**COLOURS.to_dict(), "codes": ["K-000003", "K-000002", "K-000001"]}}, {"classifier_input": {}}],
    ids=["class map in another order", "empty input"],
)
def test_a_changed_description_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="class map or input description that cannot be used"):
        load_classifier(classifier_checkpoint(**changes), PATH, CPU)


@pytest.mark.req("CKP-2")
def test_weights_of_another_class_count_are_refused() -> None:
    other = build_classification_model(BACKBONE, 9, channels_last=False, pretrained=False)
    with pytest.raises(CheckpointError, match=f"do not fit the {BACKBONE} with 3 classes .*size mismatch"):
        load_classifier(classifier_checkpoint(model_state=other.state_dict()), PATH, CPU)


@pytest.mark.req("CKP-3")
def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "best.pt"
    path.parent.mkdir()
    torch.save({"task": "classification", "model_state": {"weight": torch.ones(64)}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(64).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable checkpoint: the checksum of its part .* differs"):
        read_checkpoint(path, "classification")
