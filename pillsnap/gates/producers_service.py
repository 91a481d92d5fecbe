"""Checks of the service as it is deployed: at its own address and at its public one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pillsnap.gates.evidence import Outcome, not_run, outcome
from pillsnap.gates.service_client import OK, Reply, ServiceClient
from pillsnap.gates.subject import Subject

NUM_REQUESTS = 50
NUM_COMPARED = 5
MAX_P95_MS = 100.0
UNAUTHORIZED = 401
IDENTITY = ("instance", "version")
"""Of the fields of `/health`: which process answers, and what it serves."""


def production_api_deployment(subject: Subject) -> Outcome:
    """The service is healthy, refuses to predict without its key, and answers val pictures as the experiment does."""
    options = subject.options
    if options.api_url is None:
        return not_run("no service was named: give its address with --api-url")
    if not options.api_key:
        return not_run("the service's key was not given: name the variable that holds it with --api-key-env")
    client = ServiceClient(options.api_url, options.api_key)
    problems = []
    if (status := client.get("/health").status) != OK:
        problems.append(f"/health answers {status}, wanted {OK}")
    pictures = _surest_pictures(subject)
    if not pictures:
        return not_run("no answer for a single val picture is recorded, so there is none to ask the service about")
    if (status := client.predict(pictures[0][0], "single", with_key=False).status) != UNAUTHORIZED:
        problems.append(f"/predict without the key answers {status}, wanted {UNAUTHORIZED}")
    replies = [client.predict_patiently(pictures[turn % len(pictures)][0], "single") for turn in range(NUM_REQUESTS)]
    answered = [reply for reply in replies if reply.status == OK]
    if len(answered) < len(replies):
        bad = next(reply.status for reply in replies if reply.status != OK)
        problems.append(f"{len(replies) - len(answered)} of {len(replies)} requests with the key fail, first: {bad}")
    for (path, code), reply in zip(pictures, replies, strict=False):
        if reply.status == OK and (found := _best_code(reply)) != code:
            problems.append(f"{path.name} is answered {found}, the experiment says {code}")
    p95_ms = 1000 * float(np.percentile([reply.seconds for reply in replies], 95))
    if p95_ms > MAX_P95_MS:
        problems.append(f"95 % of the requests take up to {p95_ms:.1f} ms")
    content = {
        "url": options.api_url,
        "requests": len(replies),
        "answered_percent": 100 * len(answered) / len(replies),
        "p50_ms": 1000 * float(np.median([reply.seconds for reply in replies])),
        "p95_ms": p95_ms,
        "problems": problems,
    }
    return outcome(
        not problems,
        "; ".join(problems) or f"healthy, key asked for, {len(replies)} requests answered as the experiment does",
        value=round(p95_ms, 3),
        wanted=f"<= {MAX_P95_MS:g}",
        unit="ms (95th percentile)",
        file=subject.write("production_api_deployment", content),
    )


def _surest_pictures(subject: Subject) -> list[tuple[Path, str]]:
    """Return the single val pictures that were answered most surely, with what the experiment's own model says.

    No tie can change places there, whatever device or runtime the service uses.
    """
    singles = set(subject.val_pictures("single", len(subject.selection)))
    table, root = subject.predictions, Path(subject.cfg.data.root)
    order = np.argsort(-table.confidence, kind="stable").tolist()
    paths = list(dict.fromkeys(root / table.image_path[row] for row in order))
    chosen = [path for path in paths if path in singles][:NUM_COMPARED]
    return [(path, subject.pipeline.predict(path, "single")["pills"][0]["top5"][0]["code"]) for path in chosen]


def _best_code(reply: Reply) -> str | None:
    """Return the most probable drug of an answer, also where it was refused as unknown."""
    pills = reply.json().get("pills")
    if not isinstance(pills, list) or not pills or not isinstance(pills[0], Mapping):
        return None
    candidates = pills[0].get("top5") or [pills[0]]
    first = candidates[0] if isinstance(candidates, list) and isinstance(candidates[0], Mapping) else {}
    return str(first["code"]) if "code" in first else None


def cloudflare_tunnel_setup(subject: Subject) -> Outcome:
    """The service's `/health` is reached through its public address, and it is the same service that answers there."""
    options = subject.options
    if options.api_url is None or options.public_url is None:
        return not_run("the service and its public address are needed: give both with --api-url and --public-url")
    inside, outside = ServiceClient(options.api_url), ServiceClient(options.public_url)
    problems = []
    if not outside.is_secure and not (options.is_public_url_stand_in and outside.is_local):
        problems.append(f"{options.public_url} is not https: keys and pictures would travel in the clear")
    own, public = inside.get("/health"), outside.get("/health")
    if public.status != OK:
        problems.append(f"{options.public_url}/health answers {public.status}, wanted {OK}")
    elif problem := _identity_problem(own.json(), public.json()):
        problems.append(problem)
    kind = "a stand-in on this machine" if options.is_public_url_stand_in else "the public address"
    content = {
        "public_url": options.public_url,
        "is_stand_in": options.is_public_url_stand_in,
        "own": _identity(own.json()),
        "public": _identity(public.json()),
        "ms": 1000 * public.seconds,
        "problems": problems,
    }
    return outcome(
        not problems,
        "; ".join(problems) or f"{kind} leads to the same service, {1000 * public.seconds:.0f} ms for /health",
        value=public.status,
        wanted=f"= {OK}",
        unit="HTTP status",
        file=subject.write("cloudflare_tunnel_setup", content),
    )


def _identity(health: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(health[name]) for name in IDENTITY if name in health}


def _identity_problem(own: Mapping[str, Any], public: Mapping[str, Any]) -> str | None:
    found, wanted = _identity(public), _identity(own)
    if not wanted:
        return f"the service's /health names none of {', '.join(IDENTITY)}: who answers cannot be told"
    return None if found == wanted else f"another service answers there: {found}, wanted {wanted}"
