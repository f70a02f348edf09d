"""The attention layers of the engine, each with its reader, its rule and the trust it has earned.

A layer is either captured or refused with a reason; what is no attention at all (Mamba, linear attention) is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwatch.capture.attention import AttentionRule
from headwatch.capture.cache import CacheReader, reader_for
from headwatch.capture.selfcheck import LayerTrust
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.capture.kernels.base import RowKernel


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

    @property
    def active(self) -> bool:
        """Return whether rows of this layer are summarised."""
        return not self.refused and self.reader is not None


def layer_number(name: str) -> int:
    """Return the global layer number in a name such as ``model.layers.3.self_attn.attn``.

    Raises:
        CaptureRefused: With reason ``layer_name`` where the name has no number, or more than one.
    """
    numbers = re.findall(r"(?<=\.)\d+(?=\.)", f".{name}.")
    if len(numbers) != 1:
        raise CaptureRefused("layer_name", f"layer name {name!r} has {len(numbers)} numbers; one was expected")
    return int(numbers[0])


def rule_for(impl: Any) -> AttentionRule:
    """Return what an engine attention implementation does to its logits.

    Source: vLLM 0.32 ``CPUAttentionBackendImpl.__init__`` (``sliding_window`` is -1 and ``logits_soft_cap`` 0 for none).
    """
    window = impl.sliding_window
    return AttentionRule(
        scale=float(impl.scale),
        softcap=float(impl.logits_soft_cap or 0.0),
        window=int(window) if isinstance(window, int) and window > 0 else 0,
        alibi_slopes=impl.alibi_slopes,
        sinks=impl.sinks,
    )


def discover(context: Mapping[str, Any], wanted: tuple[int, ...]) -> list[CapturedLayer]:
    """Return the attention layers among the engine's ``static_forward_context``, refused ones included.

    *wanted* are global layer numbers; empty: all.
    """
    layers = []
    for name, layer in context.items():
        impl = getattr(layer, "impl", None)
        if impl is None or not hasattr(impl, "forward") or not hasattr(impl, "num_heads"):
            continue
        found = CapturedLayer(name, -1, layer, None, AttentionRule(1.0), int(impl.num_heads))
        try:
            found.number = layer_number(name)
            if wanted and found.number not in wanted:
                continue
            found.reader = reader_for(layer)
            found.rule = rule_for(impl)
        except CaptureRefused as refusal:
            found.refused = f"{refusal.reason}: {refusal}"
        except (AttributeError, TypeError, ValueError) as error:
            found.refused = f"layer: cannot be understood: {error}"
        layers.append(found)
    layers.sort(key=lambda item: item.number)
    return layers
