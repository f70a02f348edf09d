"""The compiled arithmetic against that of numpy, which says what is meant, and against arrays that do not fit."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headwatch.aggregate.histogram import BUCKETS, HistogramBlock
from headwatch.aggregate.reading import GroupSums
from headwatch.aggregate.values import SpanTable, values_of
from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig
from headwatch.model import FEATURES, SPAN_KINDS, Document, RequestContext, Span, SummaryBatch, WorkerIdentity
from headwatch.native import frames as native
from headwatch.wire.arrays import within_shares
from headwatch.wire.columns import view

if TYPE_CHECKING:
    from collections.abc import Callable

SHARES = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 1.0, 0.999, 0.9991, float("nan")]))
FAST = native.load()
_T = TypeVar("_T")


def numpy_alone(ask: Callable[[], _T]) -> _T:
    """Return what *ask* says where nothing is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("wire.arrays", "aggregate.values", "aggregate.reading", "aggregate.requests", "aggregate.cells"):
            patch.setattr(f"headwatch.{module}.frames", lambda: None)
        patch.setattr(native, "frames", lambda: None)
        return ask()


def close(a: Any, b: Any) -> bool:
    return np.allclose(a, b, rtol=2e-6, atol=1e-9, equal_nan=True)


@st.composite
def spans(draw: st.DrawFn) -> RequestContext:
    """Draw a request whose prompt of 30 tokens has some spans, of which some are documents."""
    bounds = sorted(draw(st.sets(st.integers(0, 30), min_size=2, max_size=7)))
    documents = draw(st.integers(0, 3))
    made = []
    for start, end in pairwise(bounds):
        kind = draw(st.sampled_from([*SPAN_KINDS[:-2], "document", "document"]))
        made.append(Span(kind, start, end, draw(st.integers(-1, documents)) if kind == "document" else -1))
    return RequestContext("r", 30, made, [Document(f"d{number}") for number in range(documents)], "r-1")


@st.composite
def batches(draw: st.DrawFn) -> SummaryBatch:
    """Draw a frame of a few rows of one or two requests, with whole or few of the heads of its model."""
    requests = draw(st.lists(spans(), min_size=1, max_size=2))
    requests = [msgspec.structs.replace(each, engine_id=f"r-{number}") for number, each in enumerate(requests)]
    rows = draw(st.lists(st.integers(0, len(requests) - 1), min_size=1, max_size=5))
    layers, heads = draw(st.sampled_from([(2, 3), (3, 17), (2, 150)]))
    some = draw(st.booleans())
    frame_layers = [0, layers - 1] if some and layers > 2 else list(range(layers))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    size = (len(frame_layers), heads)
    features = random.random((len(rows), *size, len(FEATURES)), np.float32)
    features[random.random(features.shape) < draw(st.sampled_from([0.0, 0.2]))] = np.nan
    features[..., FEATURES.index("sink_mass")] **= draw(st.sampled_from([1, 0.001]))
    detail = draw(st.integers(0, 1))
    masses = [random.dirichlet(np.ones(len(requests[row].spans) + 1), size).astype("<f4") for row in rows] if detail else []
    return SummaryBatch(
        worker=WorkerIdentity("e", 0, 1, "model", "", "float32", layers, heads, "1"), sequence=0, time_ns=10**18,
        layers=frame_layers, heads=heads, head_offset=0, requests=requests,
        row_request=np.array(rows, "<i4").tobytes(),
        row_position=np.array([draw(st.integers(0, 60)) + number for number in range(len(rows))], "<i4").tobytes(),
        features=features.tobytes(), span_mass=b"".join(np.moveaxis(mass, -1, 0).tobytes() for mass in masses),
        row_weight=np.array([draw(st.sampled_from([1.0, 1.0, 2.5])) for _ in rows], "<f4").tobytes(),
        finished=[each.engine_id for each in requests],
    )  # fmt: skip


def aggregated(batch: SummaryBatch) -> tuple[Any, Any]:
    mask = np.zeros((batch.worker.layers, batch.worker.heads), np.bool_)
    mask[0, :2] = True
    made = Aggregator(WindowConfig(), {"model": mask})
    made.add(batch, view(batch))
    return made.collect(2 * 10**18)


