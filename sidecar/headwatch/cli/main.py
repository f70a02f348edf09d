"""The ``headwatch`` command.

A command's module is imported when it is chosen, so ``headwatch --help`` loads neither torch nor a telemetry library.
Whatever headwatch raises on purpose becomes one line on stderr and an exit code: 2 for a wrong configuration or command
line, 1 for what failed.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from typing import TYPE_CHECKING

from headwatch import __version__
from headwatch.errors import ConfigError, HeadwatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "sidecar": "run the sidecar beside a vLLM server",
    "demo": "watch a real model stop reading its documents when retrieval breaks",
    "doctor": "say what is wrong with an installation or a running pair",
    "verify": "prove, on a model, that every exported number is the model's own attention",
    "config": "check the configuration, or show what is in force and where it comes from",
    "dashboards": "write the Grafana files, or check them",
}
INTERRUPTED = 130


def parser_for(chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of the *chosen* command filled in."""
    parser = argparse.ArgumentParser(prog="headwatch", description="Attention observability for LLM inference servers.")
    parser.add_argument("--version", action="version", version=f"headwatch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == chosen:
            importlib.import_module(f"headwatch.cli.{name}").add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in *argv* (default: the process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in arguments if word in COMMANDS), None)
    namespace = parser_for(chosen).parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        code: int = importlib.import_module(f"headwatch.cli.{namespace.command}").run(namespace)
    except HeadwatchError as error:
        print(f"headwatch: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `headwatch … | head`
        sys.stderr.close()
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
