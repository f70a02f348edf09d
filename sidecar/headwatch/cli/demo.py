"""``headwatch demo``: watch a real model stop reading its documents."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

DESCRIPTION = (
    "Start a real vLLM server with headwatch beside it, ask the same questions with right documents, wrong documents and "
    "none, and show what the model's attention did."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("--exit", action="store_true", help="end after the report instead of keeping the servers up")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as one JSON document")
    parser.add_argument("--dir", type=Path, metavar="DIR",
                        help="folder for store, logs and report (default: ./headwatch-demo/<time>)")  # fmt: skip
    parser.add_argument("--record-baseline", type=Path, metavar="FILE",
                        help="show nothing; record into FILE what is normal for the demo's model and documents")  # fmt: skip


def run(namespace: argparse.Namespace) -> int:
    """Run the demo; return 0, or 128 + n where signal n ended it.

    Raises:
        CommandError: The model, a server or the store does not do what it should.
    """
    from rich.console import Console

    from headwatch.demo.signals import Interrupted, interruptible
    from headwatch.errors import CommandError

    progress, output = Console(stderr=True), Console()
    work_dir = namespace.dir or Path("headwatch-demo") / time.strftime("%Y%m%dT%H%M%S")
    try:
        with interruptible():
            try:
                from headwatch.demo.run import DemoOptions, run_demo
            except ImportError as error:
                raise CommandError(f"the demo needs {error.name}; run: pip install 'headwatch[sidecar,demo,vllm]'") from error
            for library in ("bm25s", "httpx"):  # a line for each index and request is noise; bm25s sets its level at import
                logging.getLogger(library).setLevel(logging.WARNING)
            if namespace.record_baseline is not None:
                from headwatch.bench.demo_baseline import record_baseline

                windows = record_baseline(namespace.record_baseline, work_dir, progress)
                output.print(f"{windows} windows in {namespace.record_baseline}", soft_wrap=True)
                return 0
            run_demo(DemoOptions(work_dir, exit_after=namespace.exit, json_file=namespace.json), progress, output)
    except Interrupted as interrupted:
        progress.print("interrupted; every process has ended")
        return interrupted.exit_code
    return 0
