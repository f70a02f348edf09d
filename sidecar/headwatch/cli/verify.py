"""``headwatch verify``: does what capture exports equal what the model attends to?"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


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
    with _stdout_to_stderr():
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
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print(render(report))
    return 0 if report.passed else 1


def _say(message: str) -> None:
    print(f"verify: {message}", file=sys.stderr, flush=True)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send what the engine, its threads and its libraries write to stdout to stderr: stdout is for the result alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