def equal(a: Any, b: Any) -> None:
    """Compare two records field by field: arrays to the rounding of float32, all else exactly."""
    for each in fields(a) if hasattr(a, "__dataclass_fields__") else ():
        mine, other = getattr(a, each.name), getattr(b, each.name)
        if isinstance(mine, np.ndarray | float):
            assert close(mine, other), each.name
        elif hasattr(mine, "__dataclass_fields__"):
            equal(mine, other)
        elif isinstance(mine, tuple) and mine and isinstance(mine[0], float | None):
            assert close(np.array(mine, float), np.array(other, float)), each.name
        else:
            assert mine == other, each.name


@given(batches())
def test_windows_and_requests_are_what_numpy_makes_of_the_same_frame(batch: SummaryBatch) -> None:
    (window,), records = aggregated(batch)
    (expected,), others = numpy_alone(lambda: aggregated(batch))
    equal(window, expected)
    assert np.array_equal(window.buckets, expected.buckets)
    assert records
    assert len(records) == len(others)
    for record, other in zip(records, others, strict=True):
        equal(record, other)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 70), st.integers(1, 300)), elements=SHARES), st.data())
def test_histograms_are_what_numpy_makes_of_the_same_values(values: np.ndarray, data: st.DataObject) -> None:
    weights = np.array(data.draw(st.lists(st.integers(1, 1 << 20), min_size=len(values), max_size=len(values))), np.int64)
    first = data.draw(st.integers(0, 9))

    def block() -> HistogramBlock:
        made = HistogramBlock(first + values.shape[1] + 3)
        for _ in range(2):
            made.observe(values, weights, first)
        return made

    fast, slow = block(), numpy_alone(block)
    for name in ("count", "weight", "zero_count", "buckets"):
        assert np.array_equal(getattr(fast, name), getattr(slow, name)), name
    assert np.array_equal(fast.minimum, slow.minimum, equal_nan=True)
    assert np.array_equal(fast.maximum, slow.maximum, equal_nan=True)
    assert np.allclose(fast.total, slow.total)


@given(hnp.arrays(np.uint32, st.integers(1, 64)))
def test_any_bits_land_in_the_bucket_where_numpy_puts_them(bits: np.ndarray) -> None:
    """Subnormals, infinities and what is below 0 too."""
    values = bits.view(np.float32)[None]
    blocks = []
    for ask in (lambda made: made(), numpy_alone):
        made = HistogramBlock(values.shape[1])
        with np.errstate(all="ignore"):
            ask(lambda made=made: made.observe(values, np.ones(1, np.int64)))
        blocks.append(made)
    assert np.array_equal(blocks[0].buckets, blocks[1].buckets)
    assert np.array_equal(blocks[0].zero_count, blocks[1].zero_count)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 70)), elements=SHARES))
def test_sums_of_groups_are_what_numpy_makes_of_the_same_values(values: np.ndarray) -> None:
    members = np.stack([np.ones(values.shape[2]), np.arange(values.shape[2]) % 2]).astype(np.float32)
    assert np.allclose(GroupSums.of(values, members).sums, numpy_alone(lambda: GroupSums.of(values, members)).sums, rtol=1e-5)


@given(hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(-2, 2, width=32) | st.just(float("nan"))))
def test_shares_are_refused_alike(values: np.ndarray) -> None:
    assert within_shares(values) == numpy_alone(lambda: within_shares(values))


def test_columns_may_begin_at_any_byte() -> None:
    values = np.frombuffer(b"x" + np.linspace(0, 1, 99, dtype=np.float32).tobytes(), np.uint8)[1:].view(np.float32)
    assert not values.flags.aligned
    assert within_shares(values)


def _table() -> SpanTable:
    documents = [Document("a")]
    return SpanTable(RequestContext("r", 10, [Span("system", 0, 2), Span("document", 2, 8, 0)], documents, "r-1"))


FEATURE = np.full((1, 2, 3, len(FEATURES)), 0.25, np.float32)


