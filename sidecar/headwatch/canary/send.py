"""One canary run: every prompt is sent, and its rows are waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.canary.client import TIMED_OUT, UNREACHABLE, CanaryClient
from headwatch.canary.companions import Companions
from headwatch.canary.signature import Run, Signature
from headwatch.errors import CanaryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.canary.collector import Collector
    from headwatch.canary.prompts import PromptSet

_AWAY = frozenset({UNREACHABLE, TIMED_OUT})
ROWS_SECONDS = 10.0
"""How long rows may come after the server has answered: they leave the worker by a queue of their own."""


def send_all(
    client: CanaryClient, collector: Collector, prompts: PromptSet, now_ns: Callable[[], int], *, company: int = 0,
    rows_seconds: float = ROWS_SECONDS, stopped: Callable[[], bool] = lambda: False,
) -> Run:
    """Return what one run of *prompts* saw; a prompt that could not be sent or read is among its failures.

    One prompt after the other: headwatch alone never makes a batch of two, but in *company*: that of so many companions.
    Where one finds the server away, the rest is not tried.
    """
    signatures: dict[str, Signature] = {}
    failures: dict[str, str] = {}
    reasons: list[str] = []
    away = False
    try:
        model = client.model()
    except CanaryError as error:
        failures = {item.name: str(error) for item in prompts.prompt}
        return Run(now_ns(), {}, failures, error.reason, away=error.reason in _AWAY)
    with Companions(client, model, now_ns(), company):
        for prompt in prompts.prompt:
            if stopped():
                failures[prompt.name] = "stopped"
                reasons.append("stopped")
                continue
            try:
                request_id = client.send(prompt, model)
            except CanaryError as error:
                failures[prompt.name] = str(error)
                reasons.append(error.reason)
                if error.reason in _AWAY:
                    away = True
                    failures |= {item.name: str(error) for item in prompts.prompt if item.name not in signatures}
                    break
                continue
            found = collector.take(request_id, rows_seconds)
            if isinstance(found, Signature):
                signatures[prompt.name] = found
            else:
                failures[prompt.name] = found
                reasons.append("rows")
    return Run(now_ns(), signatures, failures, reasons[0] if reasons else "", away=away)
