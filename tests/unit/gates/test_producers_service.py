from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pillsnap.errors import ConfigError, PillError
from pillsnap.evaluation.prediction_table import read_predictions
from pillsnap.gates import producers_service
from pillsnap.gates.evidence import Outcome
from pillsnap.gates.producers_monitoring import alert_rules, automated_monitoring, read_counters
from pillsnap.gates.producers_service import cloudflare_tunnel_setup, production_api_deployment
from pillsnap.gates.service_client import Reply, ServiceClient
from pillsnap.gates.subject import Subject
from pillsnap.jsonfile import read_json
from tests.unit.gates.checked import produced, replace
from tests.unit.gates.stand_ins import KEY, RULE, Prometheus, Service, serving

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


@pytest.fixture
def service(sound_experiment: Path) -> Service:
    """A stand-in that answers the val pictures as the experiment does."""
    subject = Subject(sound_experiment)
    table, root = read_predictions(sound_experiment / "reports" / "predictions_val.arrow"), subject.cfg.data.root
    codes = zip(table.image_path, table.pred_code, strict=True)
    return Service({(Path(root) / path).read_bytes(): code for path, code in codes})


def _deployed(experiment: Path, service: Service, key: str = KEY) -> Outcome:
    with serving(service) as url:
        return produced(production_api_deployment, experiment, api_url=url, api_key=key)


@pytest.mark.req("CRT-2", "OPS-1")
def test_a_service_that_answers_as_the_experiment_does_passes(experiment: Path, service: Service) -> None:
    found = _deployed(experiment, service)
    assert found.status == "passed", found.message
    content = read_json(experiment / str(found.file))
    assert (content["requests"], content["answered_percent"]) == (50, 100)
    assert found.value == pytest.approx(content["p95_ms"], abs=1e-3)


@pytest.mark.req("CRT-2", "OPS-1")
def test_a_service_that_asks_to_wait_is_waited_for(experiment: Path, service: Service) -> None:
    service.busy = 3
    assert _deployed(experiment, service).status == "passed"


@pytest.mark.req("CRT-2", "OPS-1")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"health_status": 503}, "/health answers 503"),
        ({"asks_for_key": False}, "/predict without the key answers 200"),
        ({"predict_status": 500}, "50 of 50 requests with the key fail, first: 500"),
        ({"busy": 60}, "requests with the key fail, first: 429"),
        ({"codes": {}}, "is answered K-000000, the experiment says"),
    ],
    ids=["ill", "open", "failing", "busy for ever", "another model"],
)
def test_a_service_that_is_not_as_it_should_be_fails(
    experiment: Path, service: Service, damage: dict[str, Any], reason: str
) -> None:
    for name, value in damage.items():
        setattr(service, name, value)
    found = _deployed(experiment, service)
    assert found.status == "failed"
    assert reason in found.message


@pytest.mark.req("CRT-2", "OPS-1")
def test_a_service_that_is_slow_fails(experiment: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers_service, "MAX_P95_MS", 1e-6)
    assert "95 % of the requests take up to" in _deployed(experiment, service).message


@pytest.mark.req("CRT-2", "OPS-1")
def test_a_wrong_key_fails(experiment: Path, service: Service) -> None:
    assert "first: 401" in _deployed(experiment, service, key="wrong").message


@pytest.mark.req("CRT-2", "OPS-1")
@pytest.mark.parametrize(
    "producer",
    [production_api_deployment, cloudflare_tunnel_setup, automated_monitoring],
    ids=lambda each: each.__name__,
)
def test_a_service_that_is_down_is_an_error(experiment: Path, producer: Callable[[Subject], Outcome]) -> None:
    with pytest.raises(PillError, match=r"127.0.0.1:9/\w+ does not answer: .*Start the service"):
        produced(producer, experiment, api_url=NOWHERE, api_key=KEY, public_url=NOWHERE, prometheus_url=NOWHERE)


@pytest.mark.req("CRT-2", "OPS-1")
@pytest.mark.parametrize(
    ("producer", "options"),
    [
        (production_api_deployment, {}),
        (production_api_deployment, {"api_url": NOWHERE}),
        (cloudflare_tunnel_setup, {"api_url": NOWHERE}),
        (cloudflare_tunnel_setup, {"public_url": NOWHERE}),
        (automated_monitoring, {"api_url": NOWHERE}),
        (automated_monitoring, {"prometheus_url": NOWHERE}),
    ],
    ids=["no service", "no key", "no public address", "no own address", "no Prometheus", "nothing to watch"],
)
def test_what_was_not_named_is_not_run(
    experiment: Path, producer: Callable[[Subject], Outcome], options: dict[str, str]
) -> None:
    assert produced(producer, experiment, **options).status == "not run"


@pytest.mark.req("CRT-2", "OPS-1")
@pytest.mark.parametrize("producer", [production_api_deployment, automated_monitoring], ids=lambda each: each.__name__)
def test_without_a_val_picture_nothing_can_be_asked(
    experiment: Path, service: Service, producer: Callable[[Subject], Outcome]
) -> None:
    replace(experiment / "selection.csv", b"image_path,mapping_code,image_type,source,split\na,A,single,x,train\n")
    with serving(service) as url:
        assert produced(producer, experiment, api_url=url, api_key=KEY, prometheus_url=url).status == "not run"


