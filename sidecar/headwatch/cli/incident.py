"""``headwatch incident``: what was found, whose it is, and how it ended; on the file, whether the sidecar runs or not.

``effects`` alone asks the running sidecar: its store may be embedded, and such a store belongs to one process.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwatch.findings import CLASSES, RULINGS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from headwatch.config import Config
    from headwatch.findings import Incident
    from headwatch.incident.book import Book
    from headwatch.incident.silences import Silence

ACTIONS = {
    "list": "incidents, the latest first",
    "show": "one incident, to be read at three in the morning",
    "effects": "how far the distributions of its heads moved, beside what chance alone gives; the sidecar must run",
    "ack": "say that you look after it, and what the page was where you know",
    "resolve": "close it, with what the page was",
    "silence": "send no page of some kind for a time; without --for: what is silent now",
    "report": "write one incident as a page of HTML with pictures",
}
STATES = ("live", "open", "acknowledged", "resolved")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{" + ",".join(ACTIONS) + "}")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
        action.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        if name in {"ack", "resolve"}:
            action.add_argument("id", help="of the incident; the beginning is enough")
            action.add_argument("--note", default="", help="for whoever reads it next")
        if name in {"ack", "resolve", "silence"}:
            action.add_argument("--who", help="who does it (default: you)")
        if name in {"show", "effects", "report"}:
            action.add_argument("id", nargs="?", help="as for ack (default: the latest that is open, else the latest)")
        if name in _ADD:
            _ADD[name](action)


def _add_list(action: argparse.ArgumentParser) -> None:
    action.add_argument("--state", choices=STATES, help="these alone (live: open and acknowledged)")
    action.add_argument("--limit", type=int, default=20, help="how many at most (default: 20)")


def _add_show(action: argparse.ArgumentParser) -> None:
    action.add_argument("--color", choices=("auto", "always", "never"), default="auto",
                        help="auto: on a terminal, unless NO_COLOR is set (default: auto)")  # fmt: skip


def _add_ack(action: argparse.ArgumentParser) -> None:
    action.add_argument("--ruling", choices=RULINGS,
                        help="what the page was, where you know it already; resolve may say otherwise")  # fmt: skip


def _add_resolve(action: argparse.ArgumentParser) -> None:
    action.add_argument("--ruling", choices=RULINGS, required=True,
                        help="what the page was: it counts in the precision of pages")  # fmt: skip


def _add_silence(action: argparse.ArgumentParser) -> None:
    from headwatch.cli.durations import duration

    action.add_argument("--for", type=duration, dest="seconds", metavar="DURATION", help="for example 30m, 2h, 1d")
    action.add_argument("--class", choices=CLASSES, dest="drift_class", default="", help="this class alone")
    action.add_argument("--model", default="", help="this served model alone")
    action.add_argument("--route", default="", help="this route alone")
    action.add_argument("--why", default="", help="for whoever wonders")
    action.add_argument("--end", type=int, metavar="NUMBER", help="end a silence now")


def _add_report(action: argparse.ArgumentParser) -> None:
    action.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: incident-<id>.html)")


def _add_effects(action: argparse.ArgumentParser) -> None:
    action.add_argument("--url", help="the sidecar's address (default: http.host and http.port of the configuration)")


_ADD = {
    "list": _add_list, "show": _add_show, "effects": _add_effects, "ack": _add_ack, "resolve": _add_resolve,
    "silence": _add_silence, "report": _add_report,
}  # fmt: skip


def run(namespace: argparse.Namespace) -> int:
    """Do what was asked and print it; return 0.

    Raises:
        ConfigError: The configuration is wrong.
        CommandError: There is nothing to show, a file cannot be written, or no sidecar answers.
        IncidentError: There is no such incident, or it cannot be changed.
    """
    from headwatch.cli.incidents import incident_file, open_book
    from headwatch.config_file import load

    loaded = load(path=namespace.config)
    config = loaded.config
    if namespace.action == "effects":
        from headwatch.cli import incident_effects

        incident_effects.run(namespace, loaded)
        return 0
    if namespace.action == "list" and not incident_file(config).exists():
        _print_list(namespace, [], {})
        return 0
    with open_book(config, make=namespace.action == "silence") as book:
        actions: dict[str, Callable[[argparse.Namespace, Config, Book], None]] = {
            "list": lambda asked, _, book: _print_list(asked, book.list(asked.state, asked.limit), book.precision()),
            "show": _show, "ack": _ack, "resolve": _resolve, "silence": _silence, "report": _report,
        }  # fmt: skip
        actions[namespace.action](namespace, config, book)
    return 0


def _print_list(asked: argparse.Namespace, incidents: Sequence[Incident], precision: dict[str, tuple[int, int]]) -> None:
    from headwatch.cli.output import print_json, print_table
    from headwatch.incident.screen import moment

    if asked.json:
        told = {name: {"true": true, "ruled": ruled} for name, (true, ruled) in precision.items()}
        print_json({"incidents": incidents, "precision": told})
        return
    if not incidents:
        print("No incidents." if asked.state is None else f"No incidents that are {asked.state}.")
    else:
        print_table(
            ("id", "opened, UTC", "state", "severity", "route", "what"),
            [
                (
                    one.id, moment(one.opened_ns)[:16], _standing(one),
                    one.severity + ("" if one.paged else " (no page)"), one.event.route or "all",
                    f"{one.verdict.drift_class}: {one.verdict.cause} ({one.verdict.confidence:.2f})",
                )
                for one in incidents
            ],
        )  # fmt: skip
    for name, (true, ruled) in precision.items():
        print(f"Pages of class {name} that were true: {true} of {ruled} ruled.")


def _standing(incident: Incident) -> str:
    if incident.ruling is None:
        return incident.state
    ruling = incident.ruling.replace("_", " ")
    return ruling if incident.state == "resolved" else f"{incident.state}, {ruling}"


def _show(asked: argparse.Namespace, config: Config, book: Book) -> None:
    from headwatch.cli.output import print_json
    from headwatch.incident.screen import screen
    from headwatch.incident.trail import leads_of, runbook_of

    incident = _chosen(asked, book)
    events, history = book.events(incident.id), book.history(incident.id)
    runbook = runbook_of(incident, config.incident.runbook_url)
    if asked.json:
        print_json({
            "incident": incident, "events": events, "history": history, "rows": leads_of(incident), "runbook": runbook,
        })  # fmt: skip
        return
    colour = asked.color == "always" or (asked.color == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))
    print(screen(incident, history, now_ns=time.time_ns(), runbook=runbook, colour=colour))


def _chosen(asked: argparse.Namespace, book: Book) -> Incident:
    from headwatch.errors import CommandError

    if asked.id:
        return book.get(asked.id)
    found = book.list("live", 1) or book.list(None, 1)
    if not found:
        raise CommandError("no incident has been kept yet")
    return found[0]


def _ack(asked: argparse.Namespace, _: Config, book: Book) -> None:
    from headwatch.cli.incidents import this_person

    _print_change(asked, book.ack(asked.id, asked.who or this_person(), asked.note, asked.ruling))


def _resolve(asked: argparse.Namespace, _: Config, book: Book) -> None:
    from headwatch.cli.incidents import this_person

    _print_change(asked, book.resolve(asked.id, asked.who or this_person(), asked.ruling, asked.note))


def _print_change(asked: argparse.Namespace, incident: Incident) -> None:
    from headwatch.cli.output import print_json
    from headwatch.incident.paint import clean

    if asked.json:
        print_json(incident)
        return
    ruling = f" as {incident.ruling.replace('_', ' ')}" if incident.ruling else ""
    who = incident.acknowledged_by if incident.state == "acknowledged" else incident.resolved_by
    what = f"{incident.verdict.drift_class}: {incident.verdict.cause}"
    print(f"{incident.id} ({what}) is {incident.state} by {clean(who)}{ruling}.")
    if incident.ruling == "known_change":
        closes = "" if incident.state == "resolved" else ", which closes it"
        print(f"Baselines are learned anew from where it began, at the sidecar's next window{closes}.")


def _silence(asked: argparse.Namespace, _: Config, book: Book) -> None:
    from headwatch.cli.incidents import this_person
    from headwatch.cli.output import print_json, print_table
    from headwatch.incident.screen import moment

    if asked.end is not None:
        ended = book.calendar.end_silence(asked.end)
        _print_one_silence(asked, ended, "ended")
    elif asked.seconds is not None:
        made = book.calendar.silence(
            asked.seconds, asked.who or this_person(), asked.why, drift_class=asked.drift_class, model=asked.model,
            route=asked.route,
        )  # fmt: skip
        _print_one_silence(asked, made, f"until {moment(made.until_ns)} UTC")
    else:
        silences = book.calendar.silences()
        if asked.json:
            print_json(silences)
        elif not silences:
            print("Nothing is silent.")
        else:
            print_table(
                ("number", "class", "model", "route", "until, UTC", "by", "why"),
                [
                    (str(one.number), one.drift_class or "any", one.model or "any", one.route or "any",
                     moment(one.until_ns)[:16], one.who, one.why)
                    for one in silences
                ],
            )  # fmt: skip


def _print_one_silence(asked: argparse.Namespace, silence: Silence, what: str) -> None:
    from headwatch.cli.output import print_json
    from headwatch.incident.paint import clean

    if asked.json:
        print_json(silence)
    else:
        about = ", ".join(clean(part) for part in (silence.drift_class, silence.model, silence.route) if part) or "everything"
        print(f"Silence {silence.number} of {about}: {what}.  Incidents are recorded all the same.")


def _report(asked: argparse.Namespace, config: Config, book: Book) -> None:
    from headwatch.cli.output import print_json
    from headwatch.errors import CommandError

    try:
        from headwatch.incident.report import render
    except ImportError as error:
        raise CommandError(f"a report needs {error.name}; run: pip install 'headwatch[sidecar]'") from error
    from headwatch.incident.series import read_series
    from headwatch.incident.trail import runbook_of
    from headwatch.places import HISTORY, drift_folder

    incident = _chosen(asked, book)
    path = asked.out or Path(f"incident-{incident.id}.html")
    page = render(
        incident, book.history(incident.id),
        read_series(drift_folder(config) / HISTORY, incident), runbook_of(incident, config.incident.runbook_url),
    )  # fmt: skip
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
    told: dict[str, Any] = {"id": incident.id, "file": str(path.resolve())}
    if asked.json:
        print_json(told)
    else:
        print(f"Wrote {told['file']}")
