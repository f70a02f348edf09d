"""``headwatch drift``: where detection stands, what would have paged, and the windows that it looks at as a file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from headwatch.config import Config
    from headwatch.drift.backtest import Replayed
    from headwatch.drift.keeper import Keeper
    from headwatch.drift.kept import NewBaseline
    from headwatch.findings import DriftEvent

ACTIONS = {
    "status": "where detection stands, and what speaks most for a change",
    "backtest": "replay windows that are kept and say what would have paged",
    "export": "write windows that are kept to a file: a recording, or one side of a comparison",
}
_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from headwatch.cli.drift_files import add_range

    actions = parser.add_subparsers(dest="action", required=True, metavar="{" + ",".join(ACTIONS) + "}")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
        action.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        if name != "status":
            add_range(action)
        if name == "backtest":
            action.add_argument("--baseline", metavar="VERSION|FILE|none",
                                help="against which (default: the one in force; none: one is learned on the way)")  # fmt: skip
            action.add_argument("--interval", type=float, metavar="WINDOWS", help="another promise than the configured one")
        if name == "export":
            action.add_argument("file", type=Path, metavar="FILE")
            action.add_argument("--note", default="", help="where the windows come from")


def run(namespace: argparse.Namespace) -> int:
    """Do what was asked and print it; return 0.

    Raises:
        ConfigError: The configuration is wrong.
        CommandError: There is nothing to show or replay.
        DriftStateError: A baseline cannot be read.
        HistoryError: A history cannot be read or written.
    """
    from headwatch.config_file import load

    config = load(path=namespace.config).config
    {"status": _status, "backtest": _backtest, "export": _export}[namespace.action](namespace, config)
    return 0


def _status(asked: argparse.Namespace, config: Config) -> None:
    from headwatch.cli.drift_files import moment, open_history, open_keeper
    from headwatch.cli.output import print_json, print_table

    with open_keeper(config) as keeper, open_history(config) as history:
        facts, (_, version), window = keeper.facts(), keeper.in_force(), keeper.window()
        span, times, count = history.span(), history.times(), len(history.numbers())
        suspect = len(keeper.suspects(*span)) if span else 0
    status = facts.get("status")
    told = {
        "status": status, "baseline": version, "window": window, "learning_stopped": bool(facts.get("frozen")),
        "history": {"windows": count, "suspect": suspect, "first": span and span[0], "last": span and span[1],
                    "start_ns": times and times[0], "end_ns": times and times[1]},
    }  # fmt: skip
    if asked.json:
        print_json(told)
        return
    if status is None:
        print("No window has been judged yet.")
    else:
        print(_state(status))
        against = f"baseline {version}" if version else "no baseline yet"
        print(f"Last window: {window}, which ended {moment(status['time_ns'])} UTC, against {against}.")
        print(f"Clock: 10^{status['clock']:.2f}; pages at 10^{status['threshold']:.2f}.")
    if told["learning_stopped"]:
        print("Nothing is learned while an incident is open.")
    if span and times:
        print(f"History: {count} windows, {moment(times[0])} to {moment(times[1])} UTC; {suspect} of them teach nothing.")
    evidence = (status or {}).get("evidence", ())[:_SHOWN]
    if evidence:
        print_table(
            ("evidence", "effect, sd", "before", "now", "what", "stratum or scope"),
            [
                (f"10^{one['log10_evidence']:.2f}", f"{one['effect']:+.2f}", f"{one['before']:.4g}", f"{one['after']:.4g}",
                 one["name"], one["stratum"])
                for one in evidence
            ],
        )  # fmt: skip


def _state(status: dict[str, Any]) -> str:
    from headwatch.cli.drift_files import moment

    if status["state"] == "warming_up":
        when = f", pages from {moment(status['pages_from_ns'])} UTC" if status["pages_from_ns"] else ""
        return f"State: warming up{when}."
    return {"watching": "State: watching.", "shadow": "State: shadow; what would page is recorded and not sent."}.get(
        status["state"], f"State: {status['state']}."
    )


def _backtest(asked: argparse.Namespace, config: Config) -> None:
    import msgspec

    from headwatch.cli.drift_files import chosen, moment, open_history, open_keeper, window_seconds
    from headwatch.cli.output import print_json, print_table
    from headwatch.drift.backtest import backtest
    from headwatch.drift.engine import interval_windows

    drift = config.drift if asked.interval is None else msgspec.structs.replace(config.drift, interval_windows=asked.interval)
    baseline = None
    with open_history(config, asked.history) as history:
        first, last = chosen(history, asked)
        if asked.baseline != "none":
            with open_keeper(config, make=asked.baseline is not None) as keeper:
                baseline = _baseline(asked.baseline, keeper)
            if asked.first is None and asked.history is None and asked.count is None:
                first = _after(baseline, first, last)
        seconds = window_seconds(config) or config.window.seconds
        pages, stepped, missing, began = [], 0, 0, time.monotonic()
        for replayed in backtest(history, drift, seconds, baseline, first, last):
            stepped += 1
            missing += replayed.step.status.state == "warming_up"
            if replayed.step.event is not None:
                pages.append(replayed)
            if stepped % 500 == 0:
                print(f"backtest: {stepped:,} windows, {len(pages)} pages", file=sys.stderr, flush=True)
    interval = interval_windows(drift, seconds)
    judged = stepped - missing
    if asked.json:
        print_json({
            "first": first, "last": last, "windows": stepped, "judged": judged, "warming_up": missing,
            "interval_windows": interval, "false_pages_expected_at_most": judged / interval,
            "episodes": sum(page.opens for page in pages), "seconds": time.monotonic() - began,
            "pages": [_page(page) for page in pages],
        })  # fmt: skip
        return
    print(f"{judged:,} windows judged ({missing:,} more while warming up): episodes {sum(page.opens for page in pages)}, "
          f"pages {len(pages)}; the promise allows {judged / interval:.2f} false ones.")  # fmt: skip
    if pages:
        print_table(
            ("window", "ended, UTC", "began, UTC", "episode", "evidence", "effect, sd", "what", "stratum or scope"),
            [
                (str(page.window.number), moment(page.window.end_ns), moment(event.since_ns), "new" if page.opens else "",
                 f"10^{event.log10_evidence:.1f}", *_leading(event))
                for page in pages if (event := page.step.event) is not None
            ],
        )  # fmt: skip


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


def _page(page: Replayed) -> dict[str, Any]:
    event = page.step.event
    assert event is not None  # only pages are kept
    return {"window": page.window.number, "opens": page.opens, "event": event}


def _leading(event: DriftEvent) -> tuple[str, str, str]:
    if not event.evidence:
        return "", "", ""
    leading = event.evidence[0]
    return f"{leading.effect:+.2f}", leading.name, leading.stratum


def _export(asked: argparse.Namespace, config: Config) -> None:
    from headwatch import __version__
    from headwatch.cli.drift_files import chosen, open_history
    from headwatch.cli.output import print_json

    with open_history(config, asked.history) as history:
        first, last = chosen(history, asked)
        meta = {
            **history.meta(), "headwatch": __version__, "exported_ns": time.time_ns(), "note": asked.note,
            "window": {"seconds": config.window.seconds, "requests": config.window.requests},
        }  # fmt: skip
        count = history.export(asked.file, meta, first=first, last=last)
    if asked.json:
        print_json({"file": str(asked.file), "windows": count, "first": first, "last": last})
    else:
        print(f"{count} windows, {first} to {last}, are in {asked.file}.")
