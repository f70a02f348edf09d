"""Which of the engine's layers attend within a request, how, and which are left out on purpose.

A layer that attends and is not understood is refused: that is a gap, and shown as one.  A layer that does not attend to the
request's positions at all is *left out*: state-space and linear layers have no attention weights, and encoders (of images,
of sounds) attend within their own input before the request's positions exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headwatch.model import AttentionKind

_KNOWN = frozenset(("Attention", "ChunkedLocalAttention", "CrossAttention", "MLAAttention"))
"""vLLM's layers whose mask an :class:`AttentionRule` can say (0.32 ``model_executor/layers/attention``).  Its other ones see
a prefix in both directions, static sinks or a reference window beside the positions of the request."""
_ENCODERS = frozenset(("encoder", "encoder_only"))
_TYPES: dict[str, AttentionKind] = {"decoder": "self", "encoder_decoder": "cross"}


def attends(layer: Any) -> bool:
    """Return whether an engine *layer* has attention of any kind."""
    return hasattr(getattr(layer, "impl", None), "num_heads")


def kind_of(layer: Any) -> AttentionKind:
    """Return whether *layer* attends to the request's own positions or to an encoder's.

    Raises:
        CaptureRefused: With reason ``attention_type`` or ``mask``.
    """
    names = [kind.__name__ for kind in type(layer).__mro__]
    if not _KNOWN.isdisjoint(names) and names[0] not in _KNOWN:
        raise CaptureRefused("attention_type", f"layers of class {names[0]} are not supported")
    kind = _TYPES.get(_attention_type(layer))
    if kind is None:
        raise CaptureRefused("attention_type", f"attention type {_attention_type(layer)!r} is not supported")
    if getattr(layer, "use_mm_prefix", False):
        raise CaptureRefused("mask", "positions of an image see each other ahead of the causal order")
    if getattr(layer, "use_alibi_sqrt", False):
        raise CaptureRefused("mask", "ALiBi with the square root of the distance is not supported")
    return kind


def left_out(context: Mapping[str, Any], modules: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Return the layers that are left out on purpose, by name, with the reason.

    *context* is the engine's ``static_forward_context``; *modules* are all modules of the model, of which encoders that keep
    no cache (vLLM 0.32 ``MMEncoderAttention``) appear nowhere else.
    """
    found = {name: f"no attention: {_mixer(layer)}" for name, layer in context.items() if _mixer(layer)}
    found |= {name: _ENCODER_REASON for name, layer in context.items() if is_encoder(layer)}
    found |= {name: _ENCODER_REASON for name, module in modules if _has_ancestor(module, "MMEncoderAttention")}
    return found


_ENCODER_REASON = "encoder: attends within its own input, before the request has positions"


def is_encoder(layer: Any) -> bool:
    """Return whether an engine *layer* attends within an encoder's input."""
    return attends(layer) and _attention_type(layer) in _ENCODERS


def _has_ancestor(module: Any, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(module).__mro__)


def _mixer(layer: Any) -> str:
    """Return the name of a layer's state-space or linear mixer (vLLM 0.32 ``MambaBase.mamba_type``); empty for others."""
    kind = getattr(layer, "mamba_type", None)
    return "" if kind is None else str(getattr(kind, "name", kind)).lower()


def _attention_type(layer: Any) -> str:
    kind = getattr(layer, "attn_type", None) or getattr(layer.impl, "attn_type", "decoder")
    return str(getattr(kind, "value", kind))
