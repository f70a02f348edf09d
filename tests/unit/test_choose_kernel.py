"""Which kernel a worker gets, and that a GPU's is compiled before the first request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headwatch.capture.cache.reader import CpuVectorReader
from headwatch.capture.kernels import choose as module
from headwatch.capture.kernels.choose import choose, warm_up
from headwatch.capture.layers.attention import AttentionRule
from headwatch.errors import CaptureRefused


def layer(heads: int = 4, window: int = 0, *, active: bool = True) -> Any:
    engine_layer = SimpleNamespace(
        kv_cache=torch.zeros(3, 2, 16, 64), dtype=torch.float32, impl=SimpleNamespace(head_size=32)
    )
    return SimpleNamespace(
        layer=engine_layer, reader=CpuVectorReader(), active=active, heads=heads, rule=AttentionRule(0.3, window=window)
    )


class Recorder:
    """Stands for the Triton kernel: it notes what it is asked to compile."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, bool]] = []

    def warm_up(self, call: Any, *, values: bool) -> None:
        self.calls.append((call, values))


def test_every_geometry_is_compiled_once_and_refused_layers_are_not() -> None:
    kernel = Recorder()
    warm_up(kernel, [layer(), layer(), layer(window=8), layer(heads=8), layer(active=False)], values=True)  # type: ignore[arg-type]
    assert [(call.query.shape[1], call.rule.window) for call, _ in kernel.calls] == [(4, 0), (4, 8), (8, 0)]
    call, values = kernel.calls[0]
    assert values
    assert call.query.shape == (2, 4, 32)
    assert call.block_table.tolist() == [[0]]


def test_on_a_cpu_the_compiled_kernel_runs() -> None:
    assert choose("cpu", [], values=False).name == "cpu"


def test_where_triton_fails_the_oracle_runs_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise CaptureRefused("compiler", "Triton does not compile: no ptxas")

    monkeypatch.setattr(module, "_compiled_for_gpu", broken)
    assert choose("cuda", [layer()], values=False).name == "torch"
    assert "no ptxas" in caplog.text
