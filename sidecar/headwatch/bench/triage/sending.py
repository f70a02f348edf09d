"""Requests over HTTP, so many at a time, in the order in which they were made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.bench.triage.asking import Asked

_TIMEOUT_SECONDS = 300.0


def send(address: str, model: str, requests: Sequence[Asked], concurrency: int) -> None:
    """Send *requests* to the OpenAI server at *address* and return when all are answered.

    Raises:
        CommandError: The server cannot be reached, or refuses a request.
    """
    asyncio.run(_send_all(address, model, requests, concurrency))


async def _send_all(address: str, model: str, requests: Sequence[Asked], concurrency: int) -> None:
    waiting = iter(requests)
    async with httpx.AsyncClient(base_url=address, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:

        async def lane() -> None:
            for request in waiting:
                await _complete(client, model, request)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(lane())
        except* CommandError as errors:
            raise errors.exceptions[0] from None


async def _complete(client: httpx.AsyncClient, model: str, request: Asked) -> None:
    try:
        response = await client.post("/v1/chat/completions", json=request.body(model))
    except httpx.TransportError as error:
        raise CommandError(f"vLLM cannot be reached at {client.base_url}: {error!r}") from error
    if response.status_code != httpx.codes.OK:
        raise CommandError(f"vLLM answered {response.status_code} to {request.question!r}: {response.text[:500]}")
