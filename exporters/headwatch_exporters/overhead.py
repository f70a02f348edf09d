"""The share of step time that capture takes of late, from counts that only grow.

A mean since the worker's start would hide a bad hour behind a good week.  So the share is that of the steps since the last
report, taken anew once there was half a second of them; before that, of all steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.model import StatusFrame

_LEAST_SECONDS = 0.5
_MAX_WORKERS = 1024


@dataclass(slots=True)
class _Seen:
    start_ns: int
    capture_seconds: float
    step_seconds: float
    share: float


class Overhead:
    """Remembers the last report of each worker.  Not safe from threads."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], _Seen] = {}

    def __call__(self, status: StatusFrame) -> float:
        """Return the share that *status* tells of; the same again for a status that was seen before."""
        key = status.worker.instance, status.worker.rank
        seen = self._seen.pop(key, None)
        capture, step = status.capture_seconds, status.step_seconds
        if seen is None or seen.start_ns != status.worker.start_ns or step < seen.step_seconds:
            seen = _Seen(status.worker.start_ns, capture, step, capture / step if step else 0.0)
        elif step - seen.step_seconds >= _LEAST_SECONDS:
            share = (capture - seen.capture_seconds) / (step - seen.step_seconds)
            seen = _Seen(status.worker.start_ns, capture, step, share)
        self._seen[key] = seen
        if len(self._seen) > _MAX_WORKERS:
            self._seen.pop(next(iter(self._seen)))
        return seen.share
