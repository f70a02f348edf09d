"""``headwatch control``: what is sampled, changed while servers run, through the sidecar's HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

ACTIONS = {
    "show": "what is ordered, until when, and which workers follow",
    "set": "order a rate, strides or detail, for everything or for one route",
    "off": "stop capture in every worker and front end",
    "on": "let capture go on",
    "raise": "sample more of some requests for a time",
    "end": "end a raise before its time",
    "reset": "take orders back: the workers' own files hold again",
    "audit": "who changed what, when",
}
_READS = ("show", "audit")
_LIMITED = ("set", "off", "on", "raise")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{" + ",".join(ACTIONS) + "}")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--url", help="the sidecar's address (default: http.host and http.port of the configuration)")
        action.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
        action.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        if name not in _READS:
            action.add_argument("--token-file", metavar="FILE", help="bearer token (default: http.token_file)")
            action.add_argument("--why", default="", help="for the audit")
            action.add_argument("--wait", type=float, default=5.0, metavar="SECONDS",
                                help="wait so long at most until every worker follows (default: 5)")  # fmt: skip
        if name in {"set", "raise", "reset"}:
            action.add_argument("--route", help="this route alone, as request fields name it")
        if name in {"set", "raise"}:
            action.add_argument("--rate", type=float, dest="sample_rate", help="share of requests sampled, 0 to 1")
            action.add_argument("--step-stride", type=int, help="every how many generated rows one is summarised")
            action.add_argument("--prefill-stride", type=int, help="the same of prompt rows; 0: the last one alone")
            action.add_argument("--detail", type=int, help="detail level")
        if name in _LIMITED:
            action.add_argument("--for", type=float, dest="seconds", metavar="SECONDS", required=name == "raise",
                                help="put back after so long" + ("" if name == "raise" else " (0: never)"))  # fmt: skip
        if name == "raise":
            action.add_argument("--model", help="this served model alone")
            action.add_argument("--adapter", help="this adapter alone")
            action.add_argument("--context-from", type=int, metavar="TOKENS", help="contexts of at least so many tokens")
            action.add_argument("--context-to", type=int, metavar="TOKENS", help="contexts of less than so many tokens")
        if name == "end":
            action.add_argument("number", type=int, help="as `headwatch control show` lists it")
        if name == "audit":
            action.add_argument("--limit", type=int, default=20, help="how many changes, the latest first (default: 20)")


def run(namespace: argparse.Namespace) -> int:
    """Ask or change, and print; return 0.

    Raises:
        ConfigError: The configuration or the token's file is wrong.
        CommandError: The sidecar does not answer, or refuses.
    """
    from headwatch.cli.api import call
    from headwatch.cli.output import print_json
    from headwatch.config_file import load
    from headwatch.doctor.context import sidecar_url
    from headwatch.secret_file import read_secret

    loaded = load(path=namespace.config)
    url = namespace.url or sidecar_url(loaded)
    if namespace.action == "audit":
        answer = call(url, f"/api/v1/control/audit?limit={namespace.limit}")
    elif namespace.action == "show":
        answer = call(url, "/api/v1/control")
    else:
        path = namespace.token_file or loaded.config.http.token_file
        token = read_secret("http.token_file", path).decode("latin-1") if path else ""
        answer = _followed(url, call(url, "/api/v1/control", change_of(namespace), token), namespace.wait)
    if namespace.json:
        print_json(answer)
    elif namespace.action == "audit":
        _print_audit(answer)
    else:
        _print_state(answer)
    return 0


def change_of(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return the body of the change that the command line asks for."""
    given = {name: value for name, value in vars(namespace).items() if value is not None}

    def picked(*names: str) -> dict[str, Any]:
        return {name: given[name] for name in names if name in given}

    change: dict[str, Any] = {"action": namespace.action, "who": _who(), "why": namespace.why}
    if namespace.action in {"set", "raise"}:
        change["to"] = picked("sample_rate", "step_stride", "prefill_stride", "detail")
    if namespace.action == "raise":
        change["target"] = picked("model", "route", "adapter", "context_from", "context_to")
    elif namespace.action in {"set", "reset"}:
        change |= picked("route")
    return change | picked("seconds", "number")


def _who() -> str:
    import getpass
    import os
    import platform

    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        user = str(os.geteuid())
    return f"{user}@{platform.node()}"[:128]


def _followed(url: str, answer: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the state once every worker follows, or after *seconds*."""
    import time

    from headwatch.cli.api import call

    deadline = time.monotonic() + seconds
    while answer["acknowledged"] < answer["of"] and time.monotonic() < deadline:
        time.sleep(0.2)
        answer = call(url, "/api/v1/control")
    return answer


def _print_state(state: dict[str, Any]) -> None:
    from headwatch.cli.output import print_table

    if not state["live"]:
        print(state["reason"])
        return
    until = f", for {state['seconds_left']:,.0f} s more" if state["seconds_left"] is not None else ""
    print(f"epoch {state['epoch']}, acknowledged by {state['acknowledged']} of {state['of']} workers")
    print(f"capture: {'on' if state['enabled'] else 'off'}{until}")
    print(f"ordered: {_values(state['everything']) or 'nothing; the files of the workers hold'}")
    for route, values in state["routes"].items():
        print(f"route {route!r}: {_values(values)}")
    for item in state["raises"]:
        print(f"raise {item['number']}: {_values(item['to'])} where {_values(item['target']) or 'anything'}, for "
              f"{item['seconds_left']:,.0f} s more, by {item['who']}{': ' if item['why'] else ''}{item['why']}")  # fmt: skip
    print_table(
        ("worker", "epoch", "follows", "rate", "step stride", "detail", "messages refused"),
        [
            (
                f"{worker['instance']}/{worker['rank']}", str(worker["epoch"]), "yes" if worker["acknowledged"] else "no",
                f"{worker['sample_rate']:g}", str(worker["step_stride"]), str(worker["detail"]),
                _values(worker["refused"]) or "none",
            )
            for worker in state["workers"]
        ],
    )  # fmt: skip


def _print_audit(entries: Iterable[dict[str, Any]]) -> None:
    for entry in entries:
        why = f": {entry['why']}" if entry["why"] else ""
        print(f"{entry['time']}  {entry['epoch']}  {entry['action']}  {entry['who']}{why}")
        for name in entry["new"]:
            print(f"    {name}: {entry['old'][name]} → {entry['new'][name]}")


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
