"""What a worker says of itself when capture cannot start in it: that it is down, and why, every few seconds.

Silence would look like a worker that is not there.  It needs nothing of the engine: what an unknown release has moved is
left empty.  Cost: one thread that sleeps.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any

from headwatch.capture.engine.identity import engine_version
from headwatch.capture.output.sender import Sender
from headwatch.model import StatusFrame, WorkerIdentity

if TYPE_CHECKING:
    from headwatch.config import Config

COUNTERS = (
    "steps", "sampled_steps", "requests", "rows_planned", "rows_sent", "rows_dropped", "rows_refused", "frames_sent",
    "frames_dropped",
)  # fmt: skip


def announce(config: Config, worker: Any, reason: str) -> Sender:
    """Return a running sender that says why nothing of *worker* is captured."""
    identity = _identity(config, worker)

    def status() -> StatusFrame:
        return StatusFrame(
            worker=identity, sequence=0, time_ns=time.time_ns(), up=False, reason=reason,
            counters=dict.fromkeys(COUNTERS, 0), errors={}, refused_layers={}, capture_seconds=0.0, step_seconds=0.0,
            sample_rate=config.capture.sample_rate, step_stride=config.capture.step_stride,
            runner=type(getattr(worker, "model_runner", None)).__name__, backend="",
        )  # fmt: skip

    sender = Sender(config.wire, status)
    sender.start()
    return sender


def _identity(config: Config, worker: Any) -> WorkerIdentity:
    vllm_config = getattr(worker, "vllm_config", None)
    model = getattr(vllm_config, "model_config", None)
    served = getattr(model, "served_model_name", "") or ""
    return WorkerIdentity(
        instance=config.capture.instance or f"{platform.node()}-{getattr(vllm_config, 'instance_id', '')}",
        rank=int(getattr(worker, "rank", 0) or 0),
        start_ns=time.time_ns(),
        model=served if isinstance(served, str) else served[0],
        revision=config.capture.revision or str(getattr(model, "revision", None) or ""),
        dtype=str(getattr(model, "dtype", "")).removeprefix("torch."),
        layers=0,
        heads=0,
        engine_version=engine_version(),
    )
