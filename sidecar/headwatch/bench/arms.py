"""The arms that are compared, and the switch between them inside one running engine.

Each arm but the plain ones has a capture and a front end of its own, made by the same functions as in production, with
budget, breaker and self-check of their own.  An arm is put in by setting what vLLM looks up at each call: the worker's
hook (``WorkerWrapperBase.execute_model``), the wrapper on each layer's ``impl.forward``, and the front end's hook
(``InputProcessor.process_inputs``).  For the plain arms all three are the engine's own functions again, so that nothing of
headwatch runs in a step; that a process without headwatch is no faster is measured by :mod:`headwatch.bench.servers`.

Switching takes microseconds, happens between two steps, and is never timed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from headwatch.config import CaptureConfig, Config, WireConfig
from headwatch.sampling import is_sampled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.bench.engine import Engine
    from headwatch.capture.worker import Capture

PLAIN = "plain"
PLAIN_AGAIN = "plain_again"
"""The same as plain: what lies between the two is noise."""
RATE_ZERO = "rate0"
DEFAULT = "default"
EVERY_REQUEST = "every_request"
"""Default settings, but every request is sampled: what a request pays that is."""
ALL = "all"
"""Every row of every request at every step, without a budget."""
ALL_TENTH = "all_tenth"
"""Every request, at one step in ten, without a budget."""

_SETTINGS: dict[str, CaptureConfig] = {
    RATE_ZERO: CaptureConfig(sample_rate=0.0),
    DEFAULT: CaptureConfig(),
    EVERY_REQUEST: CaptureConfig(sample_rate=1.0),
    ALL: CaptureConfig(sample_rate=1.0, step_stride=1, budget_share=1.0, max_rows_per_step=4096),
    ALL_TENTH: CaptureConfig(sample_rate=1.0, step_stride=10, budget_share=1.0, max_rows_per_step=4096),
}


def settings_of(arm: str) -> CaptureConfig:
    """Return the settings of an *arm* that is not plain."""
    return _SETTINGS[arm]


def sampled_share(arm: str) -> float:
    """Return the share of requests that *arm* samples."""
    return _SETTINGS[arm].sample_rate if arm in _SETTINGS else 0.0


def takes(arm: str, number: int) -> bool:
    """Return whether *arm* samples request *number*: evenly spread, so that any run of requests has the exact share."""
    share = sampled_share(arm)
    return int((number + 1) * share + 0.5) > int(number * share + 0.5)


def request_id(arm: str, number: int) -> str:
    """Return an id for request *number* that the front end's hash samples if and only if :func:`takes` says so."""
    share, wanted = sampled_share(arm), takes(arm, number)
    salt = 0
    while is_sampled(name := f"bench-{arm}-{number}-{salt}", share) is not wanted:
        salt += 1
    return name


