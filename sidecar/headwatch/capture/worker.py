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
from msgspec.structs import replace

from headwatch.capture.breaker import Breaker
from headwatch.capture.control import ControlReceiver
from headwatch.capture.engine.graphs import marks
from headwatch.capture.kernels.base import LayerCall
from headwatch.capture.kernels.detail import write_detail
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.capture.layers.selfcheck import LayerTrust, kernel_error, prove, trusted_below
from headwatch.capture.output.buffer import LayerSlot
from headwatch.capture.output.frames import FrameBuilder
from headwatch.capture.output.sender import Sender
from headwatch.capture.plan.budget import Budget
from headwatch.capture.plan.cross import cross_part
from headwatch.capture.plan.foresight import holds_rows
from headwatch.capture.plan.parts import SPAN_MASSES, Divider, StepPart, allocate_part
from headwatch.capture.plan.step import SampledRequest, StepPlan, parse_context, plan_step
from headwatch.capture.plan.thinning import uniform
from headwatch.capture.status import status_of
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from headwatch.capture.engine.runners.base import Runner
    from headwatch.capture.kernels.base import RowKernel
    from headwatch.capture.layers.discovery import CapturedLayer
    from headwatch.capture.output.buffer import SummaryBuffer
    from headwatch.capture.plan.step import RequestRows
    from headwatch.config import Config
    from headwatch.model import AttentionKind, StatusFrame, WorkerIdentity

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
        self.budget = Budget(config.capture.budget_share, sum(item.active for item in layers))
        self.requests: dict[str, SampledRequest] = {}
        self.step: StepPlan | None = None
        """The plan of the step in progress; None while nothing of it is sampled: the one flag that layers test."""
        self.observer: Observer | None = None
        """Called with (layer number, rows, queries, keys, scale) of each layer summarised: for ``headwatch verify``."""
        self.counters: Counter[str] = Counter()
        self.capture_seconds = 0.0
        self.step_seconds = 0.0
        self.sequence = 0
        """Of the next frame."""
        self._finished: list[str] = []
        self._drafts: dict[str, int] = {}
        """Draft tokens of each request in this step."""
        self._pending = False
        self._step_started = 0.0
        self._spent_before = 0.0
        """``capture_seconds`` when the step began."""
        self._groups, self._slots = _grouped(layers, "self")
        self._cross_groups, cross_slots = _grouped(layers, "cross")
        self._slots |= cross_slots
        self.divider = Divider(config.capture, sum(heads * len(numbers) for heads, numbers in self._groups))
        self.sender = Sender(config.wire, self.status)
        self.control = ControlReceiver(config.capture, config.wire, identity.model)
        self._settings = self.control.settings
        """What is in force in this step."""
        self.left_out: dict[str, str] = {}
        """Layers of the model that do not attend to a request's positions, with the reason."""
        self.tensor_rank = 0
        """Which part of each layer's heads this worker has."""
        self.full_graphs_excluded = False
        """Whether the step in progress must not replay a FULL CUDA graph: see :mod:`headwatch.capture.engine.graphs`."""
        self._trusted_below = 0
        """Rows that see fewer positions need no check in any layer."""
        self.asleep = False
        """Whether the engine has given its memory away."""
        self._revision = identity.revision
        self._weights = 0
        """How often the weights were replaced."""

    def start(self) -> None:
        """Start the threads that send frames and hear orders."""
        self.sender.start()
        self.control.start()

    def begin_step(self, scheduled: Any) -> None:
        """Note what the scheduler adds and ends, and decide whether this step can hold sampled rows."""
        started = time.perf_counter()
        self._step_started = started
        self._spent_before = self.capture_seconds
        self.counters["steps"] += 1
        self.full_graphs_excluded = self.identity.ranks > 1 and marks(scheduled)  # as on every other rank, come what may
        try:
            self._admit(scheduled)
            self._settings = settings = self.control.settings
            self._pending = bool(
                self.requests
                and settings.enabled
                and not self.asleep
                and not (self.budget.passes_over() and not any(item.context.full for item in self.requests.values()))
                and holds_rows(self.requests, scheduled, settings)
                and self.breaker.closed  # asked last: an open one is tried again by the step that asks
            )
            self.full_graphs_excluded |= self._pending and self.identity.ranks == 1
            self._drafts = {engine_id: len(ids) for engine_id, ids in scheduled.scheduled_spec_decode_tokens.items()}
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
                self._plan()
            step = self.step
            if step is not None and not (step.plain and self._summarise_again(item, step.plain, query, cache, output)):
                self._summarise(item, step, query, cache, output)
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
        step, self.step = self.step, None
        self._settle(step)
        ordinary = step is not None and not (step.failed or step.checked)
        try:
            self._pending = self.full_graphs_excluded = False
            if step is not None and step.planned:
                self._count(step)
            if (step is not None and step.written) or self._finished:
                self._offer(step if step is not None else StepPlan())
            if step is not None and step.planned and not step.failed:
                self.breaker.succeeded()
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            self.breaker.failed(error)
            if step is not None:
                self.counters["rows_not_offered"] += step.exportable - step.offered
        finished, self._finished = self._finished, []
        for engine_id in finished:
            self.requests.pop(engine_id, None)
            self.divider.forget(engine_id)
        now = time.perf_counter()
        self.capture_seconds += now - started
        self.step_seconds += now - self._step_started
        try:
            self.budget.settle(now - self._step_started, self.capture_seconds - self._spent_before, ordinary=ordinary)
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            self.breaker.failed(error)

    def weights_replaced(self) -> None:
        """Take note of new weights: each layer earns its trust again, and the revision is another one from here on."""
        self._weights += 1
        self.identity = replace(self.identity, revision=f"{self._revision}+reload{self._weights}")
        self._distrust()

    def fall_asleep(self) -> None:
        """Take note that the engine gives its memory away: nothing is captured until it is awake."""
        self.asleep = True

    def awake(self) -> None:
        """Take note that the engine has its memory back, and weights that may be others."""
        self.asleep = False
        self._distrust()

    def _distrust(self) -> None:
        self._trusted_below = 0
        for item in self.layers.values():
            item.trust = LayerTrust()

    def status(self) -> StatusFrame:
        """Return what the worker says of itself."""
        return status_of(self)

    def _admit(self, scheduled: Any) -> None:
        for engine_id in scheduled.finished_req_ids:
            if engine_id in self.requests:
                self._finished.append(engine_id)
        for new in scheduled.scheduled_new_reqs:
            if new.sampling_params is None or not new.sampling_params.extra_args:
                continue
            adapter = new.lora_request.lora_name if new.lora_request is not None else ""
            request = parse_context(new.sampling_params.extra_args, new.req_id, adapter)
            if request is not None and new.req_id not in self.requests:  # V2 adds a preempted request anew
                self.requests[new.req_id] = request
                self.counters["requests"] += 1

    def _plan(self) -> None:
        """Plan the rows when the first layer runs: only then does the batch stand in its final order."""
        self._pending = False
        self.step = None  # no other layer of this step tries again if this one fails
        plan = plan_step(
            self.requests, self.runner.batch(), self._drafts, self._settings,
            self.config.capture.max_rows_per_step, self.budget,
        )  # fmt: skip
        self.counters["rows_thinned"] += plan.thinned
        if plan.layer_stride > 1:  # which layers: by hash of the step's number, which all ranks count alike
            plan.layer_phase = int(uniform(0, self.counters["steps"]) * plan.layer_stride)
        plan.parts = self.divider.divide(plan.rows)
        for part in plan.parts:
            part.buffers = [allocate_part(part, numbers, heads, self.config.capture) for heads, numbers in self._groups]
        plan.cross = cross_part(plan.rows) if self._cross_groups else None
        if plan.cross is not None:
            plan.cross.buffers = [
                allocate_part(plan.cross, numbers, heads, self.config.capture) for heads, numbers in self._cross_groups
            ]
        if plan.planned:
            plan.plain = plan.parts[0] if self._is_plain(plan) else None
            self.step = plan

    def _is_plain(self, plan: StepPlan) -> bool:
        """Return whether layers may take the short way: nothing is checked, watched or looked at closely."""
        if len(plan.parts) != 1 or plan.cross is not None or plan.layer_stride > 1 or self.observer is not None:
            return False
        part = plan.parts[0]
        if part.detail > SPAN_MASSES:
            return False
        if part.longest >= self._trusted_below:
            self._trusted_below = trusted_below(item for item in self.layers.values() if item.active)
        return part.longest < self._trusted_below

    def _summarise_again(
        self, item: CapturedLayer, part: StepPart, query: Tensor, cache: Tensor, output: Tensor
    ) -> bool:
        """Summarise a layer the short way; return whether there was one."""
        group, index = place = self._slots[item.name]
        table = self.runner.block_table(item.name)
        done = self.kernel.again(item.rule, part, place, query, cache, output, table)
        if done:
            part.buffers[group].written.add(index)
        return done

    def _summarise(
        self, item: CapturedLayer, step: StepPlan, query: Tensor, cache: Tensor, output: Tensor
    ) -> None:
        parts = step.parts_of(item.kind)
        if not parts or item.reader is None:
            return
        group, index = self._slots[item.name]
        if (index + step.layer_phase) % step.layer_stride:
            return
        call = LayerCall(
            query, cache, self.runner.block_table(item.name), output, item.reader, item.rule, item.latent
        )
        checked = not item.trust.covers(max(part.longest for part in parts))
        if checked:
            step.checked = True
            prove(item.trust, call, [row for part in parts for row in part.rows])
        for part in parts:
            slot = LayerSlot(part.buffers[group], index)
            self._summarise_part(item, call, part, slot, checked=checked)
            if item.trust.exportable:
                slot.buffer.written.add(index)
        if self.observer is not None:
            self._observe(item, [row for part in parts for row in part.rows], call)

    def _summarise_part(
        self, item: CapturedLayer, call: LayerCall, part: StepPart, slot: LayerSlot, *, checked: bool
    ) -> None:
        kernel = item.kernel or self.kernel
        if slot.buffer.value_mass is not None and not kernel.carries_values:
            kernel = TorchRows()
        kernel.summarise(call, part.rows, slot, part.memo)
        if checked and not isinstance(kernel, TorchRows):
            self.capture_seconds += kernel.settle()
            error = kernel_error(call, part.rows, slot)
            if not error <= KERNEL_TOLERANCE:  # also true for NaN
                item.kernel = TorchRows()
                item.kernel.summarise(call, part.rows, slot, part.memo)
                self.breaker.refused(CaptureRefused("kernel_check", (
                    f"{item.name}: kernel {kernel.name} differs from the oracle by {error:.3g}; the oracle runs instead"
                )))
        write_detail(call, part.rows, slot)

    def _observe(self, item: CapturedLayer, rows: list[RequestRows], call: LayerCall) -> None:
        assert self.observer is not None
        names = [(row.request.context.engine_id, int(p)) for row in rows for p in row.positions]
        picked = torch.cat([call.queries(torch.as_tensor(row.query_index)) for row in rows])
        keys = [call.reader.read(call.cache, call.block_table[row.batch_index], row.keys)[0] for row in rows]
        self.observer(item.number, names, picked.clone(), keys, item.rule.scale)

    def _settle(self, step: StepPlan | None) -> None:
        """Wait for summaries that other cores still make: the engine may change the cache after the step."""
        try:
            self.capture_seconds += self.kernel.settle()
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            self.breaker.failed(error)
            if step is not None:
                step.fail()

    def _count(self, step: StepPlan) -> None:
        self.counters["sampled_steps"] += 1
        self.counters["rows_planned"] += step.planned
        self.counters["rows_over_limit"] += step.over_limit
        self.counters["rows_refused"] += step.taken - step.exportable

    def _offer(self, step: StepPlan) -> None:
        """Queue one frame for each part and each group of layers that have the same number of heads; nearly always one.

        The last one says which requests have ended, since it is the last that has rows of them.
        """
        frames: list[tuple[StepPart, SummaryBuffer | None, int]] = []
        for part in step.all_parts:
            written = [buffer for buffer in part.buffers if buffer.written]
            counted = 0 if part is step.cross else part.taken  # rows count once
            frames += [(part, buffer, 0 if place else counted) for place, buffer in enumerate(written)]
        if not frames:
            frames = [(StepPart(0, [], 0, 0), None, 0)]
        for number, (part, buffer, rows) in enumerate(frames, 1):
            finished = list(self._finished) if number == len(frames) else []
            build = FrameBuilder(
                self.identity, self.sequence, time.time_ns(), part.rows, buffer, part.detail, finished, self.tensor_rank,
                part.attention,
            )  # fmt: skip
            self.sequence += 1
            self.sender.offer(build, rows, buffer.size_bytes if buffer is not None else 0)
            step.offered += rows


def _grouped(
    layers: list[CapturedLayer], kind: AttentionKind
) -> tuple[list[tuple[int, tuple[int, ...]]], dict[str, tuple[int, int]]]:
    """Return the groups (heads, layer numbers) of layers of *kind* that share a buffer, and each one's (group, slot)."""
    members: dict[int, list[CapturedLayer]] = {}
    for item in layers:
        if item.active and item.kind == kind:
            members.setdefault(item.heads, []).append(item)
    groups = [(heads, tuple(item.number for item in items)) for heads, items in members.items()]
    slots = {
        item.name: (group, slot) for group, items in enumerate(members.values()) for slot, item in enumerate(items)
    }
    return groups, slots
