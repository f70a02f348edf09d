"""``headwatch canary``: fixed prompts through the server, held against the fingerprint of the model that was pinned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import argparse

    from headwatch.canary.compare import Comparison

ACTIONS = {
    "run": "send the canaries now and say whether the model is the one that was pinned",
    "pin": "take what the model gives now as its fingerprint",
    "compare": "hold one fingerprint against another: exit code 1 where they are not of one model, or one has less",
    "explain": "say in words what the last run, or a comparison of two fingerprints, shows",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{" + ",".join(ACTIONS) + "}")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        action.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
        if name == "compare":
            action.add_argument("before", type=Path, metavar="A", help="fingerprint of what is in production")
            action.add_argument("after", type=Path, metavar="B", help="fingerprint of the candidate")
            continue
        action.add_argument("--url", help="the sidecar's address (default: http.host and http.port of the configuration)")
        if name == "explain":
            action.add_argument("files", type=Path, nargs="*", metavar="FINGERPRINT",
                                help="two fingerprints (default: the last run of the running sidecar)")  # fmt: skip
            continue
        action.add_argument("--token-file", metavar="FILE", help="bearer token of the sidecar (default: http.token_file)")
        action.add_argument("--wait", type=float, metavar="SECONDS", default=3600.0 if name == "pin" else 300.0,
                            help="give up after so long (default: %(default)g)")  # fmt: skip
        action.add_argument("--stand-alone", action="store_true",
                            help="no sidecar runs: receive on wire.endpoint and ask the server from here")  # fmt: skip
        action.add_argument("--endpoint", metavar="URL", help="OpenAI server, with --stand-alone (default: canary.endpoint)")
        if name == "run":
            action.add_argument("--fingerprint", type=Path, metavar="FILE",
                                help="hold it against this one, with --stand-alone (default: the one in force)")  # fmt: skip
        else:
            action.add_argument("--runs", type=int, help="pin from so many runs (default: 3 in float32, 20 elsewhere)")
            action.add_argument("--note", default="", help="kept in the fingerprint, for example the release")
            action.add_argument("--out", type=Path, metavar="FILE",
                                help="write the fingerprint here (with --stand-alone: and nowhere else)")  # fmt: skip


def run(namespace: argparse.Namespace) -> int:
    """Run, pin, compare or explain; return 1 where a model is not the one that was pinned, or not all of it was compared.

    Raises:
        ConfigError: The configuration or a file it names is wrong.
        CommandError: The sidecar does not answer or refuses.
        CanaryError: The server could not be asked, or a fingerprint not be used.
    """
    from headwatch.cli.output import print_json, stdout_to_stderr

    with stdout_to_stderr():
        if namespace.action == "compare":
            from headwatch.canary.compare import compare_fingerprints
            from headwatch.canary.fingerprint import load as load_fingerprint

            result: Any = compare_fingerprints(load_fingerprint(namespace.before), load_fingerprint(namespace.after))
        elif namespace.action == "explain":
            result = _explained(namespace)
        elif namespace.action == "run":
            result = _run(namespace)
        else:
            result = _pin(namespace)
    if namespace.json:
        print_json(result)
    elif namespace.action == "pin":
        print(f"pinned {result['model']} ({result['dtype']}) from {result['runs']} runs, "
              f"{'exact' if result['exact'] else 'noise measured'}: {result['path']}")
    else:
        from headwatch.canary.explain import explain

        print(explain(result))
    return int(namespace.action not in {"pin", "explain"} and (result.failed or not result.whole))


def _run(namespace: argparse.Namespace) -> Comparison:
    from headwatch.canary.compare import compare
    from headwatch.errors import CommandError

    if not namespace.stand_alone:
        if namespace.fingerprint or namespace.endpoint:
            raise CommandError("--fingerprint and --endpoint go with --stand-alone: a running sidecar has its own (canary.*)")
        return _latest(_ordered(namespace, "compared", "/api/v1/canary/run", {}))
    from headwatch.canary.fingerprint import load as load_fingerprint
    from headwatch.cli.canary_alone import Alone

    with Alone(namespace) as alone:
        fingerprint = load_fingerprint(namespace.fingerprint) if namespace.fingerprint else alone.pinned()
        return compare(fingerprint, alone.send())


def _pin(namespace: argparse.Namespace) -> dict[str, Any]:
    import msgspec

    from headwatch.canary.fingerprint import Fingerprint, save
    from headwatch.canary.state import facts_of
    from headwatch.cli.api import call
    from headwatch.config_file import load
    from headwatch.doctor.context import sidecar_url

    if namespace.stand_alone:
        from headwatch.cli.canary_alone import Alone

        with Alone(namespace) as alone:
            fingerprint, path = alone.pin()
        facts: dict[str, Any] = msgspec.to_builtins(facts_of(fingerprint, path))
        return facts
    state = _ordered(namespace, "pinned", "/api/v1/canary/pin", {"runs": namespace.runs, "note": namespace.note})
    facts = state["health"]["fingerprint"]
    if namespace.out:
        url = namespace.url or sidecar_url(load(path=namespace.config))
        save(msgspec.convert(call(url, "/api/v1/canary/fingerprint"), Fingerprint), namespace.out)
        facts["path"] = str(namespace.out)
    return facts


def _explained(namespace: argparse.Namespace) -> Comparison:
    from headwatch.canary.compare import compare_fingerprints
    from headwatch.canary.fingerprint import load as load_fingerprint
    from headwatch.cli.api import call
    from headwatch.config_file import load
    from headwatch.doctor.context import sidecar_url
    from headwatch.errors import CommandError

    if namespace.files:
        if len(namespace.files) != 2:  # noqa: PLR2004 - before and after
            raise CommandError("explain takes two fingerprints, or none for the last run of the sidecar")
        return compare_fingerprints(*map(load_fingerprint, namespace.files))
    return _latest(call(namespace.url or sidecar_url(load(path=namespace.config)), "/api/v1/canary"))


def _ordered(
    namespace: argparse.Namespace, wanted: Literal["compared", "pinned"], path: str, body: dict[str, Any]
) -> dict[str, Any]:
    """Return the state once the order is done, and what was *wanted* has come of it and not only of an earlier one.

    Raises:
        CommandError: It failed, or was not done in time.
    """
    import time

    from headwatch.cli.api import call
    from headwatch.config_file import load
    from headwatch.doctor.context import sidecar_url
    from headwatch.errors import CommandError
    from headwatch.secret_file import read_secret

    loaded = load(path=namespace.config)
    url = namespace.url or sidecar_url(loaded)
    token_file = namespace.token_file or loaded.config.http.token_file
    token = read_secret("http.token_file", token_file).decode("latin-1") if token_file else ""
    state: dict[str, Any] = call(url, path, body, token)
    number, deadline = state["ordered"], time.monotonic() + namespace.wait
    while state["done"] < number:
        if time.monotonic() > deadline:
            raise CommandError(f"{url}: not done within {namespace.wait:g} s (--wait); see `headwatch canary explain`")
        time.sleep(0.2)
        state = call(url, "/api/v1/canary")
    if state[wanted] < number:
        nothing = {
            "compared": "a fingerprint was pinned meanwhile, and nothing compared with it yet",
            "pinned": "the order was given up, and what was pinned before is in force; the sidecar's log says why",
        }
        raise CommandError(f"the canaries could not be run, which is no drift: {state['health']['error'] or nothing[wanted]}")
    return state


def _latest(state: dict[str, Any]) -> Comparison:
    import msgspec

    from headwatch.canary.compare import Comparison
    from headwatch.errors import CommandError

    if state["latest"] is None:
        health = state["health"]
        why = health["error"] or f"{health['gathered']} runs gathered to pin the first fingerprint"
        raise CommandError(f"there is no comparison yet: {why}")
    return msgspec.convert(state["latest"], Comparison)
