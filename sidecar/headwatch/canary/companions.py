"""Company for canaries while a fingerprint is pinned in a 16-bit dtype: what shares a batch with a prompt changes its rounding.

Engines choose other kernels and other orders of summation for other batches, so the noise of an idle server says nothing of a
busy one.  While companions are out, small requests of changing length run beside the canaries.  They are marked as canaries
that are not captured: they enter no statistics, read nothing from the prefix cache and use up no allowance.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Self

from headwatch.canary.prompts import CanaryPrompt, Message
from headwatch.errors import CanaryError

if TYPE_CHECKING:
    from headwatch.canary.client import CanaryClient

COMPANIONS = 4
_WORDS = ("harbour", "opens", "at", "seven", "and", "the", "last", "boat", "leaves", "before", "tide", "turns", "near", "mill")
_MOST_WORDS = 120
_MOST_TOKENS = 24


class Companions:
    """Sends small requests on a few threads while the block lasts."""

    def __init__(self, client: CanaryClient, model: str, seed: int, count: int = COMPANIONS) -> None:
        self._client = client  # httpx clients are safe from threads
        self._model = model
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(seed * count + number,), name="headwatch-companion", daemon=True)
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()  # bounded by the client's own timeout

    def _run(self, seed: int) -> None:
        chosen = random.Random(seed)  # noqa: S311 - lengths of fillers
        while not self._ended.is_set():
            text = " ".join(chosen.choices(_WORDS, k=chosen.randint(1, _MOST_WORDS)))
            prompt = CanaryPrompt("companion", (Message("user", text),))
            try:
                self._client.fill(prompt, self._model, chosen.randint(1, _MOST_TOKENS))
            except CanaryError:  # the canaries themselves will say what is wrong
                return
