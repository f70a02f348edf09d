"""``headwatch config``: is the configuration right, and what is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from headwatch.config import Loaded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=("check", "show"))
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: HEADWATCH_CONFIG)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(namespace: argparse.Namespace) -> int:
    """Check or show; return 0 where the configuration is right.

    Raises:
        ConfigError: It is not.
    """
    from headwatch.cli.output import print_json
    from headwatch.config import load

    loaded = load(path=namespace.config)
    if namespace.action == "check":
        if namespace.json:
            print_json({"ok": True, "origins": loaded.origins})
        else:
            print(f"configuration: in order, {len(loaded.origins)} values differ from their defaults")
        return 0
    values = settings(loaded)
    if namespace.json:
        print_json(values)
        return 0
    width = max(len(name) for name in values)
    for name, item in values.items():
        print(f"{name:<{width}}  {item['value']!r:<40}  {item['origin']}")
    return 0


def settings(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """Return every setting as ``section.key`` to its value, with secrets masked, and its origin."""
    import msgspec

    from headwatch.config import mask_url

    shown = {}
    for section, values in msgspec.to_builtins(loaded.config).items():
        for key, value in values.items():
            name = f"{section}.{key}"
            masked = mask_url(value) if isinstance(value, str) and "://" in value else value
            shown[name] = {"value": masked, "origin": loaded.origins.get(name, "default")}
    return shown
