"""Imports the installed vLLM and prints, as JSON, how its real classes stand to the contract."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pickle
import sys
from contextlib import contextmanager
from pathlib import Path

os.environ.update(VLLM_LOGGING_LEVEL="ERROR", VLLM_LOGGING_STREAM="ext://sys.stderr", HEADWATCH_DISABLE="1")
sys.path.insert(0, str(Path(__file__).parent))

import engine_graphs
from vllm.config import ModelConfig, ParallelConfig, VllmConfig
from vllm.v1.core.sched.output import SchedulerOutput

from headwatch.capture.engine import graphs, modes
from headwatch.capture.engine.contract import CONTRACT

NOT_ON_A_CPU = {"flashinfer"}
"""Packages of GPUs that modules of vLLM import at their top."""


def signatures():
    """Return (what is missing, how many callables were looked at) among the needs that name parameters."""
    missing, called = [], 0
    for need in CONTRACT:
        if not need.parameters:
            continue
        module, _, path = need.symbol.partition(":")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name in NOT_ON_A_CPU:  # the source of the release is checked all the same
                continue
            raise
        for name in path.split("."):
            found = getattr(found, name, None)
        names = inspect.signature(found).parameters if found is not None else {}
        lost = [name for name in need.parameters if name not in names]
        called += 1
        if lost:
            missing.append(f"{need.symbol}: {lost}")
    return missing, called


def plain_config():
    """Return the real configuration of a plain engine, as far as modes read it; the model is described, not loaded."""
    made = VllmConfig(parallel_config=ParallelConfig())
    made.model_config = object.__new__(ModelConfig)
    made.model_config.runner_type = "generate"
    made.model_config.hf_text_config = type("Text", (), {})()
    made.model_config.model_arch_config = type("Architecture", (), {"rswa_window": None})()
    return made


@contextmanager
def changed(owner, **values):
    """Set attributes of a real configuration object for a while."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        object.__setattr__(owner, name, value)
    yield
    for name, value in before.items():
        object.__setattr__(owner, name, value)


def refusals(config):
    """Return the refusal of each mode, with nothing else changed."""
    parallel, found = config.parallel_config, {}
    cases = {
        "pooling": (config.model_config, {"runner_type": "pooling"}),
        "context_parallel": (parallel, {"decode_context_parallel_size": 2}),
        "multi_node": (parallel, {"nnodes": 2}),
        "executor": (parallel, {"distributed_executor_backend": "ray"}),
        "microbatching": (parallel, {"enable_dbo": True}),
        "diffusion": (config, {"diffusion_config": object()}),
        "sparse_attention": (config.model_config, {"hf_text_config": type("Text", (), {"index_topk": 2048})()}),
        "reference_window": (
            config.model_config, {"model_arch_config": type("Architecture", (), {"rswa_window": 128})()}
        ),
        "fast_prefill": (config.cache_config, {"kv_sharing_fast_prefill": True}),
        "kv_connector": (config, {"kv_transfer_config": object()}),
    }
    for mode, (owner, values) in cases.items():
        with changed(owner, **values):
            found[mode] = modes.refusal(config)
    with changed(config, speculative_config=object()), changed(config.scheduler_config, async_scheduling=True):
        found["speculation"] = modes.refusal(config)
    with changed(config, speculative_config=object()), changed(config.scheduler_config, async_scheduling=False):
        assert modes.refusal(config) == ""
    return found


def shapes(dispatch):
    """Return (mode, tokens) for a decode step, a larger one, a mixed batch, and one that is too large for any graph."""
    return {"decode": dispatch(3, 3, 1), "decode_more": dispatch(7, 7, 1), "mixed": dispatch(3, 9, None),
            "large": dispatch(4, 100, None)}


def dispatched_by_v1(dispatcher):
    def dispatch(_, tokens, uniform):
        mode, shape = dispatcher.dispatch(tokens, uniform_decode=uniform is not None)
        return mode.name, shape.num_tokens
    return shapes(dispatch)


def dispatched_by_v2(manager):
    def dispatch(requests, tokens, uniform):
        found = manager.dispatch(requests, tokens, uniform, num_active_loras=0, max_query_len=uniform)
        return found.cg_mode.name, found.num_tokens
    return shapes(dispatch)


def gated(make, exclude, dispatched):
    """Return what the dispatcher says without us, in an unsampled step and in a sampled one."""
    results = {}
    for mode in engine_graphs.MODES:
        sampled = []
        dispatcher = make(mode)
        plain = dispatched(dispatcher)
        exclude(dispatcher, lambda: bool(sampled))  # noqa: B023 - asked before the next turn of the loop
        unsampled = dispatched(dispatcher)
        sampled.append(True)
        results[mode] = {"plain": plain, "unsampled": unsampled, "sampled": dispatched(dispatcher)}
    return results


def mark_survives():
    """Return whether the engine core's mark reaches a worker: executors send the scheduler's output pickled."""
    output = SchedulerOutput.make_empty()
    assert not graphs.marks(output)
    setattr(output, graphs.MARK, True)
    return graphs.marks(pickle.loads(pickle.dumps(output)))


def main():
    missing, called = signatures()
    config = plain_config()
    json.dump(
        {
            "missing": missing, "called": called, "mark": mark_survives(), "plain": modes.refusal(config),
            "modes": refusals(config),
            "graphs": {
                "v1": gated(engine_graphs.first, graphs.exclude_in_v1, dispatched_by_v1),
                "v2": gated(engine_graphs.second, graphs.exclude_in_v2, dispatched_by_v2),
            },
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
