"""Serves tiny models and holds what capture exports of them against transformers: python serve.py FOLDER VARIANT[:DTYPE] …

Writes FOLDER/VARIANT.DTYPE.json for each, a ``VerifyReport`` or {"error": …}, and what vLLM says to the .log beside it.  One
engine a process, as ``headwatch verify`` wants it; but the processes are forked from one that has imported vLLM, which
saves half of the time, and two run at once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROWS = 60
AT_ONCE = 2
PRELOADED = ["vllm.entrypoints.llm", "transformers", "headwatch.verify.run"]


def run(folder: Path, variant: str, dtype: str) -> None:
    """Build, serve and verify one variant, in this process."""
    log = (folder / f"{variant}.{dtype}.log").open("w", buffering=1)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    import msgspec

    from headwatch.errors import HeadwatchError

    try:
        result = msgspec.to_builtins(report(folder / f"{variant}.{dtype}", variant, dtype))
    except HeadwatchError as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    write(folder / f"{variant}.{dtype}.json", result)


def report(model: Path, variant: str, dtype: str):
    from tests.variants.families import build
    from tests.variants.media_models import BUILDERS

    from headwatch.verify.run import verify

    make = BUILDERS.get(variant)
    return verify(make(model) if make else build(model, variant), dtype, ROWS)


def write(path: Path, result: dict) -> None:
    """Write *result* so that nobody reads half of it."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(result))
    partial.rename(path)


def main() -> None:
    folder = Path(sys.argv[1])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(AT_ONCE, mp_context=context, max_tasks_per_child=1) as pool:
        for job in sys.argv[2:]:
            variant, _, dtype = job.partition(":")
            pool.submit(run, folder, variant, dtype or "float32")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # the models are tiny, and two engines share the cores
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
