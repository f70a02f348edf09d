"""Attaching capture to an engine worker: what it is, what of it can be captured, and the hook on each layer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from headwatch import __version__
from headwatch.capture.engine import graphs, lifecycle, modes
from headwatch.capture.engine.identity import (
    alone,
    identity_of,
    place_of,
    refuse_unnumbered,
    refuse_whole_heads,
    total_heads,
)
from headwatch.capture.engine.runners.choose import NoRunner, choose_runner, runner_name, target_layers
from headwatch.capture.kernels.choose import choose
from headwatch.capture.layers.discovery import CapturedLayer, discover
from headwatch.capture.layers.kinds import left_out
from headwatch.capture.worker import Capture
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwatch.capture.engine.runners.base import Runner
    from headwatch.config import Config


def create(config: Config, worker: Any) -> Capture:
    """Return the capture of an engine *worker* (vLLM 0.32 ``Worker``) whose cache has been allocated, and start it.

    An engine that is not understood gets a capture without layers, which reports why it is down.
    """
    runner, refusal = _runner(worker)
    place = place_of(worker)
    layers = [] if refusal else discover(target_layers(worker), config.capture.layers)
    heads = total_heads(worker)
    refuse_whole_heads(layers, heads, place)
    refuse_unnumbered(layers, worker, place)
    device = str(getattr(getattr(worker, "device", None), "type", "cpu"))
    beside = config.capture.spare_core and alone(worker, place)
    kernel = choose(device, layers, values=config.capture.value_mass, beside=beside)
    capture = Capture(config, identity_of(config, worker, layers, place, heads), runner, layers, kernel, refusal)
    capture.tensor_rank = place.tensor_rank
    capture.left_out = left_out(worker.vllm_config.compilation_config.static_forward_context, _modules(worker))
    if not refusal:
        graphs.install(capture, worker)
    lifecycle.install(capture, worker)
    wrap_layers(capture)
    capture.start()
    # Below vLLM's own logger, which shows INFO: in its log "left out" and "working" must not look the same.
    logging.getLogger("vllm.headwatch").info(
        "headwatch %s captures %d of %d attention layers: %g of all requests, to %s; live control: %s", __version__,
        sum(item.active for item in layers), len(layers), config.capture.sample_rate, config.wire.endpoint,
        config.wire.control_endpoint if config.wire.control_secret_file else "off (wire.control_secret_file is empty)",
    )  # fmt: skip
    return capture


def wrap_layers(capture: Capture) -> None:
    """Wrap ``impl.forward`` of every captured layer, and ``forward_impl`` of one that keeps latents, once.

    Source: vLLM 0.32 ``unified_attention_with_output`` looks ``layer.impl.forward`` up at each call and
    ``unified_mla_attention_with_output`` ``layer.forward_impl``, also in compiled models, so a wrapper that is set on the
    instance after compilation is seen.
    """
    for item in capture.layers.values():
        if item.active and item.latent is not None:
            if not hasattr(item.layer.forward_impl, "__headwatch__"):
                item.layer.forward_impl = _wrapped_latent(capture, item)
        elif item.active and not hasattr(item.layer.impl.forward, "__headwatch__"):
            item.layer.impl.forward = _wrapped(capture, item)


def _wrapped(capture: Capture, item: CapturedLayer) -> Callable[..., Any]:
    original = item.layer.impl.forward

    def forward(
        layer: Any, query: Any, key: Any, value: Any, kv_cache: Any, attn_metadata: Any, output: Any,
        *args: Any, **kwargs: Any,
    ) -> Any:
        result = original(layer, query, key, value, kv_cache, attn_metadata, output, *args, **kwargs)
        if capture.step is not None:
            capture.after_attention(item, query, kv_cache, attn_metadata, output)
        return result

    forward.__headwatch__ = True  # type: ignore[attr-defined]  # marks the wrapper, so that it is set once
    return forward


def _wrapped_latent(capture: Capture, item: CapturedLayer) -> Callable[..., Any]:
    original = item.layer.forward_impl

    def forward_impl(
        query: Any, latents: Any, rotated: Any, kv_cache: Any, attn_metadata: Any, output: Any, *args: Any, **kwargs: Any
    ) -> Any:
        result = original(query, latents, rotated, kv_cache, attn_metadata, output, *args, **kwargs)
        if capture.step is not None:
            capture.after_attention(item, query, kv_cache, attn_metadata, output)
        return result

    forward_impl.__headwatch__ = True  # type: ignore[attr-defined]  # marks the wrapper, so that it is set once
    return forward_impl


def _modules(worker: Any) -> Iterable[tuple[str, Any]]:
    model = getattr(worker.model_runner, "model", None)
    return model.named_modules() if model is not None else ()


def _runner(worker: Any) -> tuple[Runner, str]:
    """Return the adapter of *worker* and why nothing of it can be captured; empty where it can."""
    try:
        return choose_runner(worker), modes.refusal(worker.vllm_config)
    except CaptureRefused as refused:
        return NoRunner(runner_name(worker)), f"{refused.reason}: {refused}"
    except AttributeError as error:  # the engine moved something that we have to know
        return NoRunner(runner_name(worker)), f"engine: {error}"
