"""``headwatch bench triage``: judge the recordings that ship, or make them anew and judge those."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwatch.bench.triage import recording
from headwatch.bench.triage.judge import INTERVAL_WINDOWS, judged
from headwatch.bench.triage.report import expected_of, report_of
from headwatch.bench.triage.scenarios import chosen
from headwatch.bench.triage.tape import TAPE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.bench.triage.report import TriageReport

    Progress = Callable[[str], None]

COMMAND = "headwatch bench triage --record DIR"


def replay(
    folder: Path | None = None, only: Sequence[str] = (), *, interval_windows: float = INTERVAL_WINDOWS,
    progress: Progress = lambda _: None,
) -> TriageReport:
    """Return the report on the recordings in *folder* (default: those that ship), or on those of the scenarios *only*.

    *interval_windows* is the promised mean number of windows between false pages.

    Raises:
        CommandError: There are no recordings.
        HeadwatchError: One cannot be read.
    """
    started = time.monotonic()
    folder = recording.packaged() if folder is None else folder
    wanted = {scenario.name for scenario in chosen(only)}
    names = [name for name in recording.names(folder) if name.rpartition("-")[0] in wanted]
    outcomes = []
    for outcome in judged(folder, names, expected_of, interval_windows):
        told = outcome.paged or "no page"
        progress(f"{outcome.scenario}, run {outcome.run}: {told}{'' if outcome.right else f', not {outcome.expected}'}")
        outcomes.append(outcome)
    return report_of(outcomes, interval_windows, _provenance(folder), time.monotonic() - started)


def record_to(
    model: Path, folder: Path, only: Sequence[str] = (), *, keep_frames: bool = False, progress: Progress = lambda _: None
) -> TriageReport:
    """Record with *model* into *folder*, where recordings that are there give way, and return the report on it.

    With *only* the baseline and the leads that are there stay, so that some scenarios can be recorded anew.  *keep_frames*: the
    frames are kept beside them.

    Raises:
        CommandError: A server does not start, or refuses a request.
    """
    from headwatch.bench.triage.record import Plan, record  # noqa: PLC0415 - loads what only a recording needs

    command = " ".join([COMMAND, *(f"--only {name}" for name in only)])
    frames = folder / TAPE if keep_frames else None
    record(model, folder, Plan(chosen(only), reuse=bool(only), tape=frames, command=command), progress)
    return replay(folder, only, progress=progress)


def observe(folder: Path, only: Sequence[str] = (), *, progress: Progress = lambda _: None) -> TriageReport:
    """Make the recordings in *folder* anew from the frames that were kept with them, and return the report on them.

    Raises:
        CommandError: The frames were not kept.
    """
    from headwatch.bench.triage.observe import observe_again  # noqa: PLC0415 - loads the sidecar's aggregation

    progress(f"{observe_again(folder, folder)} recordings observed again")
    return replay(folder, only, progress=progress)


def live(model: Path, only: Sequence[str] = (), *, progress: Progress = lambda _: None) -> TriageReport:
    """Record with *model* into a folder that is thrown away, and return the report on it.

    Raises:
        CommandError: A server does not start, or refuses a request.
    """
    with tempfile.TemporaryDirectory(prefix="headwatch-triage-") as folder:
        return record_to(model, Path(folder), only, progress=progress)


def _provenance(folder: Path) -> dict[str, Any]:
    meta = recording.read(folder / f"{recording.BASELINE}{recording.SUFFIX}").meta
    return {name: value for name, value in meta.items() if name not in {"scenario", "run", "split"}}
