"""The check of what watches over the service: its counters, and the Prometheus that reads them and judges its rules."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pillsnap.gates.evidence import Outcome, not_run, outcome
from pillsnap.gates.service_client import OK, Reply, ServiceClient
from pillsnap.gates.subject import Subject

UPTIME_WINDOW = "7d"
"""Of `uptime_percent`; a service watched for less is judged by what there is."""
PROCESS_COUNTERS = ("process_", "python_")
"""These move whether anybody asks or not."""
NEVER = "0001-"
"""Prometheus writes the year 1 for a rule that it has not come to yet."""


def automated_monitoring(subject: Subject) -> Outcome:
    """The service's counters move with its requests, Prometheus reads them, and it evaluates its alert rules."""
    options = subject.options
    if options.api_url is None or options.prometheus_url is None:
        return not_run("the service and its Prometheus are needed: give both with --api-url and --prometheus-url")
    client, prometheus = ServiceClient(options.api_url, options.api_key), ServiceClient(options.prometheus_url)
    pictures = subject.val_pictures("single", 1) or subject.val_pictures("combo", 1)
    if not pictures:
        return not_run("the val split holds no picture to ask the service about")
    before = read_counters(client.get("/metrics"))
    status = client.predict_patiently(pictures[0], "single").status
    after = read_counters(client.get("/metrics"))
    moved = [name for name, value in after.items() if value > before.get(name, 0.0)]
    problems = []
    if not after:
        problems.append("/metrics holds no counter that Prometheus' own parser can read")
    elif not moved:
        problems.append(f"no counter of /metrics moved with a request (answered {status})")
    # A counter that came into being with this request is not read yet, so any that moved will do.
    names = dict.fromkeys(name.partition("{")[0] for name in moved)
    source = next((found for name in names if (found := _source_of(prometheus, name)) is not None), None)
    if moved and source is None:
        problems.append(f"Prometheus holds nothing of {moved[0]}: it does not read this service")
    rules = alert_rules(prometheus.get("/api/v1/rules"))
    broken = [name for name, problem in rules.items() if problem is not None]
    if not rules:
        problems.append("Prometheus has no alert rule loaded")
    problems += [f"the alert rule {name} is not evaluated: {rules[name]}" for name in broken]
    uptime = None if source is None else _uptime_percent(prometheus, source)
    content = {"moved": moved, "rules": rules, "uptime_percent": uptime, "uptime_window": UPTIME_WINDOW}
    up = "" if uptime is None else f"; up {uptime:.2f} % of {UPTIME_WINDOW}"
    return outcome(
        not problems,
        "; ".join(problems) or f"{len(moved)} counters moved with a request; {len(rules)} alert rules evaluated{up}",
        value=len(rules) - len(broken),
        wanted=">= 1",
        unit="alert rules evaluated",
        file=subject.write("automated_monitoring", {**content, "problems": problems}),
    )


def read_counters(reply: Reply) -> dict[str, float]:
    """Return the counters of a `/metrics` page by name and labels, such as `requests_total{mode=single}`.

    Empty where it is no such page; counters of the process itself are left out.
    """
    if reply.status != OK:
        return {}
    try:
        families = list(text_string_to_metric_families(reply.body.decode("utf-8")))
    except ValueError:  # the parser's, and that of bytes which are no text
        return {}
    return {
        _counter_name(sample.name, sample.labels): float(sample.value)
        for family in families
        if family.type == "counter" and not family.name.startswith(PROCESS_COUNTERS)
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def _counter_name(name: str, labels: Mapping[str, str]) -> str:
    return f"{name}{{{','.join(f'{key}={value}' for key, value in sorted(labels.items()))}}}"


def alert_rules(reply: Reply) -> dict[str, str | None]:
    """Return the alert rules of Prometheus' `/api/v1/rules` by name: None where one is evaluated, else the trouble."""
    return {str(rule.get("name")): _rule_problem(rule) for rule in _rules(reply) if rule.get("type") == "alerting"}


def _rules(reply: Reply) -> Iterator[Mapping[str, Any]]:
    for group in _listed(_data(reply).get("groups")):
        yield from _listed(group.get("rules"))


def _rule_problem(rule: Mapping[str, Any]) -> str | None:
    if rule.get("health") != "ok":
        return f"its health is {rule.get('health')} ({rule.get('lastError') or 'no error named'})"
    last = str(rule.get("lastEvaluation", ""))
    return None if last and not last.startswith(NEVER) else "Prometheus has not come to it yet"


def _source_of(prometheus: ServiceClient, counter: str) -> dict[str, str] | None:
    """Return job and instance under which Prometheus reads a counter; None where it does not."""
    for series in _query(prometheus, counter):
        labels = series.get("metric")
        if isinstance(labels, Mapping):
            return {name: str(labels[name]) for name in ("job", "instance") if name in labels}
    return None


def _uptime_percent(prometheus: ServiceClient, source: Mapping[str, str]) -> float | None:
    """Return the share of its visits at which Prometheus found the service up, in percent; None where it has none."""
    chosen = ",".join(f'{name}="{value}"' for name, value in source.items())
    for series in _query(prometheus, f"avg_over_time(up{{{chosen}}}[{UPTIME_WINDOW}])"):
        try:
            share = float(series["value"][1])
        except (KeyError, IndexError, TypeError, ValueError):
            continue
        return 100 * share if math.isfinite(share) else None
    return None


def _query(prometheus: ServiceClient, query: str) -> list[Mapping[str, Any]]:
    return _listed(_data(prometheus.get(f"/api/v1/query?{urllib.parse.urlencode({'query': query})}")).get("result"))


def _data(reply: Reply) -> Mapping[str, Any]:
    data = reply.json().get("data")
    return data if isinstance(data, Mapping) else {}


def _listed(values: object) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []
