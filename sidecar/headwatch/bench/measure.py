"""What is measured of an engine: steps of decoding, switched between every few of them, and whole requests.

*Decoding.*  A batch of requests is prefilled, and then every turn of a cycle is eight steps with one arm put in.  The same
requests, the same pages of the cache, a fraction of a second apart: this is where a difference of one percent can be seen,
and where capture costs most, since nearly all rows are decode rows.  Eight steps, because at the default stride a sampled
request has exactly one sampled row in any eight.

*Whole requests.*  Each turn is a batch of requests of its own that lives in one arm from its arrival to its last token: the
front end's hook, the admission, the prefill and the last frame are in it.  Times to first token come from here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.arms import PLAIN, request_id
from headwatch.bench.schedule import cycle
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headwatch.bench.arms import Switch
    from headwatch.bench.engine import Engine
    from headwatch.bench.prompts import PromptMaker

TURN_STEPS = 8
MARGIN_TOKENS = 32
"""Tokens beyond those of the turns: the first requests of a batch decode while the last are prefilled."""


@dataclass(frozen=True, slots=True)
class DecodeCycle:
    """One cycle of decoding at one batch size."""

    batch: int
    steps: dict[str, NDArray[np.float64]]
    """Seconds of each of the steps of an arm: at this batch size, the time between two tokens of every request."""

    def speed(self, arm: str) -> float:
        """Return tokens a second of *arm*."""
        return self.batch * len(self.steps[arm]) / float(self.steps[arm].sum())


@dataclass(frozen=True, slots=True)
class RequestCycle:
    """One cycle of whole requests at one batch size."""

    batch: int
    first_token: dict[str, NDArray[np.float64]]
    """Seconds from a request's arrival to its first token."""
    tokens: dict[str, int]
    seconds: dict[str, float]
    """From the arrival of a batch to its last token, both turns together."""

    def speed(self, arm: str) -> float:
        """Return tokens a second of *arm*, prefill included."""
        return self.tokens[arm] / self.seconds[arm]


def decode(
    engine: Engine, switch: Switch, prompts: PromptMaker, arms: Sequence[str], *, batch: int, cycles: int, group: int,
    turn_steps: int = TURN_STEPS,
) -> Iterator[DecodeCycle]:  # fmt: skip
    """Yield *cycles* cycles over one batch of requests, the one with text number *group*."""
    turns = 2 * len(arms) * cycles
    switch.put_everyone()
    running = set(engine.add(prompts.batch(batch, group), max_tokens=turns * turn_steps + MARGIN_TOKENS))
    waiting = set(running)
    while waiting:  # until each has its first token: from then on a step gives one token to each
        waiting -= {token.request_id for token in engine.step()}
    engine.step()
    for number in range(cycles):
        times: dict[str, list[float]] = {arm: [] for arm in arms}
        for arm in cycle(arms, group * 1000 + number):
            switch.put(arm)
            for _ in range(turn_steps):
                started = time.perf_counter()
                tokens = engine.step()
                times[arm].append(time.perf_counter() - started)
                if len(tokens) != batch:
                    raise CommandError(f"a step gave {len(tokens)} tokens to {batch} requests; the engine's scheduler waits")
        yield DecodeCycle(batch, {arm: np.array(seconds) for arm, seconds in times.items()})
    switch.put_everyone()
    engine.finish()
    switch.put(PLAIN)


def whole_requests(
    engine: Engine, switch: Switch, prompts: PromptMaker, arms: Sequence[str], *, batch: int, number: int, max_tokens: int
) -> RequestCycle:
    """Return cycle *number* of batches that each live in one arm."""
    first: dict[str, list[float]] = {arm: [] for arm in arms}
    seconds = dict.fromkeys(arms, 0.0)
    counted = dict.fromkeys(arms, 0)
    for turn, arm in enumerate(cycle(arms, number)):
        place = 2 * number + (turn >= len(arms))  # of this arm's turns
        ids = [request_id(arm, place * batch + item) for item in range(batch)]
        sent = prompts.batch(batch, place)
        switch.put(arm)
        started = time.perf_counter()
        engine.add(sent, max_tokens, ids)
        tokens = engine.run_dry()
        seconds[arm] += tokens[-1].seconds - started
        counted[arm] += len(tokens)
        seen: set[str] = set()
        for token in tokens:
            if token.request_id not in seen:
                seen.add(token.request_id)
                first[arm].append(token.seconds - started)
        switch.put_everyone()
        engine.finish()
    switch.put(PLAIN)
    return RequestCycle(batch, {arm: np.array(values) for arm, values in first.items()}, counted, seconds)
