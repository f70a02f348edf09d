"""``headwatch config``: is the configuration right, and what is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from headwatch.config_file import Loaded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{check,show}")
    check = actions.add_parser("check", help="is it right: keys, values, addresses, weights, head map")
    show = actions.add_parser("show", help="every setting, its value (secrets masked) and where it comes from")
    for action in (check, show):
        action.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
        action.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    show.add_argument("--changed", action="store_true", help="only settings that a file, a variable or a flag has set")


def run(namespace: argparse.Namespace) -> int:
    """Check or show; return 0 where the configuration is right.

    Raises:
        ConfigError: It is not.
    """
    from headwatch.config_file import load

    loaded = load(path=namespace.config)
    if namespace.action == "check":
        return _check(loaded, as_json=namespace.json)
    return _show(settings(loaded), changed=namespace.changed, as_json=namespace.json)


def settings(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """Return every setting as ``section.key`` to its value in force, with secrets masked, and its origin."""
    import msgspec

    from headwatch.addresses import mask_url
    from headwatch.places import store_url

    shown = {}
    for section, values in msgspec.to_builtins(loaded.config).items():
        for key, given in values.items():
            name = f"{section}.{key}"
            value = store_url(loaded.config.store) if name == "store.url" else given
            masked = mask_url(value) if isinstance(value, str) and "://" in value else value
            shown[name] = {"value": masked, "origin": loaded.origins.get(name, "default")}
    return shown


def _check(loaded: Loaded, *, as_json: bool) -> int:
    from headwatch.cli.output import print_json
    from headwatch.drift.weights import clocks

    clocks(loaded.config.drift)  # raises where it names a family or a feature that there is not
    if loaded.config.grounding.head_map:
        from headwatch.aggregate.head_map import load_head_map

        load_head_map(loaded.config.grounding.head_map)
    if loaded.config.text.enabled:
        from headwatch.text.redact import redactors

        redactors(loaded.config.text)  # the key and the hook are the sidecar's: they are looked at where it starts
    if as_json:
        print_json({"ok": True, "origins": loaded.origins})
    else:
        count = len(loaded.origins)
        print(f"configuration: in order, {count} {'value is' if count == 1 else 'values are'} set")
    return 0


def _show(shown: dict[str, dict[str, Any]], *, changed: bool, as_json: bool) -> int:
    import json

    from headwatch.cli.output import print_json, print_table

    if changed:
        shown = {name: item for name, item in shown.items() if item["origin"] != "default"}
    if as_json:
        print_json(shown)
    else:  # values as TOML has them: for these types JSON's form is the same
        rows = [(name, json.dumps(item["value"], ensure_ascii=False), item["origin"]) for name, item in shown.items()]
        print_table(("setting", "value", "from"), rows)
    return 0
