import ssl
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from pillsnap.errors import ModelError
from pillsnap.models.classifier_efficientnetv2_s import build_classification_model, classifier_input

TINY = "resnet10t"


def answer_hub_probe(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Make the hub look as if asking it ended in `error`, with nothing in the local cache."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)


def http_error(code: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("https://hub", code, "no", Message(), None)


@pytest.mark.req("ADR-2", "TRN-1")
def test_the_model_has_one_output_a_class() -> None:
    model = build_classification_model("mobilenetv3_small_050", 7, channels_last=False, pretrained=False).eval()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.req("ADR-2")
def test_the_specified_backbone_is_known_with_its_own_input() -> None:
    model = timm.create_model("tf_efficientnetv2_s.in21k_ft_in1k", num_classes=2)
    spec = classifier_input(model, None, "letterbox")
    assert (spec.size_px, spec.mean, spec.std) == (384, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.req("PRC-3")
@pytest.mark.parametrize("channels_last", [True, False])
def test_channels_last_lays_out_the_convolutions(channels_last: bool) -> None:
    model = build_classification_model(TINY, 3, channels_last, pretrained=False)
    weight = model.get_parameter("conv1.3.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_a_misspelt_backbone_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(ModelError, match=r"'tf_eficientnetv2_s', which timm .* Nearest names: tf_efficientnetv2_s,"):
        build_classification_model("tf_eficientnetv2_s", 3, channels_last=False)


def test_an_unknown_tag_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ModelError, match=r"Nearest names: resnet10t\.c3_in1k\."):
        build_classification_model("resnet10t.c3_in1", 3, channels_last=False)


def test_a_backbone_without_published_weights_says_so() -> None:
    with pytest.raises(ModelError, match="'efficientnetv2_s' has no published weights"):
        build_classification_model("efficientnetv2_s", 3, channels_last=False)


@pytest.mark.req("PRC-7")
@pytest.mark.parametrize(
    "error",
    [urllib.error.URLError("Name or service not known"), TimeoutError("timed out"), http_error(503)],
    ids=["no name", "time-out", "down"],
)
def test_an_unreachable_hub_names_the_two_ways_out(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    answer_hub_probe(monkeypatch, error)
    with pytest.raises(ModelError, match=r"model\.weights=/path/to/file .* model\.pretrained=false"):
        build_classification_model(TINY, 3, channels_last=False)


@pytest.mark.req("PRC-7")
@pytest.mark.parametrize(
    "answer",
    [http_error(404), urllib.error.URLError(ssl.SSLError("certificate verify failed"))],
    ids=["no such file", "certificates of its own"],
)
def test_a_hub_that_answers_is_left_to_its_client(monkeypatch: pytest.MonkeyPatch, answer: Exception) -> None:
    def broken_download(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("connection lost half way")

    answer_hub_probe(monkeypatch, answer)
    monkeypatch.setattr(timm, "create_model", broken_download)
    with pytest.raises(ModelError, match=r"cannot be fetched \(connection lost half way\)"):
        build_classification_model(TINY, 3, channels_last=False)


@pytest.mark.req("PRC-7")
def test_weights_in_the_hubs_cache_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def create(_: str, **options: Any) -> torch.nn.Module:
        asked.append(options)
        return torch.nn.Identity()

    answer_hub_probe(monkeypatch, TimeoutError("timed out"))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "/cache/model")
    monkeypatch.setattr(timm, "create_model", create)
    build_classification_model(TINY, 3, channels_last=False)
    assert asked == [{"pretrained": True, "num_classes": 3}]


@pytest.mark.req("PRC-7")
def test_local_weights_replace_the_hub(tmp_path: Path) -> None:
    source = build_classification_model(TINY, 5, channels_last=False, pretrained=False)
    torch.save(source.state_dict(), tmp_path / "backbone.pth")
    model = build_classification_model(TINY, 3, channels_last=False, weights=str(tmp_path / "backbone.pth"))
    assert torch.equal(model.get_parameter("conv1.0.weight"), source.get_parameter("conv1.0.weight"))
    assert model.get_parameter("fc.weight").shape == (3, 512)


@pytest.mark.req("PRC-7")
def test_local_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    other = build_classification_model("mobilenetv3_small_050", 3, channels_last=False, pretrained=False)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(ModelError, match="belong to another model"):
        build_classification_model(TINY, 3, channels_last=False, weights=str(tmp_path / "other.pth"))


def test_a_model_of_one_size_refuses_another() -> None:
    model = timm.create_model("test_vit", num_classes=2)
    with pytest.raises(ModelError, match=r"image_size is 224; test_vit accepts only 160\. Set model\.image_size=160"):
        classifier_input(model, 224, "letterbox")
