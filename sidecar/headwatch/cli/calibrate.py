"""``headwatch calibrate heads``: which heads of a model read documents, copy, look around them, or look at nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.cli.output import print_json, stdout_to_stderr

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{heads}")
    heads = actions.add_parser("heads", help="probe a model's heads and write its head map")
    heads.add_argument("--model", type=Path, help="folder of a causal language model (default: the demo's model)")
    heads.add_argument("--name", help="name under which vLLM serves the model (default: what it is without "
                                      "--served-model-name, the folder as given)")  # fmt: skip
    heads.add_argument("--out", type=Path, default=Path("head_map.json"), metavar="FILE",
                       help="file of the head map (default: head_map.json)")  # fmt: skip
    heads.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"),
                       help="as vLLM's --dtype: the one that you serve (default: auto; the demo's model: float32)")  # fmt: skip
    heads.add_argument("--seed", type=int, default=0, help="decides every random choice (default: 0)")
    heads.add_argument("--quick", action="store_true", help="a third of the questions: wider intervals, a third of the time")
    heads.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(namespace: argparse.Namespace) -> int:
    """Calibrate; return 0, or 1 where no heads were found that tell right documents from wrong ones.

    Raises:
        CommandError: The model or the engine cannot be had, or the file cannot be written.
    """
    with stdout_to_stderr():
        from headwatch.calibrate.report import render
        from headwatch.calibrate.run import FULL, QUICK, Settings, calibrate_heads
        from headwatch.errors import CommandError

        model, name, dtype = namespace.model, namespace.name, namespace.dtype
        if model is None:
            from headwatch.demo.model import prepare_model
            from headwatch.demo.servers import SERVED_MODEL

            model = prepare_model(on_stage=_say)
            name, dtype = name or SERVED_MODEL, dtype or "float32"
        elif not (model / "config.json").is_file():
            raise CommandError(f"--model {model}: there is no config.json in it; name the folder of a model")
        if namespace.seed < 0:
            raise CommandError(f"--seed {namespace.seed}: it must not be negative")
        if not namespace.out.absolute().parent.is_dir():  # found out before the work, not after it
            raise CommandError(f"--out {namespace.out}: there is no folder {namespace.out.absolute().parent}")
        settings = Settings(
            model, name or str(model), dtype or "auto", namespace.seed, QUICK if namespace.quick else FULL
        )
        report = calibrate_heads(settings, namespace.out, progress=_say)
    if namespace.json:
        print_json(report)
    else:
        print(render(report))
    return 0 if report.passed else 1


def _say(message: str) -> None:
    print(f"calibrate: {message}", file=sys.stderr, flush=True)
