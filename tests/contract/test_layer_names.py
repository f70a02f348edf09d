"""Layers are numbered as the installed vLLM numbers them, and the classes and attributes that tell them apart are there."""

from __future__ import annotations

import inspect

import pytest

from headwatch.capture.layers.discovery import layer_number
from headwatch.capture.layers.kinds import _KNOWN

pytestmark = pytest.mark.engine

NAMES = (
    ("model.layers.3.self_attn.attn", 1),
    ("transformer.h.11.self_attention.attn", 1),
    ("language_model.model.layers.0.self_attn.attn", 1),
    ("model.layers.3.self_attn.0.attn", 2),  # LongCat
    ("model.layers.3.self_attn.1.attn", 2),
)


@pytest.mark.parametrize(("name", "attentions"), NAMES)
def test_numbers_are_vllms_own(name, attentions):
    from vllm.model_executor.models.utils import extract_layer_index

    assert layer_number(name, attentions) == extract_layer_index(name, attentions)


def test_the_layers_that_are_told_apart_are_those_that_vllm_has():
    from vllm.model_executor.layers import attention

    assert all(inspect.isclass(getattr(attention, name, None)) or name == "CrossAttention" for name in _KNOWN)
    from vllm.model_executor.layers.attention.cross_attention import CrossAttention

    assert issubclass(CrossAttention, attention.Attention)


def test_latent_attention_goes_through_the_method_that_is_wrapped():
    """``forward_impl`` takes the query first, the output by name; ``W_UK_T`` and ``W_UV`` are made when weights are loaded."""
    from vllm.model_executor.layers.attention.mla_attention import MLAAttention, unified_mla_attention_with_output

    parameters = list(inspect.signature(MLAAttention.forward_impl).parameters)
    assert parameters[:7] == ["self", "q", "k_c_normed", "k_pe", "kv_cache", "attn_metadata", "output"]
    assert "layer.forward_impl(" in inspect.getsource(unified_mla_attention_with_output)
    weights = inspect.getsource(MLAAttention.process_weights_after_loading)
    assert '"W_UV", W_UV.transpose(0, 1)' in weights
    assert '"W_UK_T", W_UK.permute(1, 2, 0)' in weights


def test_cross_attention_is_derived_from_the_backends_implementation():
    """Its name is that of no backend, and the one below it is: that is how the backend is found."""
    from vllm.model_executor.layers.attention.cross_attention import create_cross_attention_backend
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    family = create_cross_attention_backend(CPUAttentionBackend).get_impl_cls().__mro__
    assert [kind.__name__ for kind in family[:2]] == ["CrossAttentionImpl", "CPUAttentionBackendImpl"]


def test_layers_without_attention_say_what_they_are():
    from vllm.model_executor.layers.mamba.abstract import MambaBase

    assert isinstance(inspect.getattr_static(MambaBase, "mamba_type"), property)
