"""``headwatch verify``: does what capture exports equal what the model attends to?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.cli.output import print_json, stdout_to_stderr

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--model", type=Path, help="folder of a causal language model (default: the demo's model)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rows", type=int, default=200, help="compare at least so many rows (default: 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(namespace: argparse.Namespace) -> int:
    """Run the comparison; return 0 where it passes and 1 where a bound is exceeded or a layer is refused.

    Raises:
        CommandError: The model or the engine cannot be had.
    """
    with stdout_to_stderr():
        from headwatch.errors import CommandError
        from headwatch.verify.report import render
        from headwatch.verify.run import verify

        model = namespace.model
        if model is None:
            from headwatch.demo.model import prepare_model

            model = prepare_model(on_stage=_say)
        elif not (model / "config.json").is_file():
            raise CommandError(f"--model {model}: there is no config.json in it; name the folder of a model")
        report = verify(Path(model), namespace.dtype, namespace.rows, progress=_say)
    if namespace.json:
        print_json(report)
    else:
        print(render(report))
    return 0 if report.passed else 1


def _say(message: str) -> None:
    print(f"verify: {message}", file=sys.stderr, flush=True)
