"""Real HTTP servers in place of the service, of its public address, and of Prometheus."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, generate_latest

KEY = "a-long-key"
RULE = {"type": "alerting", "name": "ServiceDown", "health": "ok", "lastEvaluation": "2026-01-01T00:00:00Z"}


@dataclass
class Service:
    """What a stand-in for the service answers; tests damage it."""

    codes: dict[bytes, str] = field(default_factory=dict)
    """Content of a picture -> the drug it is answered with."""
    health: dict[str, Any] = field(default_factory=lambda: {"instance": "one", "version": "0.1.0"})
    health_status: int = 200
    predict_status: int = 200
    asks_for_key: bool = True
    busy: int = 0
    """So many requests are first answered 429."""
    metrics: Callable[[CollectorRegistry], bytes] = generate_latest
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        """Count requests as a service does, and the seconds of the process, which pass on their own."""
        self.counter = Counter("requests", "answered", ["mode"], registry=self.registry)
        self.seconds = Counter("process_cpu_seconds", "used", registry=self.registry)

    def get(self, path: str) -> tuple[int, bytes]:
        """Answer `/health` and `/metrics`."""
        if path == "/health":
            return self.health_status, json.dumps(self.health).encode()
        self.seconds.inc()
        return 200, self.metrics(self.registry)

    def post(self, body: bytes, key: str | None) -> tuple[int, bytes]:
        """Answer `/predict`."""
        if self.asks_for_key and key != KEY:
            return 401, b"{}"
        if self.busy:
            self.busy -= 1
            return 429, b"{}"
        self.counter.labels(mode="single").inc()
        code = next((code for picture, code in self.codes.items() if picture in body), "K-000000")
        pill = {"code": "unknown", "top5": [{"code": code, "confidence": 0.9}]}
        return self.predict_status, json.dumps({"pills": [pill]}).encode()


@dataclass
class Prometheus:
    """What a stand-in for Prometheus answers; tests damage it."""

    rules: list[dict[str, Any]] = field(default_factory=lambda: [dict(RULE)])
    reads: str = "requests_total"
    share: str = "0.999"

    def get(self, path: str) -> tuple[int, bytes]:
        """Answer `/api/v1/rules` and `/api/v1/query`."""
        data: dict[str, Any] = {"groups": [{"rules": self.rules}, "no group"]}
        if path.startswith("/api/v1/query"):
            labels = {"job": "pillsnap", "instance": "api:8000"}
            result = [{"metric": labels, "value": [0, self.share]}]
            data = {"result": result if "up%7B" in path or f"query={self.reads}" in path else []}
        return 200, json.dumps({"status": "success", "data": data}).encode()

    def post(self, body: bytes, key: str | None) -> tuple[int, bytes]:
        """Refuse."""
        return 405, b""


@contextmanager
def serving(answers: Service | Prometheus) -> Iterator[str]:
    """Serve `answers` on a free port of this machine and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802  # the name is http.server's
            self._reply(*answers.get(self.path))

        def do_POST(self) -> None:  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert urlsplit(self.path).path == "/predict"
            self._reply(*answers.post(body, self.headers.get("X-API-Key")))

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
