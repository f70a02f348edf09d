"""``headwatch sidecar``: run the sidecar until it is told to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
    parser.add_argument("--json", action="store_true", help="at the end, print one JSON document on stdout")


def run(namespace: argparse.Namespace) -> int:
    """Run the sidecar; return 0 after SIGTERM or SIGINT.

    Raises:
        ConfigError: The configuration is wrong.
        CommandError: A port is in use, or the extra is not installed.
        StoreError: The store cannot be opened.
    """
    import time

    from headwatch.cli.output import print_json, stdout_to_stderr
    from headwatch.config_file import load
    from headwatch.errors import CommandError

    loaded = load(path=namespace.config)
    started = time.monotonic()
    with stdout_to_stderr():
        try:
            from headwatch.pipeline import run_sidecar
        except ImportError as error:
            raise CommandError(f"the sidecar needs {error.name}; run: pip install 'headwatch[sidecar]'") from error
        code = run_sidecar(loaded)
    if namespace.json:
        print_json({"exit_code": code, "seconds": round(time.monotonic() - started, 3)})
    return code
