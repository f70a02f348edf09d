"""Checks of a running pair: what workers, ingest and exporters say of themselves through the sidecar.

Each takes the :class:`~headwatch.health.Health` that the sidecar answered with; without one none of them runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch import __version__
from headwatch.doctor.context import Finding
from headwatch.doctor.installation import supported, supported_text
from headwatch.ingest.workers import SILENT_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwatch.doctor.context import Context
    from headwatch.health import Health, WorkerHealth

MAX_SKEW_SECONDS = 2.0
MAX_NAMED = 3
"""Workers, layers or reasons named in a message; further ones are counted."""


def workers_seen(health: Health) -> Finding:
    """Has any worker reported, and does it still."""
    if not health.workers:
        return Finding("workers", "fail", "no vLLM worker has reported to this sidecar",
                       "is vLLM running, with headwatch in its environment and the same wire.endpoint?  The checks above tell "
                       "whether vLLM would load the plugin; its log says why capture is off")
    silent = [worker for worker in health.workers if health.time_ns - worker.received_ns > SILENT_NS]
    if silent:
        return Finding("workers", "fail", "silent for more than "
                                          f"{SILENT_NS / 1e9:.0f} s: {_names(map(_label, silent))}",
                       "has vLLM ended or hung?  If it runs, was it restarted without the plugin (VLLM_PLUGINS, "
                       "HEADWATCH_DISABLE) or with another wire.endpoint?  Its log says 'headwatch … captures' where "
                       "capture is on, and 'headwatch is off' with a reason where it failed")
    return Finding("workers", "ok", f"{len(health.workers)} reporting")


def workers_up(health: Health) -> Finding | None:
    """Is capture switched on in every worker."""
    down = [worker for worker in health.workers if not worker.status.up]
    if down:
        return Finding("capture_up", "fail", "capture is off: "
                                             + _names(f"{_label(worker)}: {worker.status.reason}" for worker in down),
                       "the reason says what capture does not understand or what failed; docs/support-matrix.md lists what is "
                       "captured.  vLLM itself is not affected")
    return Finding("capture_up", "ok", "capture is on in every worker") if health.workers else None


def layers_refused(health: Health) -> Finding | None:
    """Has any worker refused layers."""
    if not health.workers:
        return None
    refused = [(worker, worker.status.refused_layers) for worker in health.workers if worker.status.refused_layers]
    if not refused:
        return Finding("layers", "ok", "no layer is refused")
    text = _names(
        f"{_label(worker)}: {len(layers)} of {worker.status.worker.layers} ({_names(map(': '.join, layers.items()))})"
        for worker, layers in refused
    )
    everything = any(len(layers) >= worker.status.worker.layers for worker, layers in refused)
    return Finding("layers", "fail" if everything else "warn", f"refused layers: {text}",
                   "nothing is exported from them; docs/support-matrix.md explains the reasons, and `headwatch verify` "
                   "looks closer")


def clocks(health: Health) -> Finding | None:
    """Do the clocks of workers and sidecar agree."""
    if not health.workers:
        return None
    off = [worker for worker in health.workers if abs(worker.clock_skew_seconds) > MAX_SKEW_SECONDS]
    if off:
        return Finding("clock", "warn", "clocks differ: "
                                        + _names(f"{_label(item)} {item.clock_skew_seconds:+.1f} s" for item in off),
                       "synchronise the clocks (chrony, systemd-timesyncd): rows fall into the wrong windows otherwise")
    return Finding("clock", "ok", f"clocks agree within {MAX_SKEW_SECONDS:.0f} s")


def rows_sampled(health: Health) -> Finding | None:
    """Is anything sampled."""
    stepping = [worker for worker in health.workers if worker.status.counters.get("steps", 0) > 0]
    if not health.workers:
        return None
    if not stepping:
        return Finding("sampling", "ok", "no engine step yet: send a request")
    if not any(worker.status.counters.get("rows_planned", 0) for worker in stepping):
        rates = sorted({worker.status.sample_rate for worker in stepping})
        steps = sum(worker.status.counters["steps"] for worker in stepping)
        return Finding("sampling", "warn", f"{steps:,} engine steps, and no row was sampled (sample rate "
                                           f"{', '.join(f'{rate:.4g}' for rate in rates)})",
                       "send more requests, or raise capture.sample_rate and restart vLLM; with 1.0 every request is sampled")
    return Finding("sampling", "ok",
                   f"{sum(worker.status.counters.get('rows_planned', 0) for worker in stepping):,} rows sampled")


def frames_lost(health: Health) -> Finding | None:
    """Did frames get lost between workers and sidecar."""
    if not health.workers:
        return None
    missing = sum(worker.frames_missing for worker in health.workers)
    dropped = sum(worker.status.counters.get("frames_dropped", 0) for worker in health.workers)
    if missing or dropped:
        return Finding("frames", "warn", f"{missing:,} frames are missing, {dropped:,} were dropped by workers",
                       "frames are lost while no sidecar runs or while it cannot keep up: look at its CPU, or sample less "
                       "(capture.sample_rate, capture.step_stride)")
    return Finding("frames", "ok", f"{sum(worker.frames_received for worker in health.workers):,} arrived, none missing")


def frames_rejected(health: Health) -> Finding | None:
    """Did frames arrive that could not be read."""
    rejected = {name.removeprefix("rejected."): n for name, n in health.ingest.items() if name.startswith("rejected.") and n}
    if not rejected:
        return Finding("rejected", "ok", "every frame could be read")
    text = ", ".join(f"{reason} {count:,}" for reason, count in sorted(rejected.items()))
    if "version" in rejected:
        return Finding("rejected", "fail", f"frames rejected: {text}: a worker's headwatch is of another version",
                       "install the same headwatch in both environments; when upgrading, upgrade the sidecar first")
    return Finding("rejected", "warn", f"frames rejected: {text}", "does anything else send to wire.endpoint?  Else report it")


def worker_errors(health: Health) -> Finding | None:
    """Did capture or request fields err."""
    if not health.workers:
        return None
    errors: dict[str, int] = {}
    for worker in health.workers:
        for reason, count in worker.status.errors.items():
            errors[reason] = errors.get(reason, 0) + count
    for name, count in health.ingest.items():
        if name.startswith("field."):
            reason = name.removeprefix("field.")
            errors[reason] = errors.get(reason, 0) + count
    if any(errors.values()):
        worst = sorted(errors.items(), key=lambda item: -item[1])
        return Finding("errors", "warn", "counted: " + _names(f"{reason} {count:,}" for reason, count in worst),
                       "docs/request-field.md explains the reasons of request fields; of others vLLM's log has the first one")
    return Finding("errors", "ok", "no errors in capture or request fields")


def exporters(health: Health) -> Finding | None:
    """Does every exporter deliver."""
    down = [f"{name}: {item.last_error or 'down'}" for name, item in health.exporters.items() if not item.up]
    if down:
        return Finding("exporters", "fail", f"not delivering: {_names(down)}",
                       "is its peer reachable from the sidecar, and is there space on the disk?  Batches are retried, then "
                       "dropped and counted")
    troubled = [f"{name}: {item.errors:,} errors, {item.dropped_batches:,} batches dropped"
                for name, item in health.exporters.items() if item.errors or item.dropped_batches]  # fmt: skip
    if troubled:
        return Finding("exporters", "warn", f"delivering again after {_names(troubled)}", "the sidecar's log says what failed")
    return Finding("exporters", "ok", f"delivering: {', '.join(sorted(health.exporters)) or 'none configured'}")


def pages(health: Health) -> Finding:
    """Do pages go out, and do their mirrors follow."""
    if not health.pagers:
        return Finding("pages", "ok", "nobody is paged: incident.route is none, and no mirror is configured")
    down = {name: pager for name, pager in health.pagers.items() if not pager.up}
    told = _names(f"{name}: {pager.last_error or 'down'}" for name, pager in down.items())
    if any(pager.pages for pager in down.values()):
        return Finding("pages", "fail", f"pages do not go out: {told}",
                       "is the receiver reachable from the sidecar, and its secret the one in [incident]?  Pages are kept and "
                       "tried again; docs/paging.md")
    if down:
        return Finding("pages", "warn", f"a mirror does not follow: {told}", "pages go out; what a mirror is: docs/paging.md")
    by = [name for name, pager in health.pagers.items() if pager.pages]
    return Finding("pages", "ok", f"pages go out by {by[0]}" if by else "nobody is paged: incident.route is none")


def engine_versions(health: Health) -> Finding | None:
    """Do the engines run a vLLM that capture supports."""
    if not health.workers:
        return None
    versions = sorted({worker.status.worker.engine_version for worker in health.workers})
    refused = [version for version in versions if not supported(version)]
    if refused:
        return Finding("engines", "warn", f"workers run vLLM {', '.join(refused)}, which is not supported",
                       f"run a vLLM {supported_text()}")
    if len(versions) > 1:
        return Finding("engines", "warn", f"workers run different versions of vLLM: {', '.join(versions)}",
                       "compare numbers of one version only until the upgrade is complete")
    return Finding("engines", "ok", f"workers run vLLM {versions[0]}")


def sidecar_version(context: Context) -> Finding | None:
    """Is the sidecar of the version that is installed here."""
    version = context.sidecar.version
    if not version:
        return None
    if version != __version__:
        return Finding("versions", "warn", f"the sidecar runs headwatch {version}, installed here is {__version__}",
                       "restart the sidecar after an upgrade, and upgrade it before the workers")
    return Finding("versions", "ok", f"the sidecar runs headwatch {version}, as installed here")


HEALTH_CHECKS: tuple[Callable[[Health], Finding | None], ...] = (
    workers_seen, workers_up, layers_refused, engine_versions, clocks, rows_sampled, frames_lost, frames_rejected,
    worker_errors, exporters, pages,
)  # fmt: skip


def _label(worker: WorkerHealth) -> str:
    identity = worker.status.worker
    return f"{identity.instance}/{identity.rank}"


def _names(items: Iterable[str]) -> str:
    listed = list(items)
    more = len(listed) - MAX_NAMED
    return ", ".join(listed[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
