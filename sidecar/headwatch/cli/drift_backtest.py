"""``headwatch drift backtest``: which incidents would have opened over windows that are kept, and which would have paged."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from headwatch.config import Config
    from headwatch.drift.keeper import Keeper
    from headwatch.drift.kept import NewBaseline
    from headwatch.findings import Incident
    from headwatch.watch.backtest import Outcome, Told

_TOLD_EVERY = 500
"""Windows between two words of progress."""


def run(asked: argparse.Namespace, config: Config) -> None:
    """Replay what was *asked* for and print it.

    Raises:
        CommandError: There is nothing to replay, or no baseline.
        DriftStateError: A baseline cannot be read.
        HistoryError: A history cannot be read.
    """
    import msgspec

    from headwatch.cli.drift_files import chosen, open_history, open_keeper
    from headwatch.drift.engine import interval_windows
    from headwatch.watch.backtest import Outcome, backtest

    if asked.interval is not None:
        config = msgspec.structs.replace(config, drift=msgspec.structs.replace(config.drift, interval_windows=asked.interval))
    baseline = None
    with open_history(config, asked.history) as history:
        first, last = chosen(history, asked)
        if asked.baseline != "none":
            with open_keeper(config, make=asked.baseline is not None) as keeper:
                baseline = _baseline(asked.baseline, keeper)
            if asked.first is None and asked.history is None and asked.count is None:
                first = _after(baseline, first, last)
        outcome, began = Outcome(), time.monotonic()
        for replayed in backtest(history, config, baseline, first, last):
            outcome.add(replayed)
            if outcome.windows % _TOLD_EVERY == 0:
                print(f"backtest: {outcome.windows:,} windows, {len(outcome.incidents)} incidents, {outcome.pages} pages",
                      file=sys.stderr, flush=True)  # fmt: skip
    interval = interval_windows(config.drift, config.window.seconds)
    if asked.json:
        from headwatch.cli.output import print_json

        judged = outcome.windows - outcome.warming_up
        print_json({
            "first": first, "last": last, "windows": outcome.windows, "judged": judged, "warming_up": outcome.warming_up,
            "interval_windows": interval, "false_pages_expected_at_most": judged / interval, "clock_reached": outcome.reached,
            "pages": outcome.pages, "incidents": [_plain(told) for told in outcome.incidents.values()],
            "seconds": time.monotonic() - began,
        })  # fmt: skip
    else:
        _print(outcome, interval)


def _print(outcome: Outcome, interval: float) -> None:
    from headwatch.cli.drift_files import moment
    from headwatch.cli.output import print_table

    judged, warming = outcome.windows - outcome.warming_up, outcome.warming_up
    print(f"{judged:,} windows judged ({warming:,} more while warming up): incidents {len(outcome.incidents)}, "
          f"pages {outcome.pages}.")  # fmt: skip
    print(f"The clock of drift detection reached its limit {_times(outcome.reached)}; while nothing changes the promise "
          f"allows {judged / interval:.2f}.")  # fmt: skip
    if outcome.incidents:
        print_table(
            ("opened, UTC", "window", "pages", "class/cause", "confidence", "clock", "resolved, UTC", "what"),
            [
                (moment(told.incident.opened_ns), str(told.window), _pages(told), f"{said.drift_class}/{said.cause}",
                 f"{said.confidence:.2f}", _clock(told.incident), moment(told.incident.resolved_ns), said.sentence)
                for told in outcome.incidents.values()
                for said in (told.pages[0] if told.pages else told.incident.verdict,)
            ],
        )  # fmt: skip


def _plain(told: Told) -> dict[str, Any]:
    incident, verdict = told.incident, told.incident.verdict
    return {
        "window": told.window, "opened_ns": incident.opened_ns, "since_ns": incident.event.since_ns,
        "resolved_ns": incident.resolved_ns, "class": verdict.drift_class, "cause": verdict.cause,
        "confidence": verdict.confidence, "would_page": bool(told.pages), "pages": told.pages,
        "why_not": "" if told.pages else _why_not(incident), "incident": incident,
    }  # fmt: skip


def _pages(told: Told) -> str:
    return str(len(told.pages)) if told.pages else f"no: {_why_not(told.incident)}"


def _why_not(incident: Incident) -> str:
    return incident.silenced_why or f"{incident.verdict.drift_class} pages nobody"


def _clock(incident: Incident) -> str:
    """Return what the clock showed; canaries, faults of telemetry and traffic are found without it."""
    return f"10^{incident.event.log10_evidence:.1f}" if incident.event.log10_evidence else "-"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _baseline(text: str | None, keeper: Keeper) -> NewBaseline:
    """Return the baseline that *text* names: a version, a file, or, where it is None, the one in force."""
    from headwatch.drift.baseline_file import read
    from headwatch.drift.kept import NONE
    from headwatch.drift.versions import as_new
    from headwatch.errors import CommandError

    if text is not None and not text.isdecimal():
        return read(Path(text), "imported")
    version = keeper.in_force()[1] if text is None else int(text)
    if version == NONE:
        raise CommandError("no baseline is in force; name one with --baseline, or say `--baseline none` to learn on the way")
    return as_new(keeper, version)


def _after(baseline: NewBaseline, first: int, last: int) -> int:
    """Return the first window that *baseline* did not learn from, where there is one."""
    from headwatch.errors import CommandError

    if not first <= baseline.last_window <= last:
        return first
    if baseline.last_window == last:
        raise CommandError(
            "there is no window after those that the baseline was learned from; say --from to replay these, "
            "or `--baseline none` to begin as a new deployment would"
        )
    return baseline.last_window + 1
