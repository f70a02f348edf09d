"""Rows of canaries are joined into signatures, whatever rank they come from, and what is incomplete is named."""

from __future__ import annotations

import numpy as np

from headwatch.canary.collector import MAX_OPEN, Collector
from headwatch.canary.signature import Signature
from headwatch.model import CANARY_ROWS, RequestContext, Span

from .models import HEADS, LAYERS, TOKENS, values, worker

ROWS = values("one")
EVERY = np.arange(LAYERS)


def context(number: int = 1, tokens: int = TOKENS) -> RequestContext:
    spans = [Span("user", 0, tokens)]
    return RequestContext(
        f"chatcmpl-{number}", tokens, spans, engine_id=f"e-{number}", canary="one", adapter="a", prompt_digest="d"
    )


def add(collector: Collector, row: int, layers: np.ndarray = EVERY, heads: slice = slice(0, HEADS), number: int = 1) -> None:
    collector.add(worker(), context(number), TOKENS - CANARY_ROWS + row, ROWS[row][layers, heads], layers, heads, 5)


def test_the_parts_of_all_ranks_make_one_signature_in_any_order() -> None:
    collector = Collector()
    for row in reversed(range(CANARY_ROWS)):
        for layers in (EVERY[3:], EVERY[:3]):
            for heads in (slice(2, HEADS), slice(0, 2)):
                add(collector, row, layers, heads)
    found = collector.take("chatcmpl-1", 0.0)
    assert isinstance(found, Signature)
    np.testing.assert_array_equal(found.values, ROWS)
    assert (found.prompt, found.prompt_tokens, found.digest, found.adapter) == ("one", TOKENS, "d", "a")


def test_a_signature_is_copied_from_the_frame() -> None:
    collector, frame = Collector(), ROWS.copy()
    for row in range(CANARY_ROWS):
        collector.add(worker(), context(), TOKENS - CANARY_ROWS + row, frame[row], EVERY, slice(0, HEADS), 5)
    frame[:] = 0
    found = collector.take("chatcmpl-1", 0.0)
    assert isinstance(found, Signature)
    np.testing.assert_array_equal(found.values, ROWS)


def test_rows_that_did_not_arrive_are_named() -> None:
    collector = Collector()
    assert "no rows" in str(collector.take("chatcmpl-1", 0.0))
    for row in range(CANARY_ROWS - 2):
        add(collector, row)
    add(collector, CANARY_ROWS - 2, EVERY[:4])
    assert collector.take("chatcmpl-1", 0.0) == "incomplete: 6 of 8 rows arrived whole"
    assert "no rows" in str(collector.take("chatcmpl-1", 0.0)), "what was taken is gone"


def test_layers_that_are_not_captured_are_waited_for_no_longer_than_the_request_lasts() -> None:
    collector = Collector()
    for row in range(CANARY_ROWS):
        add(collector, row, EVERY[1:])
    collector.finished("engine", "e-1")
    collector.finished("engine", "of no canary")
    found = collector.take("chatcmpl-1", 60.0)
    assert isinstance(found, Signature)
    assert np.isnan(found.values[:, 0]).all()
    np.testing.assert_array_equal(found.values[:, 1:], ROWS[:, 1:])


def test_a_prompt_shorter_than_the_rows_that_are_read_is_read_whole() -> None:
    collector = Collector()
    for position in range(3):
        collector.add(worker(), context(tokens=3), position, ROWS[position], EVERY, slice(0, HEADS), 5)
    found = collector.take("chatcmpl-1", 0.0)
    assert isinstance(found, Signature)
    assert found.values.shape[0] == 3


def test_the_oldest_make_room_and_rows_of_no_canary_are_discarded() -> None:
    collector = Collector()
    for number in range(MAX_OPEN + 5):
        add(collector, 0, number=number)
    assert collector.discarded == 5
    collector.add(worker(), context(1000), 0, ROWS[0], EVERY, slice(0, HEADS), 5)  # a row before the last eight
    assert collector.discarded == 7, "it made one more room, and was no row of a canary"
