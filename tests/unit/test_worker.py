"""Capture inside a worker: exact bookkeeping, and no fault of ours ever reaches the engine."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from headwatch.capture import worker as worker_module
from headwatch.capture.attach import create
from headwatch.capture.kernels import oracle
from headwatch.capture.layers.attention import AttentionRule
from headwatch.capture.plugin import install_worker_hook, register
from headwatch.config import CaptureConfig, Config
from headwatch.model import FEATURES, SummaryBatch
from headwatch.wire.columns import view

from .engine import HEADS, Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.capture.worker import Capture

CONFIG = Config(
    capture=CaptureConfig(step_stride=1, prefill_stride=1, error_limit=3, retry_seconds=3600.0, budget_share=1.0)
)


class Line:
    """Stands for the sender: keeps the frames."""

    def __init__(self) -> None:
        self.frames: list[SummaryBatch] = []
        self.rows_sent = self.rows_dropped = self.frames_sent = self.frames_dropped = 0
        self.errors: Counter[str] = Counter()
        self.error = ""

    def offer(self, build: Callable[[], SummaryBatch], rows: int, size_bytes: int = 0) -> None:
        self.frames.append(build())
        self.rows_sent += rows


def capture_on(engine: Engine, monkeypatch: pytest.MonkeyPatch, config: Config = CONFIG) -> Capture:
    monkeypatch.setattr(worker_module.Sender, "start", lambda _: None)
    made = create(config, engine.worker)
    made.sender = Line()  # type: ignore[assignment]
    return made


def step(capture: Capture, engine: Engine, length: int, rows: int = 1, **scheduled: Any) -> dict[str, torch.Tensor]:
    capture.begin_step(engine.scheduled(rows=rows, **scheduled))
    outputs = engine.attend(length, rows)
    capture.end_step()
    return outputs


def test_sampled_rows_become_a_frame_with_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    capture = capture_on(engine, monkeypatch)
    step(capture, engine, 32, rows=32, new=True)
    step(capture, engine, 33, new=False)
    step(capture, engine, 34, new=False, finished=("r-1",))
    first, second, third = capture.sender.frames  # type: ignore[attr-defined]
    columns = view(first)
    assert first.layers == [0, 1]
    assert columns.position.tolist() == list(range(32))
    assert view(second).position.tolist() == [32]
    assert second.requests[0].engine_id == "r-1"
    assert np.isfinite(view(second).features[..., FEATURES.index("lookback")]).all()
    np.testing.assert_allclose(view(second).span_mass[0].sum(0), np.ones((2, HEADS)), atol=1e-5)
    assert third.finished == ["r-1"]
    assert [frame.sequence for frame in capture.sender.frames] == [0, 1, 2]  # type: ignore[attr-defined]
    counters = capture.status().counters
    assert counters["rows_planned"] == 34 == counters["rows_sent"] + counters["rows_dropped"] + counters["rows_refused"]
    assert capture.requests == {}, "an ended request leaves nothing behind"


def test_the_engine_s_output_is_the_kernel_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    plain = engine.attend(33)
    capture = capture_on(engine, monkeypatch)
    captured = step(capture, engine, 33, new=True)
    for name, output in plain.items():
        assert torch.equal(output, captured[name])


def test_a_step_without_sampled_requests_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    capture = capture_on(engine, monkeypatch)
    monkeypatch.setattr(capture, "after_attention", lambda *_: pytest.fail("a layer did more than test the flag"))
    capture.begin_step(engine.scheduled(new=False))
    engine.attend(33)
    capture.end_step()
    assert capture.sender.frames == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", ["scale", "layout", "nan"])
def test_a_layer_that_fails_the_self_check_is_refused_and_the_other_goes_on(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    engine = Engine()
    capture = capture_on(engine, monkeypatch)
    item = capture.layers["model.layers.0.self_attn.attn"]
    if fault == "scale":
        item.rule = AttentionRule(0.35 * 1.5)
    else:
        read = item.reader.read  # type: ignore[union-attr]

        class Wrong:
            def read(self, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
                keys, values = read(*arguments)
                return (keys * float("nan") if fault == "nan" else keys.roll(1, 0)), values

        item.reader = Wrong()
    step(capture, engine, 33, new=True)
    (frame,) = capture.sender.frames  # type: ignore[attr-defined]
    assert frame.layers == [1]
    assert "self_check" in capture.status().refused_layers["model.layers.0.self_attn.attn"]
    assert capture.status().up


@pytest.mark.parametrize("place", ["parse_context", "plan_step", "weights", "summarise"])
def test_an_exception_anywhere_opens_the_breaker_and_never_reaches_the_engine(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    engine = Engine()
    plain = engine.attend(33)
    capture = capture_on(engine, monkeypatch)

    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    if place != "parse_context":
        step(capture, engine, 32, new=True)
    monkeypatch.setattr(oracle if place in {"weights", "summarise"} else worker_module, place, broken)
    for length in range(33, 38):
        outputs = step(capture, engine, length, new=place == "parse_context")
        if length == 33:
            assert all(torch.equal(plain[name], outputs[name]) for name in plain)
    status = capture.status()
    assert not status.up
    assert "no room" in status.reason
    assert status.errors["MemoryError"] >= 3


def test_a_context_that_cannot_be_read_is_counted_and_the_step_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    capture = capture_on(engine, monkeypatch)
    step(capture, engine, 33, new=True, context="{")
    assert capture.status().errors
    assert capture.sender.frames == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [("isa", "amx", "layout"), ("attn_type", "prefix_lm", "attention_type"), ("is_fp8_kv_cache", True, "cache_dtype")],
)
def test_what_is_not_understood_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, attribute: str, value: object, reason: str
) -> None:
    engine = Engine()
    for layer in engine.layers.values():
        setattr(layer if attribute == "isa" else layer.impl, attribute, value)
    status = capture_on(engine, monkeypatch).status()
    assert not status.up
    assert status.reason == "every attention layer was refused"
    assert all(text.startswith(reason) for text in status.refused_layers.values())
    assert len(status.refused_layers) == 2


def test_an_unsupported_runner_reports_why_it_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    engine.worker.use_v2_model_runner = True
    status = capture_on(engine, monkeypatch).status()
    assert not status.up
    assert status.reason.startswith("runner:")


def test_the_hook_is_set_once_and_survives_a_capture_that_cannot_start(caplog: pytest.LogCaptureFixture) -> None:
    class Wrapper:
        worker = None

        def initialize_from_config(self, _: object) -> str:
            return "initialised"

        def execute_model(self, scheduled: object) -> object:
            return scheduled

    install_worker_hook(Wrapper, CONFIG)
    once = Wrapper.execute_model
    install_worker_hook(Wrapper, CONFIG)
    assert Wrapper.execute_model is once
    wrapper = Wrapper()
    assert wrapper.initialize_from_config(None) == "initialised"
    assert wrapper.execute_model("step") == "step"
    assert "headwatch capture is off" in caplog.text


def test_register_never_raises(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("HEADWATCH_CAPTURE_SAMPEL_RATE", "1")
    register()
    assert "headwatch is off" in caplog.text
