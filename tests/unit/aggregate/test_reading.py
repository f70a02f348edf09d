"""Where the heads of one request looked."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig
from headwatch.model import SPAN_KINDS, Document, RequestContext, Span
from headwatch.records import Reading, RequestRecord
from headwatch.wire.columns import view

from ..frames import HEADS, LAYERS, SECOND, context, summary

VALUES = {"entropy": 0.5, "sink_mass": 0.2, "lookback": 0.25}
MASS = [0.3, 0.3, 0.1, 0.1, 0.2]
"""System (with the sink), document 0, document 1, user, generated."""
KIND = {kind: place for place, kind in enumerate(SPAN_KINDS)}


def record_of(*rows: tuple[int, dict[str, float], list[float]], request: RequestContext | None = None,
              mask: np.ndarray | None = None) -> RequestRecord:  # fmt: skip
    made = Aggregator(WindowConfig(), {} if mask is None else {"model": mask})
    batch = summary(list(rows), request=request, finished=["r-1"])
    made.add(batch, view(batch))
    _, (record,) = made.collect(200 * SECOND)
    return record


def reading_of(*rows: tuple[int, dict[str, float], list[float]], request: RequestContext | None = None) -> Reading:
    reading = record_of(*rows, request=request).reading
    assert reading is not None
    return reading


def test_masses_are_parts_of_what_is_not_on_the_sink() -> None:
    reading = reading_of((10, VALUES, MASS))
    by_kind = {kind: float(reading.generated[place]) for kind, place in KIND.items()}
    assert by_kind["system"] == pytest.approx(0.1 / 0.8), "the sink is position 0, in the system span"
    assert by_kind["document"] == pytest.approx(0.4 / 0.8)
    assert by_kind["user"] == pytest.approx(0.1 / 0.8)
    assert np.nansum(reading.generated) == pytest.approx(1.0)
    assert np.isnan(by_kind["tool"]), "a kind that is not there is undefined, not 0"


def test_instruction_focus_is_of_the_last_row_of_the_prompt() -> None:
    """Rows of the answer read documents as they should."""
    early, late = [0.5, 0.1, 0.2, 0.2, 0.0], [0.2, 0.4, 0.4, 0.0, 0.0]
    reading = reading_of((9, VALUES, early), (10, VALUES, late))
    assert reading.instruction_focus == pytest.approx((0.3 + 0.2) / (0.3 + 0.2 + 0.3))
    assert reading.prompt_end_share is not None
    assert reading.prompt_end_share.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert reading_of((10, VALUES, late)).instruction_focus is None


def test_without_anything_that_informs_there_is_no_instruction_focus() -> None:
    assert reading_of((9, VALUES, [0.4, 0.3, 0.2, 0.1]), request=context(documents=0)).instruction_focus is None


def test_the_last_row_of_the_prompt_is_kept_apart_from_generated_ones() -> None:
    reading = reading_of((9, VALUES, [0.2, 0.6, 0.1, 0.1, 0.0]), (10, VALUES, MASS))
    assert reading.prompt_end[KIND["document"]] == pytest.approx(0.7 / 0.8)
    assert reading.generated[KIND["document"]] == pytest.approx(0.4 / 0.8)


def test_earlier_rows_of_the_prompt_say_nothing() -> None:
    assert record_of((5, VALUES, MASS)).reading is None


def test_a_head_that_sees_the_sink_alone_is_left_out() -> None:
    reading = reading_of((10, {**VALUES, "sink_mass": 0.9995}, [0.9995, 0.0003, 0.0, 0.0, 0.0002]))
    assert np.isnan(reading.generated).all()
    assert reading.instruction_focus is None


def test_calibrated_heads_have_a_reading_of_their_own() -> None:
    mask = np.zeros((LAYERS, HEADS), bool)
    mask[1, 2] = True
    batch = summary([(10, VALUES, MASS)], finished=["r-1"])
    masses = np.frombuffer(batch.span_mass, "<f4").reshape(5, LAYERS, HEADS).copy()
    masses[:, 1, 2] = [0.2, 0.1, 0.6, 0.1, 0.0]
    batch = msgspec.structs.replace(batch, span_mass=masses.tobytes())
    made = Aggregator(WindowConfig(), {"model": mask})
    made.add(batch, view(batch))
    _, (record,) = made.collect(200 * SECOND)
    assert record.reading_retrieval_heads is not None
    assert record.reading_retrieval_heads.document_share.tolist() == pytest.approx([1 / 7, 6 / 7])
    assert record.document_share == (pytest.approx((5 * 0.75 + 1 / 7) / 6), pytest.approx((5 * 0.25 + 6 / 7) / 6))


def test_a_map_of_another_model_calibrates_nothing() -> None:
    record = record_of((10, VALUES, MASS), mask=np.ones((LAYERS + 1, HEADS), bool))
    assert record.reading is not None
    assert record.reading_retrieval_heads is None
    assert record.grounding_ratio_retrieval_heads is None


def test_history_is_told_apart_by_age_and_everything_old_is_one() -> None:
    spans = [
        Span("history", 0, 2, -1, 7), Span("history", 2, 4, -1, 4), Span("history", 4, 5, -1, 2), Span("history", 5, 6, -1, 1),
        Span("document", 6, 8, 0), Span("user", 8, 10),
    ]  # fmt: skip
    request = RequestContext("r", 10, spans, [Document("d")], "r-1")
    reading = reading_of((10, {**VALUES, "sink_mass": 0.0}, [0.1, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1]), request=request)
    assert reading.history.tolist() == pytest.approx([0.3, 0.2, 0.0, 0.2])
    sunk = reading_of((10, {**VALUES, "sink_mass": 0.1}, [0.1, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1]), request=request)
    assert sunk.history.tolist() == pytest.approx([0.3 / 0.9, 0.2 / 0.9, 0.0, 0.1 / 0.9]), "the oldest turn holds the sink"
    assert np.nansum(sunk.history) == pytest.approx(sunk.generated[KIND["history"]])


def test_rows_count_as_often_as_they_stand_for() -> None:
    batch = summary([(12, VALUES, [0.2, 0.8, 0.0, 0.0, 0.0]), (13, VALUES, [0.2, 0.0, 0.8, 0.0, 0.0])], finished=["r-1"])
    batch = msgspec.structs.replace(batch, row_weight=np.array([3.0, 1.0], "<f4").tobytes())
    made = Aggregator(WindowConfig())
    made.add(batch, view(batch))
    _, (record,) = made.collect(200 * SECOND)
    assert record.document_share == (pytest.approx(0.75), pytest.approx(0.25))