def _tunnelled(experiment: Path, inside: Service, outside: Service, *, is_stand_in: bool = True) -> Outcome:
    with serving(inside) as own, serving(outside) as public:
        return produced(
            cloudflare_tunnel_setup, experiment, api_url=own, public_url=public, is_public_url_stand_in=is_stand_in
        )


@pytest.mark.req("CRT-2", "OPS-1")
def test_a_public_address_that_leads_to_the_service_passes(experiment: Path) -> None:
    found = _tunnelled(experiment, Service(), Service())
    assert found.status == "passed", found.message
    assert "a stand-in on this machine" in found.message


@pytest.mark.req("CRT-2", "OPS-1")
@pytest.mark.parametrize(
    ("outside", "is_stand_in", "reason"),
    [
        (Service(), False, "is not https"),
        (Service(health_status=502), True, "/health answers 502"),
        (Service(health={"instance": "two", "version": "0.1.0"}), True, "another service answers there"),
        (Service(health={}), True, "another service answers there"),
    ],
    ids=["in the clear", "ill", "another", "nameless"],
)
def test_a_public_address_that_leads_elsewhere_fails(
    experiment: Path, outside: Service, is_stand_in: bool, reason: str
) -> None:
    found = _tunnelled(experiment, Service(), outside, is_stand_in=is_stand_in)
    assert found.status == "failed"
    assert reason in found.message


@pytest.mark.req("CRT-2", "OPS-1")
def test_a_service_without_a_name_cannot_be_recognised(experiment: Path) -> None:
    found = _tunnelled(experiment, Service(health={}), Service(health={}))
    assert "who answers cannot be told" in found.message


def _monitored(experiment: Path, service: Service, prometheus: Prometheus) -> Outcome:
    with serving(service) as api, serving(prometheus) as watcher:
        return produced(automated_monitoring, experiment, api_url=api, api_key=KEY, prometheus_url=watcher)


@pytest.mark.req("CRT-2", "OPS-1")
def test_counters_that_are_read_and_rules_that_are_evaluated_pass(experiment: Path) -> None:
    found = _monitored(experiment, Service(), Prometheus())
    assert (found.status, found.value) == ("passed", 1), found.message
    content = read_json(experiment / str(found.file))
    assert content["uptime_percent"] == pytest.approx(99.9)
    assert content["moved"] == ["requests_total{mode=single}"]


@pytest.mark.req("CRT-2", "OPS-1")
@pytest.mark.parametrize(
    ("service", "prometheus", "reason"),
    [
        (Service(metrics=lambda registry: b"no metrics page {"), Prometheus(), "/metrics holds no counter"),
        (Service(metrics=lambda registry: b"# TYPE a gauge\na 1\n"), Prometheus(), "/metrics holds no counter"),
        (
            Service(metrics=lambda registry: b"# TYPE a_total counter\na_total 1\n"),
            Prometheus(),
            "no counter of /metrics moved",
        ),
        (Service(), Prometheus(reads="another"), "it does not read this service"),
        (Service(), Prometheus(rules=[]), "no alert rule loaded"),
        (Service(), Prometheus(rules=[{**RULE, "type": "recording"}]), "no alert rule loaded"),
        (Service(), Prometheus(rules=[{**RULE, "health": "err", "lastError": "bad"}]), "its health is err (bad)"),
        (Service(), Prometheus(rules=[{**RULE, "lastEvaluation": "0001-01-01T00:00:00Z"}]), "has not come to it yet"),
    ],
    ids=["no page", "no counters", "still", "not read", "no rules", "no alert rules", "broken", "not evaluated"],
)
def test_monitoring_that_does_not_work_fails(
    experiment: Path, service: Service, prometheus: Prometheus, reason: str
) -> None:
    found = _monitored(experiment, service, prometheus)
    assert found.status == "failed"
    assert reason in found.message


@pytest.mark.req("OPS-1")
@pytest.mark.parametrize("share", ["NaN", "none"])
def test_an_uptime_that_is_no_number_is_none(experiment: Path, share: str) -> None:
    found = _monitored(experiment, Service(), Prometheus(share=share))
    assert read_json(experiment / str(found.file))["uptime_percent"] is None


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b'{"data": 1}', b'{"data": {"groups": [{"rules": 1}]}}'])
def test_an_answer_that_is_not_prometheus_own_has_no_rules(body: bytes) -> None:
    assert alert_rules(Reply(200, body, 0.1)) == {}


def test_a_page_that_is_refused_has_no_counters() -> None:
    assert read_counters(Reply(401, b"# TYPE a_total counter\na_total 1\n", 0.1)) == {}
    assert read_counters(Reply(200, b"\xff", 0.1)) == {}


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "https://", "file:///etc/passwd"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a service"):
        ServiceClient(url)


def test_a_picture_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PillError, match="cannot be read.*Put the data set back"):
        ServiceClient(NOWHERE).predict(tmp_path / "gone.png", "single")


@pytest.mark.req("CRT-2", "OPS-1")
@pytest.mark.parametrize("body", [b"", b"{}", b'{"pills": []}', b'{"pills": [1]}', b'{"pills": [{"top5": [1]}]}'])
def test_an_answer_without_a_drug_is_not_the_experiments(
    experiment: Path, service: Service, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    answer = Service.post
    monkeypatch.setattr(Service, "post", lambda *words: (answer(*words)[0], body))
    assert "is answered None" in _deployed(experiment, service).message
