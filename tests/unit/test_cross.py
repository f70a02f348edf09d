"""Cross-attention from the engine's rows to the alignment of a request."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch

from headwatch.aggregate.alignment import TOLERANCE, AlignmentTracker
from headwatch.aggregate.places import Places
from headwatch.aggregate.windows import Aggregator
from headwatch.capture.kernels import oracle
from headwatch.capture.layers.attention import AttentionRule, row_spans
from headwatch.capture.plan.cross import cross_part
from headwatch.capture.plan.step import RequestRows, SampledRequest
from headwatch.config import WindowConfig
from headwatch.errors import WireError
from headwatch.model import FEATURES, WINDOW_FEATURES, RequestContext, Span, SummaryBatch, WorkerIdentity
from headwatch.wire.codec import decode, encode
from headwatch.wire.columns import view

from .test_front_end import ALL as CONFIG_ALL
from .test_front_end import TOKENIZER, FrontEnd, Request, context_of

NAN = float("nan")
SECOND = 1_000_000_000
LAYERS, HEADS, PROMPT, HEARD = 2, 3, 4, 100
CONTEXT = RequestContext(
    "r", PROMPT, [Span("template", 0, PROMPT)], engine_id="r-1", encoder_spans=[Span("audio", 0, HEARD)]
)
WORKER = WorkerIdentity("engine-1", 0, 1, "whisper", "", "float32", 2 * LAYERS, HEADS, "0.32.0")


def frame(positions: list[int], *, cross: bool, centroid: float | list[float] = 0.5) -> SummaryBatch:
    """Return a frame of self-attention (layers 0 and 1) or of cross-attention (2 and 3), the same in every head."""
    values = {"entropy": 0.5, "max_weight": 0.25, "sink_mass": 0.125}
    values |= {} if cross else {"local_mass": 1.0, "distance": 0.5}
    features = np.full((len(positions), LAYERS, HEADS, len(FEATURES)), np.nan, "<f4")
    for name, value in values.items():
        features[..., FEATURES.index(name)] = value
    masses = np.broadcast_to(np.array([0.9, 0.0], "<f4")[:, None, None], (len(positions), 2, LAYERS, HEADS))
    centroids = np.broadcast_to(np.reshape(centroid, (-1, 1, 1)), (len(positions), LAYERS, HEADS))
    return SummaryBatch(
        worker=WORKER, sequence=0, time_ns=100 * SECOND, layers=[2, 3] if cross else [0, 1], heads=HEADS, head_offset=0,
        requests=[CONTEXT], row_request=np.zeros(len(positions), "<i4").tobytes(),
        row_position=np.array(positions, "<i4").tobytes(), features=features.tobytes(), span_mass=masses.tobytes(),
        attention="cross" if cross else "self",
        centroid=np.ascontiguousarray(centroids, "<f4").tobytes() if cross else b"",
    )  # fmt: skip


def collected(*frames: SummaryBatch):
    aggregator = Aggregator(WindowConfig(seconds=60.0, request_idle_seconds=120.0))
    for batch in frames:
        received = decode(encode(batch))
        assert isinstance(received, SummaryBatch)
        aggregator.add(received, view(received))
    (window,), (record,) = aggregator.collect(500 * SECOND)
    return window, record


def test_rows_over_both_sides_count_once_and_keep_their_layers_apart() -> None:
    window, record = collected(frame([4, 5], cross=False), frame([4, 5], cross=True))
    assert (record.rows_decode, window.rows.tolist()) == (2, [2])
    counted = window.count[0]  # [F, L, H]
    assert counted[WINDOW_FEATURES.index("entropy")].tolist() == [[2] * HEADS] * 4
    assert counted[WINDOW_FEATURES.index("distance")].tolist() == [[2] * HEADS] * 2 + [[0] * HEADS] * 2
    assert counted[WINDOW_FEATURES.index("span_mass.audio")].tolist() == [[0] * HEADS] * 2 + [[2] * HEADS] * 2
    assert counted[WINDOW_FEATURES.index("span_mass.generated")].sum() == 2 * 2 * HEADS, "of self-attention alone"


def test_the_alignment_of_a_request_has_its_breaks_and_how_far_it_came() -> None:
    """Forward, forward, back by a tenth of the sound, forward: one break."""
    centroids = [0.1, 0.3, 0.2, 0.6]
    frames = [frame([PROMPT + n], cross=True, centroid=value) for n, value in enumerate(centroids)]
    _, record = collected(frame([PROMPT], cross=False), *frames)
    alignment = record.alignment
    assert alignment.breaks.tolist() == [[0] * HEADS] * 2 + [[1] * HEADS] * 2
    assert alignment.rows.tolist() == [[0] * HEADS] * 2 + [[4] * HEADS] * 2
    np.testing.assert_allclose(alignment.progress[2:], 0.5, rtol=1e-6)
    assert np.isnan(alignment.progress[:2]).all()


def test_a_model_without_an_encoder_has_no_alignment() -> None:
    assert collected(frame([4], cross=False))[1].alignment is None


def test_small_steps_back_are_jitter_and_late_rows_are_left_out() -> None:
    tracker = AlignmentTracker(1, 1)

    def take(position: int, centroid: float) -> None:
        tracker.add(position, np.array([[centroid]], np.float32), Places(slice(0, 1), slice(0, 1)))

    for position, centroid in ((10, 0.5), (11, 0.5 - TOLERANCE / 2), (12, NAN), (9, 0.0), (13, 0.44)):
        take(position, centroid)
    result = tracker.result()
    assert (result.rows.item(), result.breaks.item()) == (3, 0)
    assert result.progress.item() == pytest.approx(-0.06)
    take(14, 0.44 - 2 * TOLERANCE)
    assert tracker.result().breaks.item() == 1


@pytest.mark.parametrize(
    "changed", [{"centroid": b""}, {"centroid": b"\0" * 8}, {"centroid": np.full(6, 2.0, "<f4").tobytes()}]
)
def test_centroids_that_cannot_be_are_refused(changed: dict[str, bytes]) -> None:
    with pytest.raises(WireError):
        view(msgspec.structs.replace(frame([4], cross=True), **changed))


def test_a_planned_row_is_summarised_over_the_encoder_as_well() -> None:
    listening = SampledRequest(CONTEXT, row_spans(CONTEXT.spans))
    listening.cross = SampledRequest(CONTEXT, row_spans(CONTEXT.encoder_spans))
    reading = SampledRequest(CONTEXT, row_spans(CONTEXT.spans))
    rows = [
        RequestRows(request, index, np.array(positions), np.array(positions), positions[-1] + 1, 0, 0, np.ones(len(positions)))
        for index, (request, positions) in enumerate(((reading, [7]), (listening, [5, 6]), (listening, [9])))
    ]
    part = cross_part(rows)
    assert part is not None
    assert (part.taken, part.spans, part.attention) == (3, 6, "cross")
    assert [(row.batch_index, row.keys, row.first_row, row.first_span) for row in part.rows] == [
        (1, HEARD, 0, 0), (2, HEARD, 2, 4),
    ]  # fmt: skip
    assert cross_part(rows[:1]) is None


def test_features_over_an_encoder_are_those_of_weights_that_see_everything() -> None:
    generator = torch.Generator().manual_seed(1)
    query, keys = torch.randn(2, 4, 8, generator=generator), torch.randn(HEARD, 2, 8, generator=generator)
    rule = AttentionRule(0.3, causal=False)
    positions = torch.tensor([4, 9])  # of the decoder: they hide nothing
    attention, sink = oracle.weights(query, keys, positions, rule)
    spans = row_spans([Span("audio", 0, 60), Span("audio", 60, HEARD)])
    features, mass = oracle.summarise(attention, sink, positions, spans, rule)
    logits = torch.einsum("rhd,nhd->rhn", query, keys.repeat_interleave(2, dim=1)) * 0.3
    expected = logits.double().softmax(-1)
    assert torch.allclose(attention.double(), expected, atol=1e-6)
    assert torch.allclose(mass[:, 0].double(), expected[..., :60].sum(-1), atol=1e-6)
    assert (mass[:, 2] == 0).all(), "nothing of it is generated"
    defined = {name: not features[..., index].isnan().any() for index, name in enumerate(FEATURES)}
    assert defined == {
        "entropy": True, "max_weight": True, "sink_mass": True, "local_mass": False, "distance": False, "lookback": False,
    }  # fmt: skip
    centroid = (expected * torch.arange(HEARD)).sum(-1) / (HEARD - 1)
    assert torch.allclose(oracle.centroid(attention).double(), centroid, atol=1e-6)


def test_sounds_are_the_encoders_input_and_have_no_place_in_the_prompt() -> None:
    front_end = FrontEnd(CONFIG_ALL)
    heard = [SimpleNamespace(modality="audio", mm_position=SimpleNamespace(offset=0, length=length)) for length in (3, 5)]
    request = Request(mm_features=heard)
    front_end.annotate(request, TOKENIZER, encoder=True)
    context = context_of(request)
    assert context is not None
    assert context.encoder_spans == [Span("audio", 0, 3), Span("audio", 3, 8)]
    assert {span.kind for span in context.spans}.isdisjoint({"audio", "image"})


def test_an_input_of_an_unknown_kind_has_no_spans() -> None:
    front_end = FrontEnd(CONFIG_ALL)
    odd = [SimpleNamespace(modality="smell", mm_position=SimpleNamespace(offset=0, length=3))]
    request = Request(mm_features=odd)
    front_end.annotate(request, TOKENIZER, encoder=True)
    context = context_of(request)
    assert context is not None
    assert context.encoder_spans == []
