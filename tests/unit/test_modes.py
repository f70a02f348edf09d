"""The modes of an engine as a worker meets them: its place among the ranks, new weights, sleep, and what it cannot do."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from headwatch.capture import attach, plugin
from headwatch.capture import worker as worker_module
from headwatch.capture.engine import modes
from headwatch.config import CaptureConfig, Config, WireConfig
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import StatusFrame, SummaryBatch

from .engine import HEADS, LAYER_NAMES, Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwatch.capture.worker import Capture

CONFIG = Config(
    capture=CaptureConfig(step_stride=1, prefill_stride=1, error_limit=2, retry_seconds=3600.0, budget_share=1.0, instance="e")
)


class Line:
    """Stands for the sender: keeps the frames."""

    def __init__(self) -> None:
        self.frames: list[SummaryBatch] = []
        self.rows_sent = self.rows_dropped = self.frames_sent = self.frames_dropped = 0
        self.error = ""
        self.errors: Counter[str] = Counter()

    def offer(self, build: Callable[[], SummaryBatch], rows: int, *_: object) -> None:
        self.frames.append(build())
        self.rows_sent += rows


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Callable[..., Capture]:
    """Attach capture to the engine; arguments change its parallel configuration."""

    def attach_to(rank: int = 0, **parallel: object) -> Capture:
        monkeypatch.setattr(worker_module.Sender, "start", lambda _: None)
        monkeypatch.setattr(attach.graphs, "install", lambda *_: None)
        engine.worker.rank = rank
        for name, value in parallel.items():
            setattr(engine.worker.vllm_config.parallel_config, name, value)
        capture = attach.create(CONFIG, engine.worker)
        capture.sender = Line()  # type: ignore[assignment]
        return capture

    return attach_to


def step(capture: Capture, engine: Engine, length: int, **scheduled: Any) -> SimpleNamespace:
    output = engine.scheduled(**scheduled)
    capture.begin_step(output)
    engine.attend(length)
    capture.end_step()
    return output


def frames(capture: Capture) -> list[SummaryBatch]:
    return capture.sender.frames  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(("rank", "offset"), [(0, 0), (1, HEADS), (2, 0), (3, HEADS)])
def test_tensor_parallel_ranks_send_global_head_numbers(
    engine: Engine, attached: Callable[..., Capture], rank: int, offset: int
) -> None:
    """Two pipeline stages of two tensor parallel ranks each: ranks of a stage follow each other."""
    capture = attached(rank, tensor_parallel_size=2, pipeline_parallel_size=2)
    step(capture, engine, 33, new=True)
    (frame,) = frames(capture)
    assert (frame.head_offset, frame.heads) == (offset, HEADS)
    assert (frame.worker.rank, frame.worker.ranks) == (rank, 4)
    assert (frame.worker.layers, frame.worker.heads) == (len(LAYER_NAMES), 2 * HEADS), "of the whole model, on every rank"


def test_layers_whose_heads_tensor_parallelism_does_not_cut_are_refused(
    engine: Engine, attached: Callable[..., Capture]
) -> None:
    engine.layers[LAYER_NAMES[1]].impl.num_heads = 2 * HEADS
    status = attached(1, tensor_parallel_size=2).status()
    assert list(status.refused_layers) == [LAYER_NAMES[1]]
    assert status.refused_layers[LAYER_NAMES[1]].startswith("parallel: ")


def test_a_pipeline_stage_refuses_layers_that_it_cannot_number(engine: Engine, attached: Callable[..., Capture]) -> None:
    """Of a model with one layer, a stage that has the layers 0 and 1: they are two attentions of one layer."""
    engine.worker.vllm_config.model_config.get_total_num_hidden_layers = lambda: 1
    assert list(attached(0, pipeline_parallel_size=2).status().refused_layers) == [LAYER_NAMES[1]]


def test_data_parallel_replicas_are_engines_of_their_own(attached: Callable[..., Capture]) -> None:
    assert attached().identity.instance == "e"
    assert attached(data_parallel_index=1).identity.instance == "e-dp1"


@pytest.mark.parametrize(
    ("owner", "name", "value", "mode"),
    [
        ("parallel_config", "decode_context_parallel_size", 2, "context_parallel"),
        ("parallel_config", "nnodes_within_dp", 2, "multi_node"),
        ("parallel_config", "distributed_executor_backend", "ray", "executor"),
        ("parallel_config", "use_ubatching", True, "microbatching"),
        ("model_config", "runner_type", "pooling", "pooling"),
        ("cache_config", "kv_sharing_fast_prefill", True, "fast_prefill"),
    ],
)
def test_a_mode_that_is_refused_is_named_in_the_status_and_nothing_is_sent(
    engine: Engine, attached: Callable[..., Capture], owner: str, name: str, value: object, mode: str
) -> None:
    setattr(getattr(engine.worker.vllm_config, owner), name, value)
    capture = attached()
    step(capture, engine, 33, new=True)
    status = capture.status()
    assert not status.up
    assert status.reason.startswith(f"{mode}: ")
    assert frames(capture) == []


def test_every_mode_that_is_refused_stands_in_the_support_matrix() -> None:
    page = (Path(__file__).parents[2] / "docs" / "support-matrix.md").read_text()
    assert [name for name, *_ in modes.MODES if f"refused: `{name}`" not in page] == []


def test_a_configuration_that_has_moved_is_refused_by_what_is_missing(engine: Engine, attached: Callable[..., Capture]) -> None:
    del engine.worker.vllm_config.parallel_config.use_ubatching
    status = attached().status()
    assert not status.up
    assert "use_ubatching" in status.reason


def test_new_weights_are_another_revision_and_must_be_proved_anew(engine: Engine, attached: Callable[..., Capture]) -> None:
    reloads = []
    engine.worker.reload_weights = lambda *paths: reloads.append(paths)
    capture = attached()
    for length in range(33, 37):
        step(capture, engine, length, new=length == 33)
    assert all(item.trust.earned for item in capture.layers.values())
    engine.worker.reload_weights("elsewhere")
    assert reloads == [("elsewhere",)], "the engine's own method runs, with its arguments"
    assert not any(item.trust.earned for item in capture.layers.values())
    step(capture, engine, 37, new=False)
    assert [frame.worker.revision for frame in frames(capture)] == ["", "", "", "", "+reload1"]
    engine.worker.reload_weights()
    assert capture.identity.revision == "+reload2"


def test_asleep_nothing_is_captured_and_the_status_says_so(engine: Engine, attached: Callable[..., Capture]) -> None:
    engine.worker.sleep = engine.worker.wake_up = lambda *_, **__: "done"
    capture = attached()
    step(capture, engine, 33, new=True)
    assert engine.worker.sleep(level=1) == "done"
    step(capture, engine, 34, new=False)
    assert (capture.status().up, capture.status().reason[:6]) == (False, "asleep")
    engine.worker.wake_up()
    step(capture, engine, 35, new=False)
    assert (capture.status().up, capture.status().reason) == (True, "")
    assert len(frames(capture)) == 2


def test_a_preempted_request_that_the_scheduler_adds_anew_sends_no_row_twice(
    engine: Engine, attached: Callable[..., Capture]
) -> None:
    """V2's scheduler has no resumed requests: it sends a preempted one as new, with everything to compute again."""
    capture = attached()
    for length in (33, 34):
        step(capture, engine, length, new=length == 33)
    step(capture, engine, 34, new=True)
    assert [len(frame.row_position) // 4 for frame in frames(capture)] == [1, 1]
    assert capture.status().counters["requests"] == 1


class TestOneDecisionForAllGraphs:
    """``full_graphs_excluded`` in the step, as the dispatcher sees it."""

    def during(self, capture: Capture, output: Any) -> bool:
        capture.begin_step(output)
        excluded = capture.full_graphs_excluded
        capture.end_step()
        assert not capture.full_graphs_excluded, "a dummy run between steps is none of ours"
        return excluded

    def test_a_worker_that_is_alone_decides_by_its_rows(self, engine: Engine, attached: Callable[..., Capture]) -> None:
        capture = attached()
        assert self.during(capture, engine.scheduled(new=True))
        assert not self.during(capture, engine.scheduled(new=False, rows=0))

    def test_a_worker_that_is_alone_leaves_graphs_in_peace_while_its_breaker_is_open(
        self, engine: Engine, attached: Callable[..., Capture]
    ) -> None:
        capture = attached()
        self.during(capture, engine.scheduled(new=True))
        for _ in range(2):
            capture.breaker.failed(MemoryError("no room"))
        assert not self.during(capture, engine.scheduled(new=False))

    def test_a_rank_of_several_obeys_the_mark_whatever_it_thinks_itself(
        self, engine: Engine, attached: Callable[..., Capture], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also with an open breaker, and when its own step fails: or it would run another graph than the others."""
        capture = attached(1, tensor_parallel_size=2)
        marked, unmarked = engine.scheduled(new=True), engine.scheduled(new=False)
        marked.headwatch_sampled = True
        assert not self.during(capture, unmarked)
        assert self.during(capture, marked)
        for _ in range(2):
            capture.breaker.failed(MemoryError("no room"))
        assert self.during(capture, marked)
        monkeypatch.setattr(capture, "_admit", lambda _: 1 / 0)
        assert self.during(capture, marked)


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[tuple[Config, WorkerRegistry]]:
    """A real receiver, and the configuration of workers that report to it."""
    wire = WireConfig(endpoint=f"ipc://{tmp_path}/frames", status_seconds=0.05)
    registry = WorkerRegistry()
    receiver = Receiver(wire, registry, lambda *_: None)
    receiver.start()
    yield Config(capture=CONFIG.capture, wire=wire), registry
    receiver.stop()


def reported(registry: WorkerRegistry) -> StatusFrame:
    deadline = time.monotonic() + 20.0
    while not registry.health() and time.monotonic() < deadline:
        time.sleep(0.02)
    return registry.health()[0].status


class Wrapper:
    """vLLM's ``WorkerWrapperBase``, as far as it is wrapped."""

    def __init__(self) -> None:
        self.worker = SimpleNamespace(rank=3, vllm_config=None, model_runner=None)

    def initialize_from_config(self, _: object) -> str:
        return "initialised"

    def execute_model(self, scheduler_output: object) -> object:
        return scheduler_output


def test_a_release_that_is_not_known_gets_workers_that_say_so(
    monkeypatch: pytest.MonkeyPatch, inbox: tuple[Config, WorkerRegistry], caplog: pytest.LogCaptureFixture
) -> None:
    config, registry = inbox
    wrapper_class = type("Unknown", (Wrapper,), dict(Wrapper.__dict__))
    engine = ModuleType("vllm")
    engine.__version__ = "9.9.1"  # type: ignore[attr-defined]
    base = ModuleType("vllm.v1.worker.worker_base")
    base.WorkerWrapperBase = wrapper_class  # type: ignore[attr-defined]
    for module in (engine, base):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("vllm.v1", "vllm.v1.worker"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr("headwatch.config_file.load", lambda: SimpleNamespace(config=config))
    plugin.register()
    plugin.register()
    assert "vLLM 9.9.1 is not supported (supported: 0.31 up to, not including, 0.34)" in caplog.text
    wrapper = wrapper_class()
    assert wrapper.initialize_from_config(None) == "initialised"
    assert wrapper.execute_model("step") == "step"
    status = reported(registry)
    assert not status.up
    assert status.reason.startswith("engine: vLLM 9.9.1 is not supported")
    assert (status.worker.instance, status.worker.rank) == ("e", 3)


def test_a_capture_that_cannot_start_says_why_and_follows_the_other_ranks(
    inbox: tuple[Config, WorkerRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, registry = inbox
    wrapper_class = type("Broken", (Wrapper,), dict(Wrapper.__dict__))
    monkeypatch.setattr(attach, "create", lambda *_: 1 / 0)
    plugin.install_worker_hook(wrapper_class, config)
    wrapper = wrapper_class()
    assert wrapper.initialize_from_config(None) == "initialised"
    assert plugin.current(wrapper) is None
    assert reported(registry).reason == "start: ZeroDivisionError: division by zero"
    follower, seen = wrapper.__dict__["_headwatch_follower"], []
    monkeypatch.setattr(follower, "end_step", lambda: seen.append(follower.full_graphs_excluded))
    output = SimpleNamespace(headwatch_sampled=True)
    assert wrapper.execute_model(output) is output
    assert seen == [True]
