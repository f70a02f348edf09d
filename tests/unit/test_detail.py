"""Detail levels 2 to 4 against the oracle in float64, and the bounds that hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import torch

from headwatch.capture.kernels import oracle, torch_rows
from headwatch.capture.kernels.detail import write_detail
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.capture.layers.attention import AttentionRule
from headwatch.capture.output.buffer import LayerSlot
from headwatch.capture.output.detail_buffer import row_bytes
from headwatch.capture.output.frames import FrameBuilder
from headwatch.capture.plan.budget import Admission
from headwatch.capture.plan.parts import DETAIL_COST, Divider, StepPart, allocate_part
from headwatch.capture.plan.step import WantedRows, admitted
from headwatch.config import CaptureConfig
from headwatch.wire import codec
from headwatch.wire.columns import Columns, view
from headwatch.wire.mass_code import RELATIVE_ERROR, SMALLEST, from_code

from .frames import worker
from .scenes import Scene, Wanted, scene

if TYPE_CHECKING:
    from headwatch.capture.plan.step import RequestRows
    from headwatch.model import SummaryBatch

LAYERS = 3
CONFIG = CaptureConfig(block_tokens=16, top_k=5, value_mass=True)
FLOAT32 = 4e-6
"""What the oracle in float32 errs by on these rows."""
HALF = 2.0**-11
"""Relative error of float16."""


def captured(made: Scene, detail: int, config: CaptureConfig = CONFIG, slots: tuple[int, ...] = (0, 1, 2)) -> SummaryBatch:
    """Return the frame that a worker would send of *made*, whose layers all see the same, of the layers *slots*."""
    rows = [with_detail(item, detail) for item in made.rows]
    (part,) = Divider(config, LAYERS * made.call.query.shape[1]).divide(rows)
    buffer = allocate_part(part, (4, 7, 9), made.call.query.shape[1], config)
    for index in slots:
        slot = LayerSlot(buffer, index)
        TorchRows().summarise(made.call, part.rows, slot, part.memo)
        write_detail(made.call, part.rows, slot)
        buffer.written.add(index)
    frame = FrameBuilder(worker(), 0, 1, part.rows, buffer, part.detail, [])()
    assert codec.decode(codec.encode(frame)) == frame
    return frame


def with_detail(item: RequestRows, detail: int) -> RequestRows:
    return replace(item, detail=detail)


def true_rows(made: Scene) -> list[np.ndarray]:
    """Return the weights [H, position + 1] of every row, from keys in float64."""
    found = []
    for item, keys in zip(made.rows, made.keys, strict=True):
        query = made.call.query[torch.as_tensor(item.query_index)].double()
        attention, _ = oracle.weights(query, keys.double(), torch.as_tensor(item.positions), made.call.rule)
        found += [row[:, : position + 1].numpy() for row, position in zip(attention, item.positions.tolist(), strict=True)]
    return found


SINKS = torch.tensor([0.1, 2.0, -1.0, 9.0, 30.0, -90.0])
SCENES = {
    "plain": lambda: scene([Wanted(300, 250, 3), Wanted(33, 33, 2), Wanted(16, 10), Wanted(1, 1)]),
    "peaked": lambda: scene([Wanted(200, 150, 2)], spread=12.0),
    "window": lambda: scene([Wanted(300, 250, 3)], rule=AttentionRule(0.25, window=40)),
    "chunk": lambda: scene([Wanted(130, 100, 4)], rule=AttentionRule(0.25, chunk=48)),
    "sinks": lambda: scene([Wanted(96, 20, 2)], rule=AttentionRule(0.25, sinks=SINKS)),
    "bfloat16": lambda: scene([Wanted(300, 250, 2)], dtype=torch.bfloat16),
}


@pytest.fixture(params=SCENES, scope="module")
def made(request: pytest.FixtureRequest) -> Scene:
    return SCENES[request.param]()


@pytest.fixture(scope="module")
def whole(made: Scene) -> Columns:
    return view(captured(made, 4))


def test_whole_rows_are_the_attention_in_half_precision(made: Scene, whole: Columns) -> None:
    assert whole.detail is not None
    for expected, found in zip(true_rows(made), whole.detail.full_weight, strict=True):
        for layer in range(LAYERS):
            np.testing.assert_allclose(found[:, layer].T, expected, rtol=HALF, atol=FLOAT32)


def test_block_masses_come_back_within_the_stated_error(made: Scene, whole: Columns) -> None:
    """Masses of all blocks of 16 tokens, the last one shorter; one byte each."""
    assert whole.detail is not None
    for expected, code in zip(true_rows(made), whole.detail.block_profile, strict=True):
        starts = np.arange(0, expected.shape[1], 16)
        mass = np.add.reduceat(expected, starts, axis=1)  # [H, blocks]
        for layer in range(LAYERS):
            found = from_code(code[:, layer].T)
            kept = mass >= 1.01 * SMALLEST
            assert (np.abs(found - mass)[kept] <= (RELATIVE_ERROR + 1e-4) * mass[kept] + FLOAT32).all()
            assert (found[mass < 0.99 * SMALLEST] == 0).all()


def test_top_positions_are_where_the_largest_weights_are(made: Scene, whole: Columns) -> None:
    """Largest first; where fewer positions have any weight, -1 fills the rest."""
    assert whole.detail is not None
    assert whole.detail.top_position is not None
    assert whole.detail.top_weight is not None
    for expected, places, weights in zip(true_rows(made), whole.detail.top_position, whole.detail.top_weight, strict=True):
        heads, visible = expected.shape
        known = min(5, visible)
        right = -np.sort(-expected, axis=1)[:, :known]
        for layer in range(LAYERS):
            np.testing.assert_allclose(weights[layer, :, :known], right, atol=FLOAT32)
            assert (weights[layer, :, known:] == 0).all()
            for head in range(heads):
                chosen = places[layer, head]
                real = chosen[chosen >= 0]
                assert len(set(real.tolist())) == len(real)
                np.testing.assert_allclose(expected[head, real], weights[layer, head, : len(real)], atol=FLOAT32)
                assert (weights[layer, head, len(real) :] == 0).all()


def test_what_heads_move_is_what_the_oracle_says_in_float64(made: Scene, whole: Columns) -> None:
    row = 0
    for item, keys, values in zip(made.rows, made.keys, made.values, strict=True):
        index = torch.as_tensor(item.query_index)
        attention, _ = oracle.weights(
            made.call.query[index].double(), keys.double(), torch.as_tensor(item.positions), made.call.rule
        )
        carried = oracle.value_mass(attention, values.double(), item.request.spans).numpy()
        norms = made.call.output[index].double().norm(dim=-1).numpy()
        for number in range(len(item.positions)):
            for layer in range(LAYERS):
                np.testing.assert_allclose(whole.value_mass[row][:, layer], carried[number], rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(whole.output_norm[row, layer], norms[number], rtol=1e-6)  # type: ignore[index]
            row += 1


@pytest.mark.parametrize("detail", [0, 1, 2, 3, 4])
def test_a_frame_has_the_columns_of_its_level_and_no_others(detail: int) -> None:
    frame = captured(scene([Wanted(40, 30, 2)]), detail, CaptureConfig(detail=detail))
    columns = view(frame)
    assert frame.detail == detail
    assert bool(columns.span_mass) == (detail >= 1)
    assert (columns.detail is not None) == (detail >= 2)
    assert bool(frame.top_position) == bool(frame.top_weight) == (detail >= 3)
    assert bool(frame.full_weight) == (detail >= 4)
    assert not frame.value_mass, "value masses are a setting of their own"


def test_layers_that_are_not_sent_leave_no_hole() -> None:
    made = scene([Wanted(40, 30, 2), Wanted(70, 70)])
    all_layers, some = view(captured(made, 4)), captured(made, 4, slots=(0, 2))
    assert some.layers == [4, 9]
    found = view(some)
    assert found.detail is not None
    assert all_layers.detail is not None
    for name in ("block_profile", "top_position", "top_weight", "full_weight"):
        for one, other in zip(getattr(all_layers.detail, name), getattr(found.detail, name), strict=True):
            assert np.array_equal(np.moveaxis(one, -3 if "top" in name else 1, 0)[[0, 2]],
                                  np.moveaxis(other, -3 if "top" in name else 1, 0))


def test_rows_taken_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long context is attended a few rows at a time."""
    made = scene([Wanted(300, 250, 7)])
    at_once = view(captured(made, 4))
    monkeypatch.setattr(torch_rows, "CHUNK_ELEMENTS", 300 * 6 * 2)
    in_pieces = view(captured(made, 4))
    assert at_once.detail is not None
    assert in_pieces.detail is not None
    for one, other in zip(at_once.detail.full_weight, in_pieces.detail.full_weight, strict=True):
        np.testing.assert_allclose(one, other, rtol=2 * HALF, atol=FLOAT32)
    for one, other in zip(at_once.detail.block_profile, in_pieces.detail.block_profile, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1, "a mass on the edge between two codes"


def test_a_key_that_is_no_number_makes_no_top_position_and_no_refused_frame() -> None:
    made = scene([Wanted(40, 30)])
    made.call.cache.fill_(float("nan"))
    columns = view(captured(made, 4))
    assert columns.detail is not None
    assert (columns.detail.top_position == -1).all()
    assert np.isnan(columns.detail.full_weight[0]).all()
    assert (columns.detail.block_profile[0] == 0).all()
    assert np.isnan(columns.features).any()


def levels(parts: list[StepPart]) -> dict[int, list[tuple[str, list[int]]]]:
    return {
        part.detail: [(item.request.context.request_id, item.positions.tolist()) for item in part.rows] for part in parts
    }


CELLS = 18


def wanted(*details: int, rows: int = 2, length: int = 100) -> list[RequestRows]:
    made = scene([Wanted(length, length // 2, rows) for _ in details])
    for number, item in enumerate(made.rows):
        item.request.context = msgspec.structs.replace(item.request.context, engine_id=f"e{number}")
    return [with_detail(item, detail) for item, detail in zip(made.rows, details, strict=True)]


def test_rows_of_one_level_stay_together() -> None:
    rows = wanted(1, 1, 1)
    (part,) = Divider(CONFIG, CELLS).divide(rows)
    assert (part.detail, part.taken, part.spans) == (1, 6, 30)
    assert [item.first_row for item in part.rows] == [0, 2, 4]


def test_a_level_below_span_masses_makes_no_part_beside_them() -> None:
    (part,) = Divider(CONFIG, CELLS).divide(wanted(0, 1, 0))
    assert part.detail == 1
    (part,) = Divider(CONFIG, CELLS).divide(wanted(0, 0))
    assert part.detail == 0


def test_each_level_has_buffers_of_its_own_and_rows_know_their_place_in_them() -> None:
    parts = Divider(CONFIG, CELLS).divide(wanted(3, 1, 2, 3))
    assert levels(parts) == {
        1: [("r1", [98, 99])], 2: [("r2", [98, 99])], 3: [("r0", [98, 99]), ("r3", [98, 99])],
    }  # fmt: skip
    assert [(item.first_row, item.first_span) for item in parts[2].rows] == [(0, 0), (2, 10)]
    assert parts[0].memo is not parts[1].memo, "what a kernel prepares holds for the rows of one part"


def test_one_request_at_a_time_is_sent_whole() -> None:
    divider = Divider(CONFIG, CELLS)
    assert levels(divider.divide(wanted(4, 4))) == {3: [("r1", [98, 99])], 4: [("r0", [98, 99])]}
    assert divider.reduced == {"full_requests": 2}
    divider.forget("e0")
    assert levels(divider.divide(wanted(1, 4))) == {1: [("r0", [98, 99])], 4: [("r1", [98, 99])]}


def test_whole_rows_of_a_request_end_at_its_bound_and_go_on_with_top_positions() -> None:
    one = row_bytes(98, CELLS, 4, CONFIG) - row_bytes(98, CELLS, 3, CONFIG)
    divider = Divider(CaptureConfig(max_full_bytes=one + one // 2), CELLS)
    assert levels(divider.divide(wanted(4))) == {3: [("r0", [99])], 4: [("r0", [98])]}
    assert levels(divider.divide(wanted(4))) == {3: [("r0", [98, 99])]}
    assert divider.reduced == {"full_bytes": 3}


def test_a_step_carries_as_much_detail_as_fits() -> None:
    """Three rows want everything; one fits whole, one with its blocks and nothing more, one not at all."""
    room = row_bytes(97, CELLS, 4, CONFIG) + row_bytes(98, CELLS, 2, CONFIG)
    divider = Divider(CaptureConfig(block_tokens=16, top_k=5, max_detail_bytes=room), CELLS)
    parts = divider.divide(wanted(4, rows=3))
    assert levels(parts) == {1: [("r0", [99])], 2: [("r0", [98])], 4: [("r0", [97])]}
    assert divider.reduced == {"step_bytes": 2}
    assert [item.keys for part in parts for item in part.rows] == [100, 99, 98]


def test_the_buffers_of_a_step_take_what_was_reckoned() -> None:
    config = CaptureConfig(block_tokens=16, top_k=5)
    for detail in (2, 3, 4):
        (part,) = Divider(config, CELLS).divide(wanted(detail, rows=3))
        buffer = allocate_part(part, (0, 1, 2), 6, config)
        assert buffer.detail is not None
        assert buffer.detail.size_bytes == sum(row_bytes(position, CELLS, detail, config) for position in (97, 98, 99))
        assert buffer.size_bytes > buffer.detail.size_bytes


def test_the_budget_reckons_with_what_a_close_look_costs() -> None:
    """Ordinary rows stay cheap in its books while a request beside them is looked at closely."""

    class Books:
        def admit(
            self, tokens: list[int], numbers: list[float], exempt: list[bool], limit: int, owed: list[bool]
        ) -> Admission:
            self.tokens = tokens
            return Admission(list(range(len(tokens))), [1.0] * len(tokens), 0)

    books = Books()
    plain, close = (
        WantedRows(item.request, 0, 0, [99], 1, 1, item.detail) for item in wanted(1, 3, rows=1)
    )
    plan = admitted([plain, close], 64, books)  # type: ignore[arg-type]
    assert books.tokens == [100, 100 * DETAIL_COST]
    assert [item.positions.tolist() for item in plan.rows] == [[99], [99]]
    assert [item.detail for item in plan.rows] == [1, 3]
