"""Modes of the engine in which capture would not know what it reads: refused, by name, when the engine starts.

Each entry says why.  What is missing here is either supported and tested (tensor, pipeline and data parallel, prefix
caching, preemption, LoRA, speculation with synchronous scheduling …) or refused layer by layer (backends, cache layouts).
docs/support-matrix.md lists both.  The first mode that applies is the reason shown in the status frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def refusal(vllm_config: Any) -> str:
    """Return ``mode: why`` where an engine of *vllm_config* (vLLM 0.32 ``VllmConfig``) cannot be captured, else "".

    Raises:
        AttributeError: The configuration lacks what a mode is told by; the caller refuses then, too.
    """
    return next((f"{name}: {why}" for name, applies, why in MODES if applies(vllm_config)), "")


def _pooling(config: Any) -> bool:
    return bool(config.model_config.runner_type == "pooling")


def _context_parallel(config: Any) -> bool:
    parallel = config.parallel_config
    return bool(parallel.prefill_context_parallel_size * parallel.decode_context_parallel_size > 1)


def _several_nodes(config: Any) -> bool:
    return bool(config.parallel_config.nnodes_within_dp > 1)


def _foreign_executor(config: Any) -> bool:
    return config.parallel_config.distributed_executor_backend not in {"uni", "mp", None}


def _microbatches(config: Any) -> bool:
    return bool(config.parallel_config.use_ubatching)


def _asynchronous_speculation(config: Any) -> bool:
    return config.speculative_config is not None and bool(config.scheduler_config.async_scheduling)


def _diffusion(config: Any) -> bool:
    return config.diffusion_config is not None


def _sparse(config: Any) -> bool:
    return hasattr(config.model_config.hf_text_config, "index_topk") or (
        getattr(config.attention_config, "hisparse_config", None) is not None
    )


def _reference_window(config: Any) -> bool:
    return getattr(config.model_config, "rswa_window", None) is not None


def _fast_prefill(config: Any) -> bool:
    return bool(config.cache_config.kv_sharing_fast_prefill)


def _connector(config: Any) -> bool:
    return config.kv_transfer_config is not None


MODES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("pooling", _pooling, "a pooling model generates nothing, so it has no row that could be grounded"),
    ("context_parallel", _context_parallel, "each rank holds only a part of every context"),
    ("multi_node", _several_nodes, "the ranks of one engine on several machines reach different sidecars"),
    ("executor", _foreign_executor, "only the executors 'uni' and 'mp' are known to give all ranks the same request ids"),
    ("microbatching", _microbatches, "a batch that is cut into microbatches runs its layers on several threads"),
    ("speculation", _asynchronous_speculation,
     "with asynchronous scheduling the host does not know how many drafts were accepted; start with --no-async-scheduling"),
    ("diffusion", _diffusion, "positions are written several times, in no order"),
    ("sparse_attention", _sparse, "a learned index hides most positions from each query"),
    ("reference_window", _reference_window, "the window of this model leaves the prompt visible, which no rule here describes"),
    ("fast_prefill", _fast_prefill, "layers that share a cache run on other rows than the batch has"),
    ("kv_connector", _connector, "keys may come from another engine after the layer has been read"),
)
"""(mode, whether it applies, why it is refused), in the order in which they are asked."""
