"""Which adapter a worker's model runner gets, and which of the engine's layers that runner's batches go through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.capture.engine.contract import runner_needs
from headwatch.capture.engine.runners.v1 import V1Runner
from headwatch.capture.engine.runners.v2 import V2Runner
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from headwatch.capture.engine.runners.base import Runner, StepBatch


class NoRunner:
    """Stands for a model runner that no adapter understands; nothing is ever planned with it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def batch(self) -> StepBatch:
        """Refuse."""
        raise CaptureRefused("runner", f"model runner {self.name} is not supported by this release")

    def block_table(self, layer_name: str) -> Tensor:
        """Refuse."""
        raise CaptureRefused("runner", f"model runner {self.name} is not supported by this release; asked for {layer_name}")


def choose_runner(worker: Any) -> Runner:
    """Return the adapter for the model runner of an engine *worker* (vLLM 0.32 ``Worker``).

    Raises:
        CaptureRefused: With reason ``runner`` where the runner lacks what its adapter reads.
    """
    runner = worker.model_runner
    second = bool(getattr(worker, "use_v2_model_runner", False))
    lacking = [name for name in runner_needs("v2 runner" if second else "v1 runner") if not hasattr(runner, name)]
    if lacking:
        raise CaptureRefused(
            "runner", f"model runner {runner_name(worker)} is not supported by this release: it has no {', '.join(lacking)}"
        )
    return V2Runner(runner) if second else V1Runner(runner)


def runner_name(worker: Any) -> str:
    """Return the class of a worker's model runner, with its module."""
    kind = type(worker.model_runner)
    return f"{kind.__module__}.{kind.__qualname__}"


def target_layers(worker: Any) -> Mapping[str, Any]:
    """Return the engine's layers by name, without those of a draft model: they run outside of ``execute_model``.

    Source: vLLM 0.32 ``v1/spec_decode/llm_base_proposer.py`` and ``v1/worker/gpu/spec_decode/speculator.py``; proposers
    without layers of their own (n-gram, suffix) have none of these names.
    """
    runner = worker.model_runner
    drafters = [getattr(runner, "drafter", None), getattr(runner, "speculator", None)]
    names = {
        name
        for drafter in drafters
        for attribute in ("_draft_attn_layer_names", "draft_attn_layer_names", "attn_layer_names")
        for name in getattr(drafter, attribute, ())
    }
    context = worker.vllm_config.compilation_config.static_forward_context
    return {name: layer for name, layer in context.items() if name not in names}
