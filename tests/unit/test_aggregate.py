"""From frames to windows and requests."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.evidence import EvidenceQueue
from headwatch.aggregate.windows import GRACE_NS, Aggregator, _together
from headwatch.bands import context_band
from headwatch.config import EvidenceConfig, WindowConfig
from headwatch.errors import WireError
from headwatch.model import REQUEST_VALUES, VALUE_FEATURES, WINDOW_FEATURES, SummaryBatch
from headwatch.records import RowEvidence
from headwatch.wire.columns import view

from .frames import HEADS, LAYERS, SECOND, context, detailed, summary, worker

NAN = float("nan")
MASS = [0.2, 0.3, 0.1, 0.1, 0.3]
DECODE = {"entropy": 0.5, "max_weight": 0.3, "sink_mass": 0.2, "local_mass": 0.6, "distance": 0.4, "lookback": 0.25}


def aggregator(mask: np.ndarray | None = None, **settings: object) -> Aggregator:
    config = WindowConfig(seconds=60.0, request_idle_seconds=120.0, **settings)  # type: ignore[arg-type]
    return Aggregator(config, {} if mask is None else {"model": mask})


def add(target: Aggregator, batch: object) -> None:
    target.add(batch, view(batch))  # type: ignore[arg-type]


def feature(window: object, name: str) -> np.ndarray:
    return window.total[:, WINDOW_FEATURES.index(name)] / window.weight[:, WINDOW_FEATURES.index(name)]  # type: ignore[attr-defined]


def test_rows_of_one_window_and_stratum_become_one_histogram_a_head() -> None:
    made = aggregator()
    add(made, summary([(10, DECODE, MASS), (11, {**DECODE, "entropy": 0.7}, MASS)]))
    assert made.collect(101 * SECOND) == ([], []), "the window is still open"
    (window,), _ = made.collect(120 * SECOND + GRACE_NS)
    assert (window.start_ns, window.end_ns) == (60 * SECOND, 120 * SECOND)
    assert window.strata[0].label == "model|rev||support|<256|decode"
    assert window.rows.tolist() == [2]
    assert window.count.shape == (1, len(WINDOW_FEATURES), LAYERS, HEADS)
    np.testing.assert_allclose(feature(window, "entropy"), 0.6)
    np.testing.assert_allclose(feature(window, "document_mass"), 0.4 / 0.8, rtol=1e-6)
    np.testing.assert_allclose(feature(window, "span_mass.document"), 0.4, rtol=1e-6)
    np.testing.assert_allclose(feature(window, "span_mass.generated"), 0.3, rtol=1e-6)
    assert window.count[0, WINDOW_FEATURES.index("span_mass.tool")].sum() == 0, "no tool span: undefined, not 0"


def test_prefill_rows_form_a_stratum_of_their_own_and_do_not_count_as_grounding() -> None:
    made = aggregator()
    add(made, summary([(9, {**DECODE, "lookback": NAN}, [0.2, 0.4, 0.2, 0.2, 0.0]), (10, DECODE, MASS)], finished=["r-1"]))
    (window,), (record,) = made.collect(500 * SECOND)
    assert {stratum.phase for stratum in window.strata} == {"prefill", "decode"}
    assert (record.rows_prefill, record.rows_decode) == (1, 1)
    assert record.grounding_ratio == pytest.approx(0.25)


def test_a_request_s_grounding_is_averaged_over_rows_and_heads_and_its_shares_add_up() -> None:
    mask = np.zeros((LAYERS, HEADS), bool)
    mask[1, 2] = True
    made = aggregator(mask)
    add(made, summary([(10, DECODE, MASS)]))
    add(made, summary([(11, {**DECODE, "lookback": 0.75}, MASS)], sequence=1, finished=["r-1"]))
    _, (record,) = made.collect(101 * SECOND)
    assert record.state == "measured"
    assert record.grounding_ratio == pytest.approx(0.5)
    assert record.grounding_ratio_retrieval_heads == pytest.approx(0.5)
    assert record.document_mass == pytest.approx(0.5)
    assert record.document_share == (pytest.approx(0.75), pytest.approx(0.25))
    assert record.head_means.shape == (7, LAYERS, HEADS)


def test_a_request_without_documents_is_absent_and_has_no_ratio() -> None:
    made = aggregator()
    batch = summary([(10, {**DECODE, "lookback": NAN}, [0.2, 0.4, 0.1, 0.3])], request=context(documents=0), finished=["r-1"])
    add(made, batch)
    _, (record,) = made.collect(101 * SECOND)
    assert record.state == "absent"
    assert record.grounding_ratio is None
    assert record.document_mass is None
    assert record.undefined == LAYERS * HEADS


def test_a_head_that_sees_nothing_but_the_sink_has_no_document_mass() -> None:
    made = aggregator()
    add(made, summary([(10, {**DECODE, "sink_mass": 0.9995}, [0.9995, 0.0002, 0.0001, 0.0001, 0.0001])], finished=["r-1"]))
    _, (record,) = made.collect(101 * SECOND)
    assert record.document_mass is None
    assert record.document_share == (None, None)


def test_an_idle_request_ends_by_itself() -> None:
    made = aggregator()
    add(made, summary([(10, DECODE, MASS)]))
    assert made.collect(219 * SECOND)[1] == []
    assert len(made.collect(221 * SECOND)[1]) == 1


def test_a_later_frame_closes_the_window_before_it_and_a_late_one_is_counted() -> None:
    made = aggregator()
    add(made, summary([(10, DECODE, MASS)], time_ns=100 * SECOND))
    add(made, summary([(11, DECODE, MASS)], time_ns=130 * SECOND))
    add(made, summary([(12, DECODE, MASS)], time_ns=119 * SECOND))
    windows, _ = made.collect(131 * SECOND)
    assert [window.start_ns for window in windows] == [60 * SECOND]
    windows, _ = made.collect(131 * SECOND, everything=True)
    assert windows[0].rows.tolist() == [2]
    assert made.counters["late_rows"] == 1


def test_engines_do_not_mix() -> None:
    made = aggregator()
    add(made, summary([(10, DECODE, MASS)]))
    add(made, summary([(10, DECODE, MASS)], identity=worker("engine-2")))
    windows, records = made.collect(0, everything=True)
    assert sorted(window.worker.instance for window in windows) == ["engine-1", "engine-2"]
    assert len(records) == 2


def test_strata_over_the_limit_are_counted_together() -> None:
    made = aggregator(max_strata=2)
    for number in range(5):
        add(made, summary([(10, DECODE, MASS)], request=context(f"r-{number}", route=f"route-{number}"), sequence=number))
    (window,), _ = made.collect(0, everything=True)
    assert [stratum.route for stratum in window.strata] == ["route-0", "route-1", "other"]
    assert window.rows.tolist() == [1, 1, 3]


def test_open_requests_are_bounded_and_the_rest_counted() -> None:
    made = aggregator(max_open_requests=2)
    for number in range(5):
        add(made, summary([(10, DECODE, MASS)], request=context(f"r-{number}"), sequence=number))
    (window,), records = made.collect(0, everything=True)
    assert len(records) == 2
    assert made.counters["dropped_requests"] == 3
    assert window.rows.tolist() == [5], "windows still count every row"


def test_a_frame_with_layers_that_its_model_does_not_have_is_refused() -> None:
    batch = msgspec.structs.replace(summary([(10, DECODE, MASS)]), layers=[0, 7])
    with pytest.raises(WireError, match="does not have"):
        add(aggregator(), batch)


@pytest.mark.parametrize(
    ("visible", "band"), [(1, "<256"), (255, "<256"), (256, "256-512"), (1023, "512-1k"), (1024, "1k-2k"), (8192, "8k-16k")]
)
def test_context_bands(visible: int, band: str) -> None:
    assert context_band(visible) == band


def test_what_heads_move_becomes_shares_of_each_kind_and_a_mean_norm() -> None:
    """Document 1 carries 1.5 of 2, the generated text 0.5, all else nothing; the norm of every output is 3."""
    made = aggregator()
    add(made, detailed(1, finished=["r-1"]))
    (window,), (record,) = made.collect(500 * SECOND)
    assert window.features == (*WINDOW_FEATURES, *VALUE_FEATURES)

    def share(kind: str) -> np.ndarray:
        place = window.features.index(f"value_share.{kind}")
        return window.total[0, place] / window.weight[0, place]

    np.testing.assert_allclose(share("document"), 0.75)
    np.testing.assert_allclose(share("generated"), 0.25)
    np.testing.assert_allclose(share("system"), 0.0)
    assert window.count[0, window.features.index("value_share.tool")].sum() == 0, "no tool span: undefined, not 0"
    np.testing.assert_allclose(feature(window, "span_mass.document"), 0.4, rtol=1e-6)
    np.testing.assert_allclose(window.output_norm, np.full((1, LAYERS, HEADS), 3.0))
    assert record.value_means is not None
    np.testing.assert_allclose(record.value_means[REQUEST_VALUES.index("document_value_share")], 0.75)
    np.testing.assert_allclose(record.value_means[REQUEST_VALUES.index("output_norm")], 3.0)


def test_a_window_without_value_masses_is_as_it_was() -> None:
    made = aggregator()
    add(made, summary([(10, DECODE, MASS)], finished=["r-1"]))
    (window,), (record,) = made.collect(500 * SECOND)
    assert window.features == WINDOW_FEATURES
    assert (window.output_norm, record.value_means) == (None, None)


def test_strata_with_and_without_value_masses_share_a_window() -> None:
    made = aggregator()
    add(made, summary([(10, DECODE, MASS)], request=context("r-2", route="plain")))
    add(made, detailed(1))
    (window,), _ = made.collect(500 * SECOND)
    place = window.features.index("value_share.document")
    assert window.count[:, place].sum((1, 2)).tolist() == [0, 2 * LAYERS * HEADS]
    assert np.isnan(window.output_norm[0]).all()
    np.testing.assert_allclose(window.output_norm[1], 3.0)


def test_a_head_that_moves_nothing_has_no_shares_and_what_is_no_number_is_not_counted() -> None:
    made = aggregator()
    batch = detailed(1)
    values = np.frombuffer(batch.value_mass, "<f4").reshape(2, 5, LAYERS, HEADS).copy()
    values[:, :, 0, 0] = 0.0
    values[0, 2, 1, 1] = np.nan
    add(made, msgspec.structs.replace(batch, value_mass=values.tobytes()))
    (window,), _ = made.collect(500 * SECOND)
    counts = window.count[0, window.features.index("value_share.document")]
    assert (counts[0, 0], counts[1, 1], counts[0, 1]) == (0, 1, 2)


def rows_of(*batches: SummaryBatch, **limits: int) -> tuple[list[RowEvidence], EvidenceQueue]:
    kept = EvidenceQueue(EvidenceConfig(**limits))
    made = Aggregator(WindowConfig(), {}, kept)
    for batch in batches:
        add(made, batch)
    return list(kept.take()), kept


@pytest.mark.parametrize("detail", [2, 3, 4])
def test_single_rows_are_kept_as_they_came(detail: int) -> None:
    batch = detailed(detail)
    rows, kept = rows_of(summary([(9, DECODE, MASS)]), batch)
    assert [(row.position, row.detail, row.context.engine_id) for row in rows] == [(10, detail, "r-1"), (11, detail, "r-1")]
    for name in (
        "features", "span_mass", "value_mass", "output_norm", "block_profile", "top_position", "top_weight", "full_weight",
    ):  # fmt: skip
        assert b"".join(getattr(row, name) for row in rows) == getattr(batch, name), name
    assert (rows[0].block_tokens, rows[0].top_k, rows[0].layers) == (4, batch.top_k, (0, 1))
    assert kept.counters == {"evidence_rows": 2}
    assert kept.take() == (), "what was taken does not wait any longer"


def test_rows_that_wait_are_bounded_in_bytes_and_the_rest_is_counted() -> None:
    (row, _), _ = rows_of(detailed(4))
    rows, kept = rows_of(detailed(4), detailed(4, sequence=1), max_bytes=3 * row.size_bytes)
    assert len(rows) == 2, "the row at 11 is larger than the one at 10"
    assert kept.counters == {"evidence_rows": 2, "evidence_dropped.waiting_bytes": 2}


def test_rows_of_one_request_are_bounded_over_its_life() -> None:
    (row, _), _ = rows_of(detailed(3))
    kept = EvidenceQueue(EvidenceConfig(max_request_bytes=2 * row.size_bytes))
    made = Aggregator(WindowConfig(), {}, kept)
    for number in range(3):
        add(made, detailed(3, positions=(10,), sequence=number))
        kept.take()
    add(made, detailed(3, positions=(10,), request=context("r-2"), sequence=3))
    assert kept.counters == {"evidence_rows": 3, "evidence_dropped.request_bytes": 1}


def test_rows_of_a_request_that_is_not_held_open_are_counted() -> None:
    kept = EvidenceQueue(EvidenceConfig())
    made = Aggregator(WindowConfig(max_open_requests=1), {}, kept)
    add(made, detailed(2))
    add(made, detailed(2, request=context("r-2"), sequence=1))
    assert kept.counters == {"evidence_rows": 2, "evidence_dropped.no_open_request": 2}


def test_what_was_wrong_with_request_fields_is_counted_by_reason() -> None:
    made = aggregator()
    faulty = msgspec.structs.replace(context(documents=0), errors=["malformed_json"])
    add(made, summary([(10, {**DECODE, "lookback": NAN}, [0.2, 0.4, 0.1, 0.3])], request=faulty, finished=["r-1"]))
    _, (record,) = made.collect(101 * SECOND)
    assert made.counters["field.malformed_json"] == 1
    assert record.state == "unresolved", "its documents are not known, which is not the same as none"


def test_a_clock_that_was_set_back_starts_a_new_window() -> None:
    """An hour back: the open window would lie in the future, and swallow that hour."""
    made = aggregator()
    add(made, summary([(10, DECODE, MASS)], time_ns=7300 * SECOND))
    add(made, summary([(11, DECODE, MASS)], time_ns=3700 * SECOND))
    add(made, summary([(12, DECODE, MASS)], time_ns=3701 * SECOND))
    windows, _ = made.collect(3800 * SECOND)
    assert [(window.start_ns // SECOND, window.rows.tolist()) for window in windows] == [(7260, [1]), (3660, [2])]
    assert made.counters["late_rows"] == 0


def test_a_row_that_waits_keeps_nothing_of_its_frame() -> None:
    """A rare stratum has one row of each frame, for a long time."""
    made = aggregator()
    add(made, summary([(position, DECODE, MASS) for position in range(10, 26)]))
    (engine,) = made._engines.values()
    (cell,) = engine.cells.values()
    assert len(cell.weights) == 16
    owner = cell.waiting
    while owner.base is not None:
        owner = owner.base
    assert owner.nbytes == cell.waiting.nbytes


def test_a_name_that_is_given_a_second_time_is_another_request() -> None:
    """An engine that restarts may count its requests from zero again: with another prompt, or another model."""
    made = aggregator()
    add(made, summary([(10, DECODE, MASS)]))
    add(made, summary([(10, DECODE, [0.4, 0.3, 0.2, 0.1])], request=context(documents=0)))
    _, records = made.collect(200 * SECOND, everything=True)
    assert [(len(record.context.spans), record.rows_decode) for record in records] == [(4, 1), (3, 1)]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("settings", [{}, {"requests": 1}, {"requests": 50}])
def test_it_is_another_one_after_a_restart_too(settings: dict[str, int], ended: bool) -> None:
    """Nothing of it differs but the life of its worker, or the name that its client gave."""
    made = aggregator(**settings)
    add(made, summary([(10, DECODE, MASS), (11, DECODE, MASS)], finished=["r-1"] if ended else None))
    add(made, summary([(10, DECODE, MASS)], identity=worker(start_ns=2)))
    add(made, summary([(12, DECODE, MASS)]))  # late, of the life before
    other = msgspec.structs.replace(context(), request_id="another")
    add(made, summary([(10, DECODE, MASS)], request=other, identity=worker(start_ns=2)))
    windows, records = made.collect(200 * SECOND, everything=True)
    assert [record.rows_decode for record in records] == [2, 1, 1]
    assert sum(int(window.rows.sum()) for window in windows) == 5
    assert made.counters["rows_after_end"] == 1


def test_rows_are_computed_together_as_far_as_their_documents_allow() -> None:
    """One prompt of many documents must not make all others of its frame pay."""
    documents = [1] * 100
    documents[50] = 500
    stretches = list(_together(list(range(100)), documents, 1024))
    assert [row for some in stretches for row in some] == list(range(100))
    for some in stretches:
        assert len(some) == 1 or len(some) * (17 + max(documents[row] for row in some)) * 1024 <= 1 << 20
    assert len(stretches) < 10
