"""``headwatch bench peers``: the same summaries, got in the ways in which others get them.

Two peers.  One copies queries and keys out of the engine and lets a client process compute (:mod:`peer_copy`,
:mod:`peer_client`); it takes turns with headwatch and plain vLLM inside one engine.  The other asks ``transformers`` for
eager attention weights (:mod:`peer_attentions`), in a process of its own that takes turns with the engine.  All
compute the same features and span masses of the same rows, on the same cores (:mod:`headwatch.bench.cores`), and a turn
ends when the last summary of it is there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.bench.arms import ALL, ALL_TENTH, PLAIN, Switch
from headwatch.bench.child import Child
from headwatch.bench.conditions import Watch
from headwatch.bench.cores import engine_cores
from headwatch.bench.engine import Engine, engine_environment, server_threads
from headwatch.bench.measure import MARGIN_TOKENS
from headwatch.bench.peer_copy import Copier
from headwatch.bench.peer_messages import Generate, Ready, Turn, TurnDone
from headwatch.bench.peers_report import (
    ATTENTIONS,
    ATTENTIONS_TENTH,
    COPY,
    COPY_TENTH,
    TRANSFORMERS,
    PeerCycle,
    PeersReport,
    report_of,
)
from headwatch.bench.prompts import PROMPT_TOKENS, PromptMaker
from headwatch.bench.schedule import cycle
from headwatch.bench.sidecar import running_sidecar
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwatch.bench.prompts import Prompt
    from headwatch.capture.plan.step import SampledRequest
    from headwatch.capture.worker import Capture

    Progress = Callable[[str], None]

ENGINE_ARMS = (PLAIN, ALL, ALL_TENTH, COPY, COPY_TENTH)
MODEL_ARMS = (TRANSFORMERS, ATTENTIONS, ATTENTIONS_TENTH)
STRIDES = {PLAIN: 0, ALL: 1, ALL_TENTH: 10, COPY: 1, COPY_TENTH: 10, TRANSFORMERS: 0, ATTENTIONS: 1, ATTENTIONS_TENTH: 10}
"""Every how many steps of a turn each row is summarised; 0: none."""
TURN_STEPS = 20
"""Two sampled steps at one in ten; long enough that waiting for the client's last summary counts little."""
ANSWER_TOKENS = 128
"""Of a request: a turn of a copying peer is charged for its part of handing the prompt's keys over, 20 in 128."""
SETTLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    groups: dict[int, int]
    """Batch size to batches of requests."""
    cycles: int
    """Cycles over each of them.  transformers, which takes most of the time and is the easier to tell from, is in the first."""
    turn_steps: int = TURN_STEPS
    prompt_tokens: int = PROMPT_TOKENS


QUICK = Plan({1: 2, 4: 2}, 4)
FULL = Plan({1: 3, 4: 2, 16: 1}, 5)


def run(
    model: Path, *, quick: bool, spread: bool = False, progress: Progress = lambda _: None, plan: Plan | None = None
) -> PeersReport:
    """Return how headwatch does beside its peers on this machine, all of them on the engine's cores unless *spread*.

    Raises:
        CommandError: The engine, the sidecar or a peer cannot be had.
    """
    plan = plan or (QUICK if quick else FULL)
    watch, threads = Watch(), str(server_threads())
    cycles: list[PeerCycle] = []
    with (
        engine_cores(spread=spread) as cores,
        running_sidecar() as sidecar,
        engine_environment(HEADWATCH_DISABLE="1", OMP_NUM_THREADS=threads),
    ):
        progress("starting vLLM and transformers")
        with (
            Child("headwatch.bench.peer_attentions", str(model)) as transformers,
            Child("headwatch.bench.peer_client") as client,
        ):
            engine = Engine(model, max_sequences=max(plan.groups))
            try:
                bench = _Bench(engine, Switch(engine, sidecar.endpoint), client, transformers, plan)
                progress("warming up")
                bench.warm_up()
                for batch, count in plan.groups.items():
                    for group in range(count):
                        progress(f"batch of {batch}: {group + 1} of {count}")
                        cycles += bench.group(batch, group, plan.cycles)
                kernel = bench.switch.captures[ALL].kernel.name
                bench.switch.close()
            finally:
                engine.close()
    return report_of(cycles, watch.conditions(model, plan.prompt_tokens, kernel, engine, quick=quick, used_cores=cores))


