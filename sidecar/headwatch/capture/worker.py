"""Capture inside the vLLM worker: from the engine's step to a frame for the sidecar.

The engine calls in at three places: before and after ``execute_model`` (:meth:`Capture.begin_step`,
:meth:`Capture.end_step`) and after the attention of each layer (:meth:`Capture.after_attention`).  In a step without a
sampled request a layer pays one attribute test.  None of the three ever raises: errors end in the breaker.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from headwatch.capture.breaker import Breaker
from headwatch.capture.buffer import LayerSlot, allocate
from headwatch.capture.frames import FrameBuilder
from headwatch.capture.kernels.base import LayerCall
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.capture.plan import SampledRequest, StepPlan, parse_context, plan_step
from headwatch.capture.selfcheck import kernel_error, prove
from headwatch.capture.sender import Sender
from headwatch.errors import CaptureRefused
from headwatch.model import StatusFrame, WorkerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from headwatch.capture.kernels.base import RowKernel
    from headwatch.capture.layers import CapturedLayer
    from headwatch.capture.runners.base import Runner
    from headwatch.config import Config

    Observer = Callable[[int, list[tuple[str, int]], Tensor, list[Tensor], float], None]

KERNEL_TOLERANCE = 1e-3
"""Largest accepted difference between a kernel's numbers and the oracle's, on the rows of the self-check."""


class Capture:
    """All of headwatch's state in one worker process."""

    def __init__(
        self,
        config: Config,
        identity: WorkerIdentity,
        runner: Runner,
        layers: list[CapturedLayer],
        kernel: RowKernel,
        refusal: str = "",
    ) -> None:
        self.config = config
        self.refusal = refusal
        """Why nothing of this engine is captured; empty where capture runs."""
        self.identity = identity
        self.layers = {item.name: item for item in layers}
        self.runner = runner
        self.kernel = kernel
        self.breaker = Breaker(config.capture.error_limit, config.capture.retry_seconds)
        self.requests: dict[str, SampledRequest] = {}
        self.step: StepPlan | None = None
        """The plan of the step in progress; None while nothing of it is sampled: the one flag that layers test."""
        self.observer: Observer | None = None
        """Called with (layer number, rows, queries, keys, scale) of each layer summarised: for ``headwatch verify``."""
        self.counters: Counter[str] = Counter()
        self.capture_seconds = 0.0
        self.step_seconds = 0.0
        self._sequence = 0
        self._finished: list[str] = []
        self._skipped: frozenset[str] = frozenset()
        self._pending = False
        self._step_started = 0.0
        self._groups, self._slots = _grouped(layers)
        self.sender = Sender(config.wire, self.status)

    def begin_step(self, scheduled: Any) -> None:
        """Note what the scheduler adds and ends, and decide whether this step can hold sampled rows."""
        started = time.perf_counter()
        self._step_started = started
        self.counters["steps"] += 1
        try:
            self._admit(scheduled)
            self._pending = bool(
                self.requests
                and self.breaker.closed
                and any(engine_id in self.requests for engine_id in scheduled.num_scheduled_tokens)
            )
            self._skipped = frozenset(scheduled.scheduled_spec_decode_tokens)
            self.step = StepPlan() if self._pending else None
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            self.step = None
            self.breaker.failed(error)
        self.capture_seconds += time.perf_counter() - started

    def after_attention(self, item: CapturedLayer, query: Tensor, cache: Tensor, metadata: Any, output: Tensor) -> None:
        """Summarise the planned rows of one layer, whose kernel has just written *output*."""
        started = time.perf_counter()
        try:
            if metadata is None or not item.active:  # None: the engine warms up
                return
            if self._pending:
                self._plan(metadata)
            if self.step is not None:
                self._summarise(item, self.step, query, cache, metadata, output)
        except CaptureRefused as refusal:
            item.refused = f"{refusal.reason}: {refusal}"
            self.breaker.refused(refusal)
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            if self.step is not None:
                self.step.failed = True
            self.breaker.failed(error)
        finally:
            self.capture_seconds += time.perf_counter() - started

    def end_step(self) -> None:
        """Hand the step's summaries to the sender."""
        started = time.perf_counter()
        try:
            step, self.step = self.step, None
            self._pending = False
            if step is not None and step.planned:
                self._count(step)
                if not step.failed:
                    self.breaker.succeeded()
            if (step is not None and step.written) or self._finished:
                self._offer(step if step is not None else StepPlan())
            for engine_id in self._finished:
                self.requests.pop(engine_id, None)
            self._finished = []
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            self.breaker.failed(error)
        now = time.perf_counter()
        self.capture_seconds += now - started
        self.step_seconds += now - self._step_started

    def status(self) -> StatusFrame:
        """Return what the worker says of itself."""
        refused = {item.name: item.refused for item in self.layers.values() if item.refused}
        captured = any(item.active for item in self.layers.values())
        reason = self.refusal or self.breaker.reason or self.sender.error
        if not captured:
            reason = reason or "every attention layer was refused"
        sender = self.sender
        return StatusFrame(
            worker=self.identity,
            sequence=self._sequence,
            time_ns=time.time_ns(),
            up=captured and self.breaker.up and not sender.error,
            reason=reason,
            counters={
                "steps": self.counters["steps"],
                "sampled_steps": self.counters["sampled_steps"],
                "requests": self.counters["requests"],
                "rows_planned": self.counters["rows_planned"],
                "rows_sent": sender.rows_sent,
                "rows_dropped": sender.rows_dropped + self.counters["rows_over_limit"],
                "rows_refused": self.counters["rows_refused"],
                "frames_sent": sender.frames_sent,
                "frames_dropped": sender.frames_dropped,
            },
            errors=dict(self.breaker.errors),
            refused_layers=refused,
            capture_seconds=self.capture_seconds,
            step_seconds=self.step_seconds,
            sample_rate=self.config.capture.sample_rate,
            step_stride=self.config.capture.step_stride,
            runner=self.runner.name,
            backend=next((type(item.layer.impl).__name__ for item in self.layers.values()), ""),
        )

    def _admit(self, scheduled: Any) -> None:
        for engine_id in scheduled.finished_req_ids:
            if engine_id in self.requests:
                self._finished.append(engine_id)
        for new in scheduled.scheduled_new_reqs:
            if new.sampling_params is None or not new.sampling_params.extra_args:
                continue
            adapter = new.lora_request.lora_name if new.lora_request is not None else ""
            request = parse_context(new.sampling_params.extra_args, new.req_id, adapter)
            if request is not None:
                self.requests[new.req_id] = request
                self.counters["requests"] += 1

    def _plan(self, metadata: Any) -> None:
        """Plan the rows when the first layer runs: only then does the batch stand in its final order."""
        self._pending = False
        self.step = None  # no other layer of this step tries again if this one fails
        plan = plan_step(self.requests, self.runner.batch(metadata), self._skipped, self.config.capture)
        if plan.rows:
            plan.buffers = [
                allocate(numbers, heads, plan.taken, plan.spans, values=False) for heads, numbers in self._groups
            ]
        if plan.planned:
            self.step = plan

    def _summarise(
        self, item: CapturedLayer, step: StepPlan, query: Tensor, cache: Tensor, metadata: Any, output: Tensor
    ) -> None:
        if not step.rows or item.reader is None:
            return
        group, index = self._slots[item.name]
        slot = LayerSlot(step.buffers[group], index)
        call = LayerCall(
            query, cache, self.runner.block_table(item.name, metadata), output, item.reader, item.rule
        )
        kernel = item.kernel or self.kernel
        kernel.summarise(call, step.rows, slot, step.memo)
        if not item.trust.earned:
            prove(item.trust, call, step.rows)
            error = kernel_error(call, step.rows, slot) if not isinstance(kernel, TorchRows) else 0.0
            if not error <= KERNEL_TOLERANCE:  # also true for NaN
                item.kernel = TorchRows()
                item.kernel.summarise(call, step.rows, slot, step.memo)
                self.breaker.refused(CaptureRefused("kernel_check", (
                    f"{item.name}: kernel {kernel.name} differs from the oracle by {error:.3g}; the oracle runs instead"
                )))
        if self.observer is not None:
            self._observe(item, step, call)
        if item.trust.exportable:
            slot.buffer.written.add(index)

    def _observe(self, item: CapturedLayer, step: StepPlan, call: LayerCall) -> None:
        assert self.observer is not None
        names = [(rows.request.context.engine_id, int(p)) for rows in step.rows for p in rows.positions]
        picked = torch.cat([call.query[torch.as_tensor(rows.query_index)] for rows in step.rows])
        keys = [call.reader.read(call.cache, call.block_table[rows.batch_index], rows.keys)[0] for rows in step.rows]
        self.observer(item.number, names, picked.clone(), keys, item.rule.scale)

    def _count(self, step: StepPlan) -> None:
        self.counters["sampled_steps"] += 1
        self.counters["rows_planned"] += step.planned
        self.counters["rows_over_limit"] += step.over_limit
        if not step.written:
            self.counters["rows_refused"] += step.taken

    def _offer(self, step: StepPlan) -> None:
        """Queue one frame for each group of layers that have the same number of heads; nearly always one."""
        buffers = [buffer for buffer in step.buffers if buffer.written]
        for place, buffer in enumerate(buffers or [None]):
            rows = step.taken if buffer is not None and place == 0 else 0  # each row is counted once
            build = FrameBuilder(
                self.identity, self._sequence, time.time_ns(), step.rows, buffer, self.config.capture.detail,
                list(self._finished),
            )  # fmt: skip
            self._sequence += 1
            self.sender.offer(build, rows)


def _grouped(layers: list[CapturedLayer]) -> tuple[list[tuple[int, tuple[int, ...]]], dict[str, tuple[int, int]]]:
    """Return the groups (heads, layer numbers) of layers that share a buffer, and each layer's (group, slot)."""
    members: dict[int, list[CapturedLayer]] = {}
    for item in layers:
        if item.active:
            members.setdefault(item.heads, []).append(item)
    groups = [(heads, tuple(item.number for item in items)) for heads, items in members.items()]
    slots = {
        item.name: (group, slot) for group, items in enumerate(members.values()) for slot, item in enumerate(items)
    }
    return groups, slots
