"""One call of the sidecar's HTTP API, with the standard library: proxies are not used and redirects not followed."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from headwatch.doctor.probe import MAX_BODY_BYTES, check_url
from headwatch.errors import CommandError

TIMEOUT_SECONDS = 10.0


def call(url: str, path: str, body: dict[str, Any] | None = None, token: str = "") -> Any:
    """Return what the sidecar at *url* answers to a GET of *path*, or to a POST where there is a *body*.

    Raises:
        CommandError: Nothing answers there, or it refuses; the message is the sidecar's own.
    """
    check_url(url)
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        payload = None if body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", parts.path.rstrip("/") + path, payload, headers)
        response = connection.getresponse()
        answer = json.loads(response.read(MAX_BODY_BYTES))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise CommandError(f"{url}: no sidecar answers there: {error}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        said = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise CommandError(f"{url}: {said} ({response.status})")
    return answer
