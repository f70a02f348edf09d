"""``headwatch text``: read the kept text of a request with one's own key, or make a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from headwatch.text.keys import TextKey

ACTIONS = {
    "show": "fetch what is kept of a request's text and decrypt it here, with the key in this environment",
    "key": "print a new key; nothing keeps a copy",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{" + ",".join(ACTIONS) + "}")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        if name == "show":
            action.add_argument("request", help="id of the request, as its client saw it")
            action.add_argument("--url", help="the sidecar's address (default: http.host and http.port of the configuration)")
            action.add_argument("--token-file", metavar="FILE", help="bearer token (default: http.token_file)")
            action.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
            action.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(namespace: argparse.Namespace) -> int:
    """Print a text, or a new key; return 0.

    Raises:
        ConfigError: The configuration, the token's file or a key is wrong.
        CommandError: The sidecar does not answer, refuses, or keeps no such text.
        TextError: The text cannot be opened.
    """
    from headwatch.text.keys import new_key

    if namespace.action == "key":
        print(new_key())
        return 0
    return _show(namespace)


def _show(namespace: argparse.Namespace) -> int:
    import os
    from urllib.parse import quote

    from headwatch.cli.api import call
    from headwatch.cli.output import print_json
    from headwatch.config_file import load
    from headwatch.doctor.context import sidecar_url
    from headwatch.errors import CommandError
    from headwatch.secret_file import read_secret
    from headwatch.text.keys import reading_keys

    loaded = load(path=namespace.config)
    keys = reading_keys(loaded.config.text, os.environ)
    path = namespace.token_file or loaded.config.http.token_file
    token = read_secret("http.token_file", path).decode("latin-1") if path else ""
    url = namespace.url or sidecar_url(loaded)
    rows = call(url, f"/api/v1/texts?request={quote(namespace.request, safe='')}", token=token)
    if not rows:
        raise CommandError(f"no text is kept of the request {namespace.request!r}: its route keeps none, it was not sampled, "
                           "or it has expired")
    opened = [_opened(row, keys) for row in rows]
    if namespace.json:
        print_json(opened)
        return 0
    for row in opened:
        found = ", ".join(f"{name} {count}" for name, count in row["redactions"].items()) or "nothing"
        print(_plain(f"# {row['kind']} of {row['request_id']}, route {row['route'] or '(none)'}: {row['kept_chars']} "
                     f"characters of {row['chars']}; redacted: {found}"))  # fmt: skip
        print(_plain(row["text"]))
    return 0


def _opened(row: dict[str, Any], keys: Mapping[str, TextKey]) -> dict[str, Any]:
    """Return *row* with its text in place of the ciphertext."""
    import base64
    import binascii

    from headwatch.errors import TextError
    from headwatch.text.seal import Belonging, unseal

    try:
        body = base64.b64decode(row.pop("body"), validate=True)
        belonging = Belonging(row["service"], row["request_id"], row["kind"], int(row["time_ns"]))
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise TextError("malformed", "what the sidecar answered is no sealed text") from None
    return {**row, "text": unseal(body, keys, belonging)}


def _plain(text: str) -> str:
    """Return *text* without what could steer a terminal."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")