class Stepping(Protocol):
    """What is called around each step of the engine: a ``Capture``, or what stands in for one."""

    def begin_step(self, scheduled: Any) -> None:
        """Take note of what the scheduler has put together."""
        ...

    def end_step(self) -> None:
        """Take note that the step has run."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Hooks:
    """Everything of one arm that vLLM calls."""

    stepping: Stepping
    forwards: list[tuple[Any, Callable[..., Any]]]
    """The attention of each layer, and its ``forward``."""
    front_end: Callable[..., Any]


class Everyone:
    """Lets all captures see a step that none of them captures: how they learn of requests, and of their end.

    Each is shown only the new requests that its arm samples.
    """

    def __init__(self, captures: dict[str, Capture]) -> None:
        self._captures = captures
        self._number = 0

    def begin_step(self, scheduled: Any) -> None:
        """Stand in for ``Capture.begin_step``."""
        new = scheduled.scheduled_new_reqs
        for arm, capture in self._captures.items():
            seen = [item for place, item in enumerate(new) if takes(arm, self._number + place)]
            capture.begin_step(dataclasses.replace(scheduled, scheduled_new_reqs=seen))
        self._number += len(new)

    def end_step(self) -> None:
        """Stand in for ``Capture.end_step``."""
        for capture in self._captures.values():
            capture.end_step()


class Switch:
    """Puts one arm at a time into an :class:`Engine` that was started without headwatch."""

    def __init__(self, engine: Engine, endpoint: str) -> None:
        from vllm.v1.engine.input_processor import InputProcessor  # noqa: PLC0415 - ten seconds
        from vllm.v1.worker.worker_base import WorkerWrapperBase  # noqa: PLC0415

        from headwatch.capture.plugin import install_worker_hook  # noqa: PLC0415

        self._engine = engine
        self._endpoint = endpoint
        self._front_end, self._worker = InputProcessor, WorkerWrapperBase
        self._plain_front_end, self._plain_step = InputProcessor.process_inputs, WorkerWrapperBase.execute_model
        install_worker_hook(WorkerWrapperBase, Config())
        self._hooked_step = WorkerWrapperBase.execute_model
        self._hooks: dict[str, Hooks] = {}
        self.captures: dict[str, Capture] = {}
        self._everyone = Everyone(self.captures)
        self.put(PLAIN)

    def add(self, arms: Sequence[str]) -> None:
        """Make the captures and front ends of *arms*, and put none of them in."""
        from headwatch.capture.attach import create  # noqa: PLC0415 - loads torch
        from headwatch.capture.request.front_end import FrontEnd  # noqa: PLC0415

        self.put(PLAIN)
        for arm in arms:
            config = self._config(arm)
            capture = create(config, self._engine.wrapper.worker)
            forwards = [
                (item.layer.impl, item.layer.impl.__dict__.pop("forward"))
                for item in capture.layers.values() if "forward" in item.layer.impl.__dict__
            ]  # fmt: skip
            self.captures[arm] = capture
            FrontEnd(config.capture, config.wire).install(self._front_end)
            self._hooks[arm] = Hooks(capture, forwards, self._front_end.process_inputs)
            self._front_end.process_inputs = self._plain_front_end

    def add_other(self, arm: str, stepping: Stepping, forwards: list[tuple[Any, Callable[..., Any]]]) -> None:
        """Make an *arm* that is not headwatch: what is called around each step, and in place of each ``impl.forward``."""
        self._hooks[arm] = Hooks(stepping, forwards, self._plain_front_end)

    def put(self, arm: str) -> None:
        """Put *arm* in.  Requests that are added from now on are its own."""
        self._take_out()
        hooks = self._hooks.get(arm)
        if hooks is None:
            return
        self._place(hooks.stepping)
        self._front_end.process_inputs = hooks.front_end
        for impl, forward in hooks.forwards:
            impl.forward = forward

    def put_everyone(self) -> None:
        """Let every arm learn of the requests that are added and ended from now on; nothing is captured meanwhile."""
        self._take_out()
        self._place(self._everyone)
        sampling = next((arm for arm in (ALL, EVERY_REQUEST) if arm in self.captures), None)
        if sampling is not None:  # its front end resolves every request's spans
            self._front_end.process_inputs = self._hooks[sampling].front_end

    def close(self) -> None:
        """Take everything out, and end the threads."""
        self.put(PLAIN)
        for capture in self.captures.values():
            capture.sender.stop()
            capture.control.stop()

    def _take_out(self) -> None:
        from headwatch.capture.plugin import place  # noqa: PLC0415

        place(self._engine.wrapper, None)
        self._worker.execute_model = self._plain_step
        self._front_end.process_inputs = self._plain_front_end
        for hooks in self._hooks.values():
            for impl, _ in hooks.forwards:
                impl.__dict__.pop("forward", None)

    def _place(self, capture: Any) -> None:
        from headwatch.capture.plugin import place  # noqa: PLC0415

        place(self._engine.wrapper, capture)
        self._worker.execute_model = self._hooked_step

    def _config(self, arm: str) -> Config:
        capture = msgspec.structs.replace(settings_of(arm), instance=f"bench-{arm}")
        return Config(capture=capture, wire=WireConfig(endpoint=self._endpoint))
