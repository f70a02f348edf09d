"""What value masses and detail levels 2 to 4 cost, beside the summaries and the engine's own attention for the same row.

Run ``python -m benchmarks.detail [--rounds N] [--json FILE]``.  One decode row of the packaged model's shape (9 heads on 3,
head size 64, 30 layers or what fits), in float32, in vLLM's CPU layout.  In each round every arm runs once over all layers,
in an order that turns from round to round; reported are medians per layer and row, and the ratio to the engine's kernel.
An arm that is called "level N" does all that a worker does for a row of that level.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.bench.machine import describe
from headwatch.bench.paged_scene import PagedScene
from headwatch.capture.cache.reader import CpuVectorReader
from headwatch.capture.kernels.base import LayerCall
from headwatch.capture.kernels.choose import choose
from headwatch.capture.kernels.detail import write_detail
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.capture.output.buffer import LayerSlot
from headwatch.capture.output.detail_buffer import row_bytes
from headwatch.capture.plan.parts import Divider, allocate_part
from headwatch.config import CaptureConfig

if TYPE_CHECKING:
    from collections.abc import Callable

HEADS, KV_HEADS, SIZE, LAYERS = 9, 3, 64, 30
LENGTHS = (512, 2048, 8192)
CACHE_BYTES = 1 << 29


def arms(scene: PagedScene) -> dict[str, Callable[[], None]]:
    """Return what is timed, by name; each runs over all layers of *scene*."""

    def level(detail: int, kernel: Any, *, values: bool = False) -> Callable[[], None]:
        config = CaptureConfig(value_mass=values, max_full_bytes=1 << 40, max_detail_bytes=1 << 40)
        layers = tuple(range(len(scene.caches)))
        row = replace(scene.row, detail=detail)

        def run() -> None:
            (part,) = Divider(config, HEADS * len(layers)).divide([row])
            buffer = allocate_part(part, layers, HEADS, config)
            for index in layers:
                slot = LayerSlot(buffer, index)
                call = LayerCall(
                    scene.query, scene.caches[index], scene.table, scene.output, CpuVectorReader(), scene.rules[index]
                )
                kernel.summarise(call, part.rows, slot, part.memo)
                write_detail(call, part.rows, slot)

        return run

    def engine() -> None:
        for index in range(len(scene.caches)):
            scene.engine(index, None, {})

    kernel, torch_kernel = choose("cpu", [], values=True), TorchRows()
    return {
        "engine": engine,
        "level 1": level(1, kernel),
        "level 1, value masses": level(1, kernel, values=True),
        "level 1, torch": level(1, torch_kernel),
        "level 1, value masses, torch": level(1, torch_kernel, values=True),
        "level 2": level(2, kernel),
        "level 3": level(3, kernel),
        "level 4": level(4, kernel),
    }


def measure(tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return microseconds per layer and ratio to the engine's attention for each arm."""
    scene = PagedScene.build(tokens, "float32", HEADS, KV_HEADS, SIZE, LAYERS, CACHE_BYTES)
    timed = arms(scene)
    names = list(timed)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):  # the first round warms up
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            timed[name]()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    layers = len(scene.caches)
    return {
        name: {
            "microseconds": round(statistics.median(found) / layers * 1e6, 1),
            "ratio_to_engine": round(statistics.median(
                one / other for one, other in zip(found, seconds["engine"], strict=True)
            ), 2),
        }
        for name, found in seconds.items()
    }  # fmt: skip


def main() -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config = CaptureConfig()
    result: dict[str, Any] = {
        "machine": msgspec.to_builtins(describe()), "rounds": arguments.rounds, "tokens": {}, "row_bytes": {},
    }  # fmt: skip
    for tokens in LENGTHS:
        found = result["tokens"][tokens] = measure(tokens, arguments.rounds)
        result["row_bytes"][tokens] = {
            level: row_bytes(tokens - 1, LAYERS * HEADS, level, config) for level in (2, 3, 4)
        }
        sys.stdout.write(f"{tokens} tokens\n")
        for name, figures in found.items():
            sys.stdout.write(f"  {name:30} {figures['microseconds']:9.1f} µs {figures['ratio_to_engine']:7.2f} x\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
