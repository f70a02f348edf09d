"""Windows of many engines become one of each stratum: in order, each once, late and twice change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headwatch.drift.assemble import OVERDUE_WINDOWS, Assembler
from headwatch.records import Stratum, WindowBatch

from ..frames import worker

MINUTE = 60 * 10**9
FEATURES = ("entropy", "lookback")
A = Stratum("m", "r", "", "chat", "512-1k", "decode")
B = replace(A, route="search")


def window(number: int, engine: str, means: dict[Stratum, float], rows: int = 4) -> WindowBatch:
    """Return a window of one layer of two heads in which every value is the mean that is given."""
    shape = (len(means), 2, 1, 2)
    weight = np.full(shape, rows, np.uint64)
    total = np.stack([np.full(shape[1:], mean * rows) for mean in means.values()])
    nothing = np.zeros(shape, np.uint32)
    return WindowBatch(
        start_ns=number * MINUTE, end_ns=(number + 1) * MINUTE, worker=replace_instance(engine), strata=tuple(means),
        features=("entropy", "lookback"), layers=np.arange(1, dtype=np.int32), count=weight.astype(np.uint32), weight=weight,
        total=total, minimum=np.zeros(shape, np.float32), maximum=np.zeros(shape, np.float32), zero_count=nothing,
        buckets=np.zeros((*shape, 4), np.uint32), scale=3, offset=-4, rows=np.full(len(means), rows, np.uint32),
    )  # fmt: skip


def replace_instance(engine: str):
    import msgspec

    return msgspec.structs.replace(worker(), instance=engine)


def released(assembler: Assembler, at_window: float, **more: bool) -> list[tuple[int, dict[Stratum, float]]]:
    return [
        (found.number, {stratum: float(seen.values[0, 0]) for stratum, seen in found.strata.items()})
        for found in assembler.release(int(at_window * MINUTE), **more)
    ]


@pytest.fixture
def assembler() -> Assembler:
    return Assembler(FEATURES, MINUTE)


def test_engines_are_merged_by_their_rows(assembler) -> None:
    assembler.add(window(10, "one", {A: 0.2}, rows=1))
    assembler.add(window(10, "two", {A: 0.6, B: 0.5}, rows=3))
    [found] = list(assembler.release(12 * MINUTE))
    strata = found.strata
    assert (found.number, found.start_ns, found.end_ns) == (10, 10 * MINUTE, 11 * MINUTE)
    assert strata[A].values[0, 0] == pytest.approx(0.5)
    assert strata[A].rows.tolist() == [4.0, 4.0]
    assert strata[B].rows.tolist() == [3.0, 3.0]


def test_an_engine_that_is_a_window_behind_is_waited_for_and_one_that_is_gone_is_not(assembler) -> None:
    for engine in ("one", "two"):
        assembler.add(window(10, engine, {A: 0.2}))
    assert [number for number, _ in released(assembler, 11.1)] == [10]
    assembler.add(window(11, "one", {A: 0.4}))
    assert released(assembler, 12.1) == []
    assert released(assembler, 12 + OVERDUE_WINDOWS) == [(11, {A: 0.4})]


def test_late_and_doubled_windows_change_nothing_and_are_counted(assembler) -> None:
    assembler.add(window(10, "one", {A: 0.2}))
    assembler.add(window(10, "one", {A: 0.9}))
    assert released(assembler, 11.1) == [(10, {A: pytest.approx(0.2)})]
    assembler.add(window(10, "one", {A: 0.9}))
    assembler.add(window(9, "two", {A: 0.9}))
    assert released(assembler, 20) == []
    assert assembler.counters == {"duplicate_windows": 1, "late_windows": 2}


def test_windows_leave_in_order_whatever_the_order_in_which_they_came(assembler) -> None:
    for number in (12, 10, 11):
        assembler.add(window(number, "one", {A: number / 100}))
    assert [number for number, _ in released(assembler, 20)] == [10, 11, 12]


def test_a_window_is_not_released_before_it_is_over(assembler) -> None:
    assembler.add(window(10, "one", {A: 0.2}))
    assert released(assembler, 10.9) == []
    assert [number for number, _ in released(assembler, 10.9, everything=True)] == [10]


def test_after_a_restart_what_was_taken_before_is_late() -> None:
    assembler = Assembler(FEATURES, MINUTE, released=10)
    assembler.add(window(10, "one", {A: 0.2}))
    assembler.add(window(11, "one", {A: 0.2}))
    assert [number for number, _ in released(assembler, 20)] == [11]


def test_a_head_that_nobody_saw_is_undefined(assembler) -> None:
    batch = window(10, "one", {A: 0.2})
    batch.weight[0, 1, 0, 1] = 0
    assembler.add(batch)
    [found] = list(assembler.release(12 * MINUTE))
    assert np.isnan(found.strata[A].values).tolist() == [[False, False], [False, True]]


def test_two_models_of_one_name_are_not_mixed(assembler) -> None:
    assembler.add(window(10, "one", {A: 0.2}))
    other = window(10, "two", {A: 0.9})
    wider = {name: np.repeat(getattr(other, name), 2, axis=3) for name in ("total", "weight", "count")}
    assembler.add(replace(other, **wider))
    assert released(assembler, 12) == [(10, {A: pytest.approx(0.2)})]
    assert assembler.counters["other_shape"] == 1
