"""Which workers follow: what each reports to be in force, beside what is ordered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwatch.health import WorkerHealth


def followers(workers: Iterable[WorkerHealth], epoch: int) -> list[dict[str, Any]]:
    """Return a row for each of *workers*; it has acknowledged once it reports *epoch*, which takes a status frame.

    Front ends report nothing: those of an engine hear the same socket as its workers.
    """
    return [
        {
            "instance": worker.status.worker.instance,
            "rank": worker.status.worker.rank,
            "model": worker.status.worker.model,
            "epoch": worker.status.control_epoch,
            "acknowledged": worker.status.control_epoch == epoch,
            "sample_rate": worker.status.sample_rate,
            "step_stride": worker.status.step_stride,
            "detail": worker.status.detail,
            "refused": {name: count for name, count in worker.status.errors.items() if name.startswith("control_")},
        }
        for worker in workers
    ]