@pytest.mark.parametrize(
    ("masses", "position", "error"),
    [
        (np.zeros((2, 2, 3), np.float32), 5, "masses of 48 bytes where 72 are needed"),
        (np.zeros((4, 2, 3), np.float32), 5, "masses of 96 bytes where 72 are needed"),
        (np.zeros((3, 2, 3), np.float32), 1 << 70, "too big"),
    ],
)
def test_masses_that_do_not_fit_are_refused_and_never_read(masses: Any, position: int, error: str) -> None:
    with pytest.raises((ValueError, BufferError, OverflowError, TypeError), match=error):
        values_of(FEATURE, [masses], [position], [_table()])


@pytest.mark.parametrize("damage", [[-1, 1, 0], [1 << 60, 1, 0], [3, 9, 0], [3, 1, 0, 0, 99, -1], [3, 1, 0, 0, 0, 1]])
def test_a_plan_that_leaves_its_tables_is_refused(damage: list[int]) -> None:
    table = _table()
    table.plan = np.concatenate([np.array(damage, np.int64), table.plan[len(damage) :]])
    with pytest.raises(ValueError, match="plan of spans"):
        values_of(FEATURE, [np.zeros((3, 2, 3), np.float32)], [5], [table])


def test_arrays_that_do_not_fit_each_other_are_refused() -> None:
    block, values = HistogramBlock(4), np.zeros((2, 3), np.float32)
    for first in (-1, 2, 1 << 40):
        with pytest.raises(ValueError, match="cells that are not there"):
            block.observe(values, np.ones(2, np.int64), first)
    with pytest.raises(ValueError, match="values of 24 bytes where 36"):
        block.observe(values, np.ones(3, np.int64))
    assert not block.count.any()
    with pytest.raises(ValueError, match="sums of 16 bytes where 0"):
        FAST.sums(np.zeros((1, 2, 4), np.float32), np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="sums"):
        FAST.add(np.zeros((2, 7, 3)), np.zeros((17, 4), np.float32), 1.0)
    with pytest.raises(ValueError, match="sums that are not there"):
        FAST.gather(np.zeros((2, 5, 1)), np.zeros((2, 2, 4, 1), np.float32), 0, 1.0)
    for row in (-1, 2):
        with pytest.raises(ValueError, match="a row that is not there"):
            FAST.keep(np.zeros((2, 5), np.float32), row, np.zeros(5, np.float32))
    fixed = np.zeros((2, 5), np.float32)
    fixed.flags.writeable = False
    with pytest.raises((ValueError, BufferError), match="read-only"):
        FAST.keep(fixed, 0, np.zeros(5, np.float32))


def test_without_a_compiler_numpy_computes_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    native.frames.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert within_shares(np.zeros(3, np.float32))
            assert not within_shares(np.full(3, 2, np.float32))
        (said,) = (record.getMessage() for record in caplog.records if "numpy" in record.getMessage())
        assert said.endswith("less than half as many rows: no C compiler (cc, gcc or clang) is installed")
    finally:
        native.frames.cache_clear()


def test_the_code_counts_in_the_buckets_of_the_histograms() -> None:
    assert len(native.lower_ends()) == 1 << native.SCALE
    assert BUCKETS == native.BUCKETS == 16 << native.SCALE


_ONE_OF_EACH = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from headwatch.native import compiler, frames
compiler.FLAGS = (*compiler.FLAGS, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
from headwatch.aggregate.windows import Aggregator
from headwatch.bench.ingest.frames import Shape, _batches
from headwatch.config import WindowConfig
from headwatch.wire.columns import view
assert frames.frames() is not None
for shape in (Shape(2, 3, 1), Shape(3, 17, 5), Shape(2, 150, 3)):
    made = Aggregator(WindowConfig())
    for batch in _batches(shape, 80):
        made.add(batch, view(batch))
    windows, requests = made.collect(10**19, everything=True)
    assert windows and requests
print("done")
"""


def test_the_address_sanitizer_finds_nothing(tmp_path: Path) -> None:
    """Nothing is read or written beyond an array, nor computed that C leaves undefined."""
    found = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip("this compiler has no address sanitizer")
    environ = {
        "LD_PRELOAD": found, "ASAN_OPTIONS": "detect_leaks=0", "XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin",
        "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    script = _ONE_OF_EACH.format(tests=str(Path(__file__).parents[2]))
    run = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout == "done\n"
