"""Detail levels and value masses inside a worker: who gets them, within which bounds, and that no fault of theirs spreads."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from headwatch.capture import worker as worker_module
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.config import CaptureConfig, Config
from headwatch.model import RequestContext, SummaryBatch
from headwatch.wire.columns import view

from .engine import HEADS, Engine
from .test_worker import CONFIG, capture_on, step


def configured(**settings: Any) -> Config:
    return Config(capture=msgspec.structs.replace(CONFIG.capture, **settings))


def asking(engine: Engine, detail: int) -> str:
    context = msgspec.json.decode(engine.context(), type=RequestContext)
    return msgspec.json.encode(msgspec.structs.replace(context, detail=detail)).decode()


def frames(capture: Any) -> list[SummaryBatch]:
    found: list[SummaryBatch] = capture.sender.frames
    return found


def test_a_request_gets_the_detail_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    capture = capture_on(engine, monkeypatch, configured(block_tokens=8))
    step(capture, engine, 33, new=True, context=asking(engine, 4))
    (frame,) = frames(capture)
    detail = view(frame).detail
    assert frame.detail == 4
    assert detail is not None
    (whole,) = detail.full_weight
    np.testing.assert_allclose(whole.astype(float).sum(0), np.ones((2, HEADS)), atol=2e-2)
    assert detail.block_profile[0].shape == (5, 2, HEADS), "33 positions in blocks of 8"
    assert detail.top_position is not None
    assert (detail.top_position[0, :, :, 0] == whole.argmax(0)).all()


@pytest.mark.parametrize(("in_force", "asked", "got"), [(1, 0, 1), (0, 2, 2), (3, 2, 3), (2, 3, 3)])
def test_settings_and_request_each_raise_the_detail_and_lower_nothing(
    monkeypatch: pytest.MonkeyPatch, in_force: int, asked: int, got: int
) -> None:
    engine = Engine()
    capture = capture_on(engine, monkeypatch, configured(detail=in_force))
    step(capture, engine, 33, new=True, context=asking(engine, asked))
    assert [frame.detail for frame in frames(capture)] == [got]


def test_whole_rows_stop_at_the_bound_and_the_rest_of_the_step_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of 32 rows of a prompt: the first ones fit the request's bound, the others get top positions."""
    engine = Engine()
    capture = capture_on(engine, monkeypatch, configured(max_full_bytes=2 * 2 * HEADS * (1 + 2 + 3)))
    step(capture, engine, 32, rows=32, new=True, context=asking(engine, 4), finished=())
    top, whole = frames(capture)
    assert (top.detail, view(top).position.tolist()) == (3, list(range(3, 32)))
    assert (whole.detail, view(whole).position.tolist()) == (4, [0, 1, 2])
    counters = capture.status().counters
    assert counters["detail_reduced.full_bytes"] == 29
    assert counters["rows_planned"] == 32 == counters["rows_sent"], "each row is counted once"


