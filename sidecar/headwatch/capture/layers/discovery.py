"""The attention layers of the engine, each with its reader, its rule and the trust it has earned.

A layer is either captured or refused with a reason; what does not attend to a request's positions is left out
(:mod:`headwatch.capture.layers.kinds`).

Numbers are global: those of the model's layers where each has one attention, and first · n + second where each has n
(LongCat: ``model.layers.3.self_attn.1``), as vLLM counts them (0.32 ``extract_layer_index``).  Cross-attention follows after
all self-attention: with four decoder layers, their cross-attention has the numbers 4 to 7.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwatch.capture.cache.gpu import GPU_BACKENDS, gpu_rule_for
from headwatch.capture.cache.reader import CPU_LATENT_BACKEND, CacheReader, backend_of, reader_for
from headwatch.capture.layers.attention import AttentionRule
from headwatch.capture.layers.kinds import attends, is_encoder, kind_of
from headwatch.capture.layers.latent import LatentHeads
from headwatch.capture.layers.selfcheck import LayerTrust
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headwatch.capture.kernels.base import RowKernel
    from headwatch.model import AttentionKind

_MAX_NUMBERS = 2


@dataclass(slots=True)
class CapturedLayer:
    """One attention layer."""

    name: str
    number: int
    layer: Any
    """The engine's ``Attention`` module."""
    reader: CacheReader | None
    rule: AttentionRule
    heads: int
    trust: LayerTrust = field(default_factory=LayerTrust)
    kernel: RowKernel | None = None
    """The kernel of this layer where it is not the worker's."""
    refused: str = ""
    kind: AttentionKind = "self"
    latent: LatentHeads | None = None
    """Set where the cache holds latents."""

    layout: str = ""
    """How its cache lies in memory, in the engine's words."""

    @property
    def active(self) -> bool:
        """Return whether rows of this layer are summarised."""
        return not self.refused and self.reader is not None


def layer_number(name: str, attentions: int = 1) -> int:
    """Return the global number of the attention called *name*, in a model with *attentions* of them in each layer.

    Raises:
        CaptureRefused: With reason ``layer_name`` where the name has no number, or more than two.
    """
    numbers = _numbers(name)
    if not 1 <= len(numbers) <= _MAX_NUMBERS:
        raise CaptureRefused("layer_name", f"layer name {name!r} has {len(numbers)} numbers; one or two were expected")
    return numbers[0] * attentions + (numbers[1] if len(numbers) == _MAX_NUMBERS else 0)


def rule_for(layer: Any) -> AttentionRule:
    """Return what an engine attention *layer* does to its logits.

    Source: vLLM 0.32 ``CPUAttentionBackendImpl.__init__`` (``sliding_window`` is -1 and ``logits_soft_cap`` 0 for none) and
    ``ChunkedLocalAttention``; latent attention has none of these.

    Raises:
        CaptureRefused: With reasons of :func:`gpu_rule_for`.
    """
    name, impl = backend_of(layer), layer.impl
    if name in GPU_BACKENDS:
        return gpu_rule_for(layer)
    if name == CPU_LATENT_BACKEND:
        return AttentionRule(float(impl.scale))
    window = impl.sliding_window
    return AttentionRule(
        scale=float(impl.scale),
        softcap=float(impl.logits_soft_cap or 0.0),
        window=int(window) if isinstance(window, int) and window > 0 else 0,
        chunk=int(getattr(layer, "attention_chunk_size", 0) or 0),
        causal=kind_of(layer) == "self",
        alibi_slopes=impl.alibi_slopes,
        sinks=impl.sinks,
    )


def layout_of(layer: Any, owner: Any) -> str:
    """Return how the cache of *layer*, written by *owner*, lies in memory, in the engine's words."""
    if backend_of(layer) == CPU_LATENT_BACKEND:
        return "latent"
    stored = str(getattr(layer.impl, "kv_cache_dtype", "auto"))
    names = [str(getattr(owner, "isa", "strided")), stored if stored.startswith("fp8") else ""]
    return " ".join(filter(None, [*names, "" if owner is layer else "shared"]))


def discover(context: Mapping[str, Any], wanted: tuple[int, ...]) -> list[CapturedLayer]:
    """Return the attention layers among the engine's ``static_forward_context``, refused ones included.

    *wanted* are global layer numbers; empty: all.
    """
    found = {name: layer for name, layer in context.items() if attends(layer) and not is_encoder(layer)}
    attentions = _attentions(found)
    layers = []
    for name, layer in found.items():
        item = CapturedLayer(name, -1, layer, None, AttentionRule(1.0), int(layer.impl.num_heads))
        try:
            item.number = layer_number(name, attentions)
            item.kind = kind_of(layer)
            owner = _owner(layer, context)
            item.reader = reader_for(layer, owner)
            item.layout = layout_of(layer, owner)
            item.rule = rule_for(layer)
            item.latent = LatentHeads(layer) if backend_of(layer) == CPU_LATENT_BACKEND else None
        except CaptureRefused as refusal:
            item.refused = f"{refusal.reason}: {refusal}"
        except (AttributeError, TypeError, ValueError) as error:
            item.refused = f"layer: cannot be understood: {error}"
        layers.append(item)
    _number_cross(layers)
    _refuse_doubles(layers)
    layers.sort(key=lambda item: item.number)
    return [item for item in layers if not wanted or item.number in wanted or item.number < 0]


def _owner(layer: Any, context: Mapping[str, Any]) -> Any:
    """Return the layer whose cache *layer* reads: its own, or one before it (Gemma 3n, YOCO).

    The engine hands the owner's cache to ``forward`` and puts both layers into one cache group, so nothing else differs (vLLM
    0.32 ``kv_sharing_target_layer_name``, ``add_kv_sharing_layers_to_kv_cache_groups``).

    Raises:
        CaptureRefused: With reason ``shared_cache`` where the owner is not there.
    """
    name = getattr(layer, "kv_sharing_target_layer_name", None) or getattr(
        layer.impl, "kv_sharing_target_layer_name", None
    )
    if name is None:
        return layer
    owner = context.get(name)
    if owner is None:
        raise CaptureRefused("shared_cache", f"the layer reads the cache of {name}, which is not here")
    return owner


def _attentions(names: Iterable[str]) -> int:
    """Return how many attentions each layer has, by the second numbers in *names*."""
    return max((numbers[1] + 1 for numbers in map(_numbers, names) if len(numbers) == _MAX_NUMBERS), default=1)


def _numbers(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"(?<=\.)\d+(?=\.)", f".{name}.")]


def _number_cross(layers: list[CapturedLayer]) -> None:
    after = max((item.number for item in layers if item.kind == "self"), default=-1) + 1
    for item in layers:
        if item.kind == "cross" and item.number >= 0:
            item.number += after


def _refuse_doubles(layers: list[CapturedLayer]) -> None:
    """Refuse layers that share a number: their summaries could not be told apart."""
    counts = Counter(item.number for item in layers if item.active)
    for item in layers:
        if item.active and counts[item.number] > 1:
            item.refused = f"layer_name: {counts[item.number]} layers have the number {item.number}"
