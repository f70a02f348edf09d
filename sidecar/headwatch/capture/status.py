"""What a worker says of itself, every two seconds and whenever somebody asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headwatch.model import StatusFrame

if TYPE_CHECKING:
    from headwatch.capture.worker import Capture


def status_of(capture: Capture) -> StatusFrame:
    """Return what the worker says of itself."""
    refused = {item.name: item.refused for item in capture.layers.values() if item.refused}
    captured = any(item.active for item in capture.layers.values())
    reason = capture.refusal or capture.breaker.reason or capture.sender.error
    if not captured:
        reason = reason or "every attention layer was refused"
    sender, settings = capture.sender, capture.control.settings
    if not settings.enabled:
        reason = reason or f"switched off by live control, epoch {settings.epoch}"
    if capture.asleep:
        reason = reason or "asleep: the engine sleeps until it is woken up"
    return StatusFrame(
        worker=capture.identity,
        sequence=capture.sequence,
        time_ns=time.time_ns(),
        up=captured and capture.breaker.up and settings.enabled and not capture.asleep and not sender.error,
        reason=reason,
        counters={
            "steps": capture.counters["steps"],
            "sampled_steps": capture.counters["sampled_steps"],
            "requests": capture.counters["requests"],
            "rows_planned": capture.counters["rows_planned"],
            "rows_sent": sender.rows_sent,
            "rows_dropped": sender.rows_dropped + capture.counters["rows_over_limit"] + capture.counters["rows_not_offered"],
            "rows_refused": capture.counters["rows_refused"],
            "rows_thinned": capture.counters["rows_thinned"],
            "frames_sent": sender.frames_sent,
            "frames_dropped": sender.frames_dropped,
            **{f"detail_reduced.{reason}": rows for reason, rows in capture.divider.reduced.items()},
        },
        errors=dict(capture.breaker.errors + capture.control.errors + sender.errors),
        refused_layers=refused,
        capture_seconds=capture.capture_seconds,
        step_seconds=capture.step_seconds,
        sample_rate=settings.everything.sample_rate,
        step_stride=settings.everything.step_stride,
        runner=capture.runner.name,
        backend=next((type(item.layer.impl).__name__ for item in capture.layers.values()), ""),
        kernel=capture.kernel.name,
        detail=settings.everything.detail,
        control_epoch=settings.epoch,
        budget_stride=capture.budget.stride,
        left_out=capture.left_out,
    )
