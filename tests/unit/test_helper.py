"""The thread beside the engine, and when there is one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from headwatch.capture.kernels import cpu, helper, native, spare
from headwatch.capture.output.buffer import LayerSlot

from .scenes import Scene, Wanted, scene

LAYERS = 40
"""Far more than there are places."""


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> cpu.CpuRows:
    monkeypatch.setattr(helper, "spare", lambda *_: os.sched_getaffinity(0))
    kernel = cpu.load(beside=True)
    yield kernel
    kernel.close()


def summaries(kernel: cpu.CpuRows, made: Scene, layers: int = LAYERS) -> np.ndarray:
    buffer = made.buffer(layers=layers)
    memo = {}
    for layer in range(layers):
        kernel.summarise(made.call, made.rows, LayerSlot(buffer, layer), memo)
    kernel.settle()
    arrays = (buffer.features, buffer.span_mass)
    return np.concatenate([array.swapaxes(0, 1).reshape(layers, -1) for array in arrays], 1)


@pytest.mark.parametrize("wanted", [
    [Wanted(40, 30)], [Wanted(1500, 1400, 2)], [Wanted(300, 250, 40), Wanted(700, 600, 3), Wanted(5, 4)],
], ids=["short", "long", "many rows"])  # fmt: skip
def test_more_layers_than_places_give_what_one_thread_gives(beside: cpu.CpuRows, wanted: list[Wanted]) -> None:
    made = scene(wanted)
    expected = summaries(cpu.load(), made, 1)
    for _ in range(20):
        np.testing.assert_array_equal(summaries(beside, made), np.broadcast_to(expected, (LAYERS, expected.shape[1])))


def test_what_is_computed_beside_the_engine_is_timed(beside: cpu.CpuRows) -> None:
    made, buffer = scene([Wanted(20000, 19000)]), None
    spent = started = 0.0
    buffer = made.buffer()
    beside.summarise(made.call, made.rows, LayerSlot(buffer, 0), {})
    deadline = time.monotonic() + 20
    while (buffer.features[0, 0] == -7.0).any() and time.monotonic() < deadline:
        time.sleep(0.001)  # nobody settles: the helper alone does it
    started = time.perf_counter()
    spent = beside.settle()
    while not spent and time.monotonic() < deadline:  # it may be on its way out
        beside.summarise(made.call, made.rows, LayerSlot(buffer, 1), {})
        spent = beside.settle()
    assert 0.0 < spent < 10.0
    assert time.perf_counter() - started < 10.0
    assert beside.settle() == 0.0


def test_a_settled_step_leaves_nothing_behind(beside: cpu.CpuRows) -> None:
    """What a step has written to stays as it is, whatever becomes of the cache after it."""
    made = scene([Wanted(900, 800, 4)])
    buffer = made.buffer()
    beside.summarise(made.call, made.rows, LayerSlot(buffer, 1), {})
    beside.settle()
    before = buffer.features.copy()
    made.call.cache.fill_(float("nan"))
    time.sleep(0.02)
    np.testing.assert_array_equal(buffer.features, before)


def test_the_thread_is_one_takes_no_signals_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> list[Path]:
        return [path for path in Path("/proc/self/task").iterdir() if (path / "comm").read_text().strip() == "headwatch-rows"]

    monkeypatch.setattr(helper, "spare", lambda *_: {min(os.sched_getaffinity(0))})
    before = threads()
    kernel = cpu.load(beside=True)
    deadline = time.monotonic() + 10
    while len(threads()) == len(before) and time.monotonic() < deadline:
        time.sleep(0.001)  # it gives itself its name
    (mine,) = set(threads()) - set(before)
    status = dict(line.split(":\t", 1) for line in (mine / "status").read_text().splitlines() if ":\t" in line)
    assert int(status["SigBlk"], 16) & (1 << 14) != 0, "SIGTERM is for the engine"
    assert status["Cpus_allowed_list"] == str(min(os.sched_getaffinity(0)))
    assert threading.active_count() < len(list(Path("/proc/self/task").iterdir()))
    kernel.close()
    assert threads() == before
    kernel.close()
    assert kernel.settle() == 0.0


def test_without_a_free_core_the_engine_s_threads_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "spare", lambda *_: set())
    kernel = cpu.load(beside=True)
    made = scene([Wanted(40, 30)])
    np.testing.assert_array_equal(summaries(kernel, made, 1), summaries(cpu.load(), made, 1))
    assert kernel.settle() == 0.0


@pytest.mark.parametrize(("allowed", "engine", "threads", "siblings", "quota", "expected"), [
    ({0, 1}, {0}, 1, {0}, None, {1}),
    ({0, 1, 2, 3}, {0, 1, 2}, 3, {0, 1, 2}, None, {3}),
    ({0, 1, 2, 3}, {0, 1}, 2, {0, 1, 2, 3}, None, set()),
    ({0, 1, 2, 3, 4, 5}, {0, 1}, 2, {0, 1, 3, 4}, None, {2, 5}),
    ({0, 1}, {0, 1}, 1, {0, 1}, None, {0, 1}),
    ({0, 1}, {0, 1}, 2, {0, 1}, None, set()),
    ({0}, {0}, 1, {0}, None, set()),
    (set(), {0}, 1, {0}, None, set()),
    ({0, 1}, {0}, 1, {0}, 1.5, set()),
    ({0, 1}, {0}, 1, {0}, 2.0, {1}),
], ids=["one left", "one of four", "siblings only", "a core and siblings", "not bound", "all used", "one core", "unknown",
        "a quota too small", "a quota"])  # fmt: skip
def test_which_processors_are_spare(
    allowed: set[int], engine: set[int], threads: int, siblings: set[int], quota: float | None, expected: set[int]
) -> None:
    assert spare.choose_processors(allowed, engine, threads, siblings, quota) == expected


def test_what_the_system_says_is_read(tmp_path: Path) -> None:
    assert spare.numbers("0-2,7\n") == {0, 1, 2, 7}
    for text, expected in {"max 100000\n": None, "150000 100000\n": 1.5, "": None, "much 3": None}.items():
        (tmp_path / "cpu.max").write_text(text)
        assert spare.quota(tmp_path / "cpu.max") == expected
    assert spare.quota(tmp_path / "none") is None
    mine = os.sched_getaffinity(0)
    assert spare.allowed_processors() == mine
    assert spare.siblings(mine) >= mine


def test_the_engine_s_processors_are_those_of_its_threads() -> None:
    found = helper.spare(native.load(), len(os.sched_getaffinity(0)))
    assert found == set(), "an engine on every core leaves none"
