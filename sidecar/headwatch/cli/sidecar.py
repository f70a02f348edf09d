"""``headwatch sidecar``: run the sidecar until it is told to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: HEADWATCH_CONFIG)")


def run(namespace: argparse.Namespace) -> int:
    """Run the sidecar; return 0 after SIGTERM or SIGINT.

    Raises:
        ConfigError: The configuration is wrong.
        CommandError: A port is in use, or the extra is not installed.
        StoreError: The store cannot be opened.
    """
    from headwatch.config import load
    from headwatch.errors import CommandError

    loaded = load(path=namespace.config)
    try:
        from headwatch.pipeline import run_sidecar
    except ImportError as error:
        raise CommandError(f"the sidecar needs {error.name}; run: pip install 'headwatch[sidecar]'") from error
    return run_sidecar(loaded)
