"""The ``headwatch`` command.

A command's module is imported when it is chosen, so ``headwatch --help`` loads neither torch nor a telemetry library.
Whatever headwatch raises on purpose becomes one line on stderr and an exit code: 2 for a wrong configuration or command
line, 1 for what failed.  Stdout then stays empty, with ``--json`` too.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from headwatch import __version__
from headwatch.errors import CommandError, ConfigError, HeadwatchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

COMMANDS = {
    "sidecar": "run the sidecar beside a vLLM server",
    "demo": "watch a real model stop reading its documents when retrieval breaks",
    "doctor": "say what is wrong with an installation or a running pair, and what to do",
    "verify": "prove, on a model, that every exported number is the model's own attention",
    "calibrate": "find out which heads of a model read documents, and write its head map",
    "bench": "time what capture costs on this machine, and what other ways to the same numbers cost",
    "compare": "hold two deployments, releases, arms or time ranges side by side, with an exit code for CI",
    "baseline": "what normal is: list, show, learn, pin, promote, roll back, compare, export, import",
    "drift": "where detection stands, what would have paged, and the windows that it looks at as a file",
    "control": "change what is sampled while servers run: off switch, rates, strides, detail",
    "incident": "what was found, whose it is, how it ended: list, show, ack, resolve, silence, report",
    "deploy-event": "mark a release, so that what follows it is explained or expected",
    "canary": "send fixed prompts and hold the model against its fingerprint",
    "config": "check the configuration, or show what is in force and where it comes from",
    "store": "what the store holds, is it whole: status, check, migrate, backup, restore, compact, aside, purge, ddl",
    "text": "read the kept text of a request with one's own key, or make a key",
    "dashboards": "write the Grafana files, or check them",
    "version": "print the version",
}
FAILED = 1
MISUSED = 2
INTERRUPTED = 130


class UsageError(CommandError):
    """The command line is wrong."""

    reason = "usage"


class Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and end the process."""

    def error(self, message: str) -> NoReturn:
        """Raise *message* as :class:`UsageError`."""
        raise UsageError(f"{message}; see {self.prog} --help")


def parser_for(chosen: str | None) -> Parser:
    """Return the parser, with the arguments of the *chosen* command filled in."""
    parser = Parser(prog="headwatch", description="Attention observability for LLM inference servers.")
    parser.add_argument("--version", action="version", version=f"headwatch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == chosen:
            _module(name).add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in *argv* (default: the process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except HeadwatchError as error:
        print(f"headwatch: error: {' '.join(str(error).split())}", file=sys.stderr)
        return MISUSED if isinstance(error, (ConfigError, UsageError)) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `headwatch … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush does not fail as well
        return FAILED
    return code


def _run(arguments: list[str]) -> int:
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    try:
        namespace = parser_for(chosen).parse_args(arguments)
    except SystemExit as ended:  # --help and --version have printed what they are asked for
        return int(ended.code or 0)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each canary tells nothing
    code: int = _module(namespace.command).run(namespace)
    return code


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"headwatch.cli.{command.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
