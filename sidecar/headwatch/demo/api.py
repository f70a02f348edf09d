"""A small client of the sidecar's read-only HTTP port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import httpx

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIMEOUT_SECONDS = 30.0


class SidecarApi:
    """Reads ``/api/v1/…`` and ``/metrics`` of one sidecar."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=address, timeout=_TIMEOUT_SECONDS, trust_env=False)

    def get(self, path: str, **parameters: str | int) -> Any:
        """Return the JSON document at ``/api/v1/{path}``.

        Raises:
            CommandError: The sidecar cannot be reached, or does not answer with 200.
        """
        return self._get(f"/api/v1/{path}", parameters).json()

    def scrape(self) -> list[tuple[str, float]]:
        """Return the samples of ``/metrics`` as (series, value); a series is a name with its labels.

        Raises:
            CommandError: As :meth:`get`.
        """
        lines = self._get("/metrics", {}).text.splitlines()
        # Text exposition: `name{labels} value`, and no timestamps are written.
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return [(series, float(value)) for series, _, value in samples]

    def _get(self, path: str, parameters: dict[str, str | int]) -> httpx.Response:
        try:
            response = self._client.get(path, params=parameters)
        except httpx.TransportError as error:
            raise CommandError(f"the sidecar cannot be reached at {self._client.base_url}: {error!r}") from error
        if response.status_code != httpx.codes.OK:
            raise CommandError(f"the sidecar answered {response.status_code} to {path}: {response.text[:500]}")
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def total(samples: Iterable[tuple[str, float]], name: str) -> float:
    """Return the sum of all series of the metric *name*."""
    return sum(value for series, value in samples if series.partition("{")[0] == name)
