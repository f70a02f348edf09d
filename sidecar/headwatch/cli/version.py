"""``headwatch version``: which headwatch, vLLM and Python are installed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(namespace: argparse.Namespace) -> int:
    """Print the versions; return 0."""
    import platform

    from headwatch import __version__
    from headwatch.cli.output import print_json
    from headwatch.doctor.context import engine_version
    from headwatch.wire.codec import READABLE, VERSION

    engine = engine_version()
    if namespace.json:
        print_json({
            "headwatch": __version__,
            "vllm": engine,
            "python": platform.python_version(),
            "wire": {"writes": VERSION, "reads": list(READABLE)},
        })
    else:
        print(f"headwatch {__version__}, vLLM {engine or 'not installed'}, Python {platform.python_version()}")
    return 0