class _Bench:
    """Everything that takes turns."""

    def __init__(self, engine: Engine, switch: Switch, client: Child, transformers: Child, plan: Plan) -> None:
        self.switch = switch
        self._engine = engine
        self._transformers = transformers
        self._steps = plan.turn_steps
        self._prompts = PromptMaker(engine.tokenizer, plan.prompt_tokens)
        switch.add([ALL, ALL_TENTH])
        capture = switch.captures[ALL]
        self._copiers = {COPY: Copier(capture, client, 1), COPY_TENTH: Copier(capture, client, 10)}
        self._copiers[COPY].say_shape()
        for arm, copier in self._copiers.items():
            switch.add_other(arm, copier, copier.forwards())

    def warm_up(self) -> None:
        """Run every arm once, untimed."""
        for _ in range(2):
            self.group(1, 0, 1)

    def group(self, batch: int, number: int, cycles: int) -> list[PeerCycle]:
        """Return *cycles* cycles over one batch of requests, which every arm decodes on."""
        prompts = self._prompts.batch(batch, number)
        requests = self._start(prompts, cycles)
        self._transformers.ask(_generation(prompts, requests), Ready)
        found = []
        for place in range(cycles):
            arms = ENGINE_ARMS if place else (*ENGINE_ARMS, *MODEL_ARMS)
            seconds = dict.fromkeys(arms, 0.0)
            for arm in cycle(arms, number * 1000 + place):
                seconds[arm] += self._turn(arm, requests)
            tokens = 2 * self._steps * batch
            found.append(PeerCycle(batch, {arm: tokens / spent for arm, spent in seconds.items()}))
        self.switch.put_everyone()
        self._engine.finish()
        self.switch.put(PLAIN)
        return found

    def _start(self, prompts: list[Prompt], cycles: int) -> dict[str, SampledRequest]:
        """Prefill *prompts* in the engine; return what headwatch knows of them, by the engine's request id."""
        self.switch.put_everyone()
        steps = 2 * len(ENGINE_ARMS) * cycles * self._steps
        waiting = set(self._engine.add(prompts, steps + MARGIN_TOKENS))
        while waiting:
            waiting -= {token.request_id for token in self._engine.step()}
        self._engine.step()
        requests = dict(self.switch.captures[ALL].requests)
        if len(requests) != len(prompts):
            raise CommandError(f"headwatch knows {len(requests)} of {len(prompts)} requests")
        return requests

    def _turn(self, arm: str, requests: dict[str, SampledRequest]) -> float:
        """Return the seconds that one turn of *arm* takes, until its last summary is there."""
        wanted = len(requests) * _sampled_steps(self._steps, STRIDES[arm])
        if arm in MODEL_ARMS:
            answer = self._transformers.ask(Turn(self._steps, STRIDES[arm]), TurnDone)
            _check(arm, answer.rows, wanted)
            return answer.seconds
        copier, capture = self._copiers.get(arm), self.switch.captures.get(arm)
        charged = copier.follow(requests) * self._steps / ANSWER_TOKENS if copier is not None else 0.0
        before = copier.flush().rows if copier is not None else capture.counters["rows_planned"] if capture else 0
        self.switch.put(arm)
        started = time.perf_counter()
        for _ in range(self._steps):
            if len(self._engine.step()) != len(requests):
                raise CommandError(f"a step of {arm} did not give one token to each of {len(requests)} requests")
        if copier is not None:
            done = copier.flush().rows
        elif capture is not None:
            self._settle(capture)
            done = capture.counters["rows_planned"]
        else:
            done = 0
        seconds = time.perf_counter() - started
        _check(arm, done - before, wanted)
        return seconds + charged

    def _settle(self, capture: Capture) -> None:
        """Wait until the frames of *capture* have left for the sidecar."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            status = capture.status()
            if status.counters["frames_sent"] + status.counters["frames_dropped"] >= status.sequence:
                return
            time.sleep(0.0005)
        raise CommandError(f"headwatch's frames do not leave: {capture.status().reason or 'the sidecar takes none'}")


def _sampled_steps(steps: int, stride: int) -> int:
    return -(-steps // stride) if stride else 0


def _check(arm: str, rows: int, wanted: int) -> None:
    """Return if an arm has done its work: who summarises less is no faster.

    headwatch counts its stride from a request's first token and not from the turn, so it may have one step more or less.
    """
    if abs(rows - wanted) > (wanted if arm == ALL_TENTH else 0):
        raise CommandError(f"{arm} summarised {rows} rows in a turn of {wanted}")


def _generation(prompts: list[Prompt], requests: dict[str, SampledRequest]) -> Generate:
    spans = [request.spans for request in requests.values()]
    return Generate(
        [list(prompt.token_ids) for prompt in prompts],
        [item.ends.tolist() for item in spans],
        [[bool(flag) for flag in item.document] for item in spans],
    )
