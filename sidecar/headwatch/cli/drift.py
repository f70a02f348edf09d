"""``headwatch drift``: where detection stands, and the windows that it looks at as a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from headwatch.config import Config

ACTIONS = {
    "status": "where detection stands, and what speaks most for a change",
    "backtest": "watch windows that are kept once more and say who would have been paged for what",
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
    from headwatch.cli import drift_backtest
    from headwatch.config_file import load

    config = load(path=namespace.config).config
    {"status": _status, "backtest": drift_backtest.run, "export": _export}[namespace.action](namespace, config)
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
        if status.get("shadow_clock") is not None:
            print(f"Clock of families in shadow: 10^{status['shadow_clock']:.2f}; pages nobody.")
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
