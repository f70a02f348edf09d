"""The demo's client: chat completions over HTTP, a few at a time, as any user of the OpenAI API sends them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.demo.prompts import DemoRequest

CONCURRENCY = 4
_TIMEOUT_SECONDS = 300.0


def send_requests(
    address: str,
    model: str,
    requests: Sequence[DemoRequest],
    on_answer: Callable[[DemoRequest, str], None] = lambda *_: None,
    *,
    concurrency: int = CONCURRENCY,
) -> None:
    """Send *requests* to the OpenAI server at *address*, *concurrency* at a time, and wait for all answers.

    *on_answer* is told each request and the text that came back, in the order in which they end.

    Raises:
        CommandError: The server cannot be reached, or refuses a request; the rest is given up.
    """
    asyncio.run(_send_all(address, model, requests, on_answer, concurrency))


async def _send_all(
    address: str,
    model: str,
    requests: Sequence[DemoRequest],
    on_answer: Callable[[DemoRequest, str], None],
    concurrency: int,
) -> None:
    free = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(base_url=address, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:

        async def send(request: DemoRequest) -> None:
            async with free:
                on_answer(request, await _complete(client, model, request))

        try:
            async with asyncio.TaskGroup() as group:
                for request in requests:
                    group.create_task(send(request))
        except* CommandError as errors:
            raise errors.exceptions[0] from None


async def _complete(client: httpx.AsyncClient, model: str, request: DemoRequest) -> str:
    try:
        response = await client.post("/v1/chat/completions", json=request.body(model))
    except httpx.TransportError as error:
        raise CommandError(f"vLLM cannot be reached at {client.base_url}: {error!r}") from error
    if response.status_code != httpx.codes.OK:
        raise CommandError(f"vLLM answered {response.status_code} to {request.question.text!r}: {response.text[:500]}")
    return str(response.json()["choices"][0]["message"]["content"] or "")
