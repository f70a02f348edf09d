"""Tiny random decoder models, one for each way in which an engine attends.

Each is a configuration of a real architecture with 2 to 6 small layers, so that transformers and vLLM run the code that
they run for the real thing.  Weights are drawn so that attention is far from uniform: with the usual small initial
weights a wrong window, cap or slope could not be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..integration.tiny_models import CONTEXT_TOKENS, VOCABULARY, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = 48
"""Positions that a sliding layer sees: the prompts have 60 to 600."""
CHUNK = 128
"""Positions in one chunk of a chunked layer: a whole number of the engine's cache blocks, as vLLM asks."""

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT_TOKENS,
    "initializer_range": 0.12,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True, slots=True)
class Family:
    """A configuration class of transformers, and what of it differs from the common tiny model."""

    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Common settings that this configuration class does not know."""


_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.707,
         "mscale_all_dim": 0.707, "original_max_position_embeddings": 2048}
"""What real latent models have.  Without it vLLM 0.32's rotation on the CPU takes heads to lie side by side, and theirs do
not: it then rotates other numbers than transformers does."""
_INTERLEAVED = ["sliding_attention", "full_attention"] * 2

FAMILIES = {
    "mha": Family("LlamaConfig", {"num_key_value_heads": 4}),
    "gqa": Family("LlamaConfig"),
    "mqa": Family("LlamaConfig", {"num_key_value_heads": 1}),
    "vec16": Family("LlamaConfig", {"head_dim": 80}),
    "sliding": Family("MistralConfig", {"sliding_window": WINDOW}),
    "softcap": Family("Gemma2Config", {
        "num_hidden_layers": 4, "layer_types": _INTERLEAVED, "sliding_window": WINDOW, "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 5.0, "final_logit_softcapping": 30.0, "tie_word_embeddings": True,
    }),
    "interleaved": Family("Gemma3TextConfig", {
        "num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "sliding_window": WINDOW, "query_pre_attn_scalar": 24, "tie_word_embeddings": True,
    }),
    "alibi": Family(
        "BloomConfig",
        {"n_layer": 2, "n_head": 6, "hidden_size": 192, "seq_length": CONTEXT_TOKENS, "tie_word_embeddings": True},
        ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size"),
    ),
    "sinks": Family("GptOssConfig", {
        "num_hidden_layers": 4, "layer_types": _INTERLEAVED, "sliding_window": WINDOW, "num_local_experts": 4,
        "num_experts_per_tok": 2, "attention_bias": True,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 2.0, "beta_fast": 32.0,
                            "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 2048},
    }),
    "moe": Family("OlmoeConfig", {"num_experts": 8, "num_experts_per_tok": 2}, ("head_dim",)),
    "chunked": Family("Llama4TextConfig", {
        "num_hidden_layers": 4, "attention_chunk_size": CHUNK, "no_rope_layers": [1, 1, 1, 0],
        "layer_types": ["chunked_attention"] * 3 + ["full_attention"], "interleave_moe_layer_step": 2,
        "num_local_experts": 2, "intermediate_size_mlp": 192, "moe_layers": [1, 3],
    }),
    "mla": Family("DeepseekV2Config", {
        "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 32, "qk_rope_head_dim": 64, "v_head_dim": 32,
        "num_key_value_heads": 4, "first_k_dense_replace": 2, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
        "rope_parameters": _YARN,
    }, ("head_dim",)),
    "hybrid": Family("GraniteMoeHybridConfig", {
        "num_hidden_layers": 4, "layer_types": ["mamba", "attention", "mamba", "attention"], "num_local_experts": 0,
        "num_experts_per_tok": 0, "shared_intermediate_size": 192, "position_embedding_type": "rope",
        "attention_multiplier": 0.2, "mamba_n_heads": 8, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_n_groups": 1,
        "mamba_chunk_size": 32, "mamba_expand": 2, "mamba_d_conv": 4,
    }),
    "convolution": Family("Lfm2Config", {
        "num_hidden_layers": 4, "layer_types": ["conv", "full_attention", "conv", "full_attention"], "conv_L_cache": 3,
        "block_dim": 128, "conv_dim": 128, "block_auto_adjust_ff_dim": False,
    }, ("head_dim",)),
    "shared": Family("Gemma3nTextConfig", {
        "num_hidden_layers": 6, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 3, "sliding_window": WINDOW, "intermediate_size": [192] * 6, "tie_word_embeddings": True,
        "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 16, "laurel_rank": 8,
        "activation_sparsity_pattern": [0.0] * 6, "altup_num_inputs": 2,
    }),
}


def build(folder: Path, name: str, *, seed: int = 7) -> Path:
    """Write the tiny model of family *name* to *folder*, float32, with tokenizer and chat template; return *folder*."""
    import torch
    import transformers

    family = FAMILIES[name]
    settings = {key: value for key, value in _COMMON.items() if key not in family.without} | family.settings
    config = getattr(transformers, family.config)(**settings, dtype="float32")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        _spread(model)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def _spread(model: Any) -> None:
    """Give learned sinks, which start as nothing in particular, values that show; and make Bloom's MLP small.

    Bloom's GELU is the tanh form in transformers and the exact one in vLLM 0.32: that moves the second layer by 5e-4.
    """
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("sinks"):
                torch.nn.init.normal_(parameter, std=2.0)
            elif name.endswith("dense_4h_to_h.weight"):
                parameter.mul_(0.01)
