"""The ingest benchmark: its frames are what it says, and it notices what goes astray."""

from __future__ import annotations

import pytest

from headwatch.aggregate.windows import Aggregator
from headwatch.bench.ingest import rate
from headwatch.bench.ingest.frames import Shape, templates
from headwatch.errors import CommandError
from headwatch.model import SummaryBatch
from headwatch.wire import codec
from headwatch.wire.columns import view

SHAPE = Shape(layers=2, heads=3, rows=4)


def test_a_template_is_the_same_frame_at_another_number_and_time() -> None:
    (made,) = templates(SHAPE, 1)
    frames = [codec.decode(bytes(made.at(number, time_ns))) for number, time_ns in ((0, 1), (70_000, 1_800_000_000 * 10**9))]
    first, second = (frame for frame in frames if isinstance(frame, SummaryBatch))
    assert (second.sequence - first.sequence, first.time_ns, second.time_ns) == (70_000, 1, 1_800_000_000 * 10**9)
    assert bytes(first.features) == bytes(second.features)
    assert view(second).features.shape == (4, 2, 3, 6)
    assert SHAPE.summaries == 24


def test_requests_begin_at_the_end_of_the_prompt_and_end_once() -> None:
    ended: list[str] = []
    for made in templates(SHAPE, 450):
        frame = codec.decode(bytes(made.at(0, 0)))
        assert isinstance(frame, SummaryBatch)
        ended += frame.finished
    assert len(ended) == len(set(ended)) >= 2 * SHAPE.rows


def test_a_rate_is_measured_over_windows_that_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "PASSES", 1)
    measured = rate.measure(SHAPE)
    assert measured.windows >= 1
    assert measured.passes == [measured.head_summaries_per_second]
    assert measured.ratio_to_copying > 1


def test_a_summary_that_goes_astray_fails_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "PASSES", 1)
    monkeypatch.setattr(Aggregator, "add", lambda *_: None)
    with pytest.raises(CommandError, match="were aggregated"):
        rate.measure(SHAPE)
