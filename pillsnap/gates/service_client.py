"""What the checks of a deployed service say to it: HTTP requests with a time limit, and answers as they came."""

from __future__ import annotations

import http.client
import json
import mimetypes
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pillsnap.errors import ConfigError, PillError

TIMEOUT_S = 10.0
KEY_HEADER = "X-API-Key"
UPLOAD_FIELD = "file"
OK = 200
SCHEMES = ("http", "https")
MAX_WAITS = 3
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes
    seconds: float
    """From the request to the last byte."""
    retry_after_s: float | None = None
    """How long the service asks to wait, where it does."""

    def json(self) -> dict[str, Any]:
        """Return the object in the body; an empty one where there is none."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}


@dataclass(frozen=True, slots=True)
class ServiceClient:
    """Asks one service.

    Raises:
        ConfigError: The address is no http or https URL.
    """

    url: str
    """Such as `http://127.0.0.1:8000`."""
    key: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no address."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ConfigError(
                f"{self.url!r} is no address of a service; wanted one like https://host:port. Correct it."
            )

    @property
    def is_secure(self) -> bool:
        """Whether the address is https."""
        return urllib.parse.urlsplit(self.url).scheme == "https"

    @property
    def is_local(self) -> bool:
        """Whether the address is this machine's own."""
        return urllib.parse.urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")

    def get(self, path: str) -> Reply:
        """Ask for `path`; any status is an answer.

        Raises:
            PillError: There is no answer.
        """
        return self._send(urllib.request.Request(self._full(path)))

    def predict(self, picture: Path, mode: str, *, with_key: bool = True) -> Reply:
        """Upload a picture to `/predict`, with the key or without; any status is an answer.

        Raises:
            PillError: There is no answer, or the picture cannot be read.
        """
        try:
            body, content_type = _form(picture)
        except OSError as error:
            raise PillError(f"{picture} cannot be read: {error.strerror}. Put the data set back.") from error
        headers = {"Content-Type": content_type, **({KEY_HEADER: self.key} if with_key else {})}
        return self._send(urllib.request.Request(self._full(f"/predict?mode={mode}"), body, headers))

    def predict_patiently(self, picture: Path, mode: str) -> Reply:
        """As `predict`, but a service that asks to wait (rate limit, full queue) is asked again, some times."""
        for _ in range(MAX_WAITS):
            reply = self.predict(picture, mode)
            if reply.retry_after_s is None:
                return reply
            time.sleep(min(reply.retry_after_s, LONGEST_WAIT_S))
        return self.predict(picture, mode)

    def _full(self, path: str) -> str:
        return self.url.rstrip("/") + path

    def _send(self, request: urllib.request.Request) -> Reply:
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return Reply(int(answer.status), answer.read(), time.perf_counter() - began)
        except urllib.error.HTTPError as error:
            with error:
                wait = str(error.headers.get("Retry-After", ""))
                return Reply(
                    error.code, error.read(), time.perf_counter() - began, float(wait) if wait.isdecimal() else None
                )
        except (OSError, http.client.HTTPException) as error:
            raise PillError(
                f"{request.full_url} does not answer: {getattr(error, 'reason', error)}; wanted an HTTP answer within "
                f"{TIMEOUT_S:g} s. Start the service, or correct its address."
            ) from error


def _form(picture: Path) -> tuple[bytes, str]:
    """Return a picture as the body of a form, and its content type."""
    boundary = uuid.uuid4().hex
    kind = mimetypes.guess_type(picture.name)[0] or "application/octet-stream"
    suffix = picture.suffix if picture.suffix.isascii() else ""
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{UPLOAD_FIELD}"; filename="picture{suffix}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    )
    body = head.encode("ascii") + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode("ascii")
    return body, f"multipart/form-data; boundary={boundary}"
