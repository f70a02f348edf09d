"""Recordings: what a run of a scenario looked like to drift detection, window by window, as an exported history.

A recording holds everything that enters detection (strata, signals, traffic, telemetry, canary runs, example requests) and, in
its meta data, where it comes from: scenario, run, questions, seed, machine, versions, settings, date and the command that makes
it anew.  A run begins with a few healthy windows (its *lead*), which the scenarios of the run share: they were observed by the
same sidecar minutes before.  :func:`run_of` puts the two together as one stretch of time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from headwatch.errors import CommandError
from headwatch.findings import CanaryExhibit, DeployEvent
from headwatch.history.file import History
from headwatch.observed import ObservedRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwatch.observed import ObservedWindow

BASELINE = "baseline"
SUFFIX = ".history"


@dataclass(frozen=True, slots=True)
class Recording:
    """One file."""

    meta: dict[str, Any]
    windows: tuple[ObservedWindow, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a scenario, as the sidecar would have seen it."""

    scenario: str
    number: int
    split: str
    lead: int
    """Healthy windows before the change."""
    windows: tuple[ObservedWindow, ...]
    """Numbered from 0 on, without a gap in time."""


def packaged() -> Path:
    """Return the folder of the recordings that ship with headwatch."""
    return Path(str(resources.files("headwatch.bench.triage").joinpath("recordings")))


def name_of(scenario: str, run: int) -> str:
    """Return the file's name for *run* of *scenario*."""
    return f"{scenario}-{run}{SUFFIX}"


def lead_of(run: int) -> str:
    """Return the name of the healthy windows before the changes of *run*."""
    return name_of("lead", run)


def write(path: Path, windows: Iterable[ObservedWindow], meta: dict[str, Any]) -> None:
    """Write a recording to *path*, whole or not at all; an older one gives way.

    Raises:
        HistoryError: The file cannot be written.
    """
    collected = path.with_name(f"{path.name}.collected")
    collected.unlink(missing_ok=True)
    try:
        with History(collected) as history:
            for window in windows:
                history.append(window)
            history.export(path, meta)
    finally:
        for suffix in ("", "-wal", "-shm"):
            collected.with_name(collected.name + suffix).unlink(missing_ok=True)


def read(path: Path) -> Recording:
    """Return the recording at *path*.

    Raises:
        HistoryError: There is none, or it cannot be read.
    """
    with History.open_readonly(path) as history:
        return Recording(history.meta(), tuple(history.read()))


def names(folder: Path) -> list[str]:
    """Return the files of runs in *folder*, in order, without leads and baseline.

    Raises:
        CommandError: There are none.
    """
    found = sorted(
        path.name for path in folder.glob(f"*-*{SUFFIX}") if not path.name.startswith(("lead-", f"{BASELINE}{SUFFIX}"))
    )
    if not found or not (folder / f"{BASELINE}{SUFFIX}").is_file():
        raise CommandError(f"{folder} holds no recordings; make them with `headwatch bench triage --record {folder}`")
    return found


def run_of(folder: Path, name: str) -> Run:
    """Return the run in the file *name* of *folder*, behind its lead.

    Raises:
        HistoryError: A file is missing or cannot be read.
    """
    recording = read(folder / name)
    number = int(recording.meta["run"])
    lead = read(folder / lead_of(number)).windows
    return Run(
        str(recording.meta["scenario"]), number, str(recording.meta["split"]), len(lead), joined(lead, recording.windows)
    )


def joined(*parts: Sequence[ObservedWindow]) -> tuple[ObservedWindow, ...]:
    """Return the windows of *parts* one behind the other, numbered from 0 on, each part ending where the next one begins."""
    kept: list[ObservedWindow] = []
    for part in reversed([list(part) for part in parts if part]):
        shift = kept[0].start_ns - part[-1].end_ns if kept else 0
        kept = [shifted(window, shift) for window in part] + kept
    return tuple(replace(window, number=number) for number, window in enumerate(kept))


def shifted(window: ObservedWindow, by_ns: int) -> ObservedWindow:
    """Return *window* as though it had been observed *by_ns* later."""
    if not by_ns:
        return window
    return replace(
        window, start_ns=window.start_ns + by_ns, end_ns=window.end_ns + by_ns, requests=_later(window.requests, by_ns),
        canaries=_later(window.canaries, by_ns), deploys=_later(window.deploys, by_ns),
    )  # fmt: skip


_Timed = TypeVar("_Timed", ObservedRequest, CanaryExhibit, DeployEvent)


def _later(items: tuple[_Timed, ...], by_ns: int) -> tuple[_Timed, ...]:
    return tuple(msgspec.structs.replace(item, time_ns=item.time_ns + by_ns) for item in items)