def test_only_the_last_frame_of_a_step_says_that_a_request_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar that heard it before the last row would open the request anew."""
    engine = Engine()
    capture = capture_on(engine, monkeypatch, configured(max_full_bytes=2 * 2 * HEADS * 3))
    step(capture, engine, 32, rows=32, new=True, context=asking(engine, 4))
    capture.sender.frames.clear()
    capture.requests["r-1"].last_position = -1
    step(capture, engine, 32, rows=32, new=False, finished=("r-1",))
    assert [(frame.detail, frame.finished) for frame in frames(capture)] == [(3, ["r-1"])]


def test_the_next_request_is_sent_whole_once_the_first_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    capture = capture_on(engine, monkeypatch)
    step(capture, engine, 33, new=True, context=asking(engine, 4))
    assert list(capture.divider._sent_bytes) == ["r-1"]
    step(capture, engine, 34, new=False, finished=("r-1",))
    assert capture.divider._sent_bytes == {}


def test_value_masses_are_a_setting_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    capture = capture_on(engine, monkeypatch, configured(value_mass=True))
    outputs = step(capture, engine, 33, new=True)
    (frame,) = frames(capture)
    columns = view(frame)
    assert columns.output_norm is not None
    for place, output in enumerate(outputs.values()):
        np.testing.assert_allclose(columns.output_norm[0, place], output[1].norm(dim=-1), rtol=1e-5)
    # The norm of a sum is at most the sum of the norms: heads never put out more than they carried.
    assert (columns.output_norm[0] <= columns.value_mass[0].sum(0) * 1.0001).all()
    assert (columns.value_mass[0].sum(0) > 0).all()


def test_a_head_that_looks_and_carries_nothing_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of the document are zero in the cache: its span mass is as before, its value mass is 0."""
    engine = Engine()
    flat = engine.cache.view(8, 2, 2, -1)
    for token in range(4, 24):
        flat[engine.blocks[token // 16], :, 1].view(2, 16, 8)[:, token % 16] = 0.0
    engine.values[4:24] = 0.0
    capture = capture_on(engine, monkeypatch, configured(value_mass=True))
    step(capture, engine, 33, new=True)
    columns = view(frames(capture)[0])
    assert (columns.span_mass[0][1] > 0.1).any(), "some head looks at the document"
    assert (columns.value_mass[0][1] == 0).all()
    assert (columns.value_mass[0][[0, 2, 3]] > 0).all()


def test_a_kernel_that_cannot_weigh_by_values_leaves_it_to_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(TorchRows):
        name = "plain"
        carries_values = False

        def summarise(self, *_: Any) -> None:
            pytest.fail("it was asked for what it cannot do")

    engine = Engine()
    capture = capture_on(engine, monkeypatch, configured(value_mass=True))
    capture.kernel = Plain()
    step(capture, engine, 33, new=True)
    assert view(frames(capture)[0]).value_mass


def test_a_kernel_whose_value_masses_are_wrong_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half:
        name = "half"
        carries_values = True

        def summarise(self, call: Any, rows: Any, slot: Any, memo: Any) -> None:
            TorchRows().summarise(call, rows, slot, memo)
            slot.buffer.value_mass[:, slot.index] /= 2

        def again(self, *_: Any) -> bool:
            return False

        def settle(self) -> float:
            return 0.0

    engine = Engine()
    capture = capture_on(engine, monkeypatch, configured(value_mass=True))
    right = capture_on(other := Engine(), monkeypatch, configured(value_mass=True))
    capture.kernel = Half()
    step(capture, engine, 33, new=True)
    step(right, other, 33, new=True)
    assert frames(capture)[0].value_mass == frames(right)[0].value_mass
    assert capture.status().errors["kernel_check"] == 2


def test_a_fault_of_the_detail_pass_is_one_of_capture_and_reaches_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    plain = engine.attend(33)
    capture = capture_on(engine, monkeypatch)

    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(worker_module, "write_detail", broken)
    outputs = step(capture, engine, 33, new=True, context=asking(engine, 3))
    assert all(torch.equal(plain[name], outputs[name]) for name in plain)
    assert frames(capture) == [], "no frame with columns that were never written"
    assert capture.status().errors["MemoryError"] == 2
    assert capture.status().counters["rows_refused"] == 1


def test_requests_cannot_ask_for_more_than_the_operator_allows() -> None:
    from types import SimpleNamespace

    from headwatch.capture.request.field import CONTEXT_KEY, FIELD_KEY
    from headwatch.capture.request.front_end import FrontEnd

    front_end = FrontEnd(CaptureConfig(max_detail=2))
    params = SimpleNamespace(extra_args={FIELD_KEY: '{"capture": "always", "detail": 4}'})
    request = SimpleNamespace(
        sampling_params=params, external_req_id="r", request_id="r-1", prompt_token_ids=[1, 2], prompt_embeds=None,
        resumable=False, trace_headers=None, lora_request=None, mm_features=None,
    )  # fmt: skip
    front_end.annotate(request, None)
    assert msgspec.json.decode(params.extra_args[CONTEXT_KEY])["detail"] == 2
