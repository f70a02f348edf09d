"""A tiny Llama that looks where it is told: one token of its vocabulary, the marker, draws nearly all attention.

In layer 0 every query has a constant part (a bias) along a dimension that rotary embedding hardly turns, and only the
marker's key lies there.  So what capture reports of a row tells which prompt the row attended to, and where in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY, MARKER = 384, 5
HEADS, KV_HEADS, HEAD_SIZE, LAYERS = 4, 2, 32, 2
CONTEXT_TOKENS = 1024
_SLOW = HEAD_SIZE // 2 - 1
"""The first dimension of the pair that turns slowest: at theta 1e8, 0.003 degrees in 1,000 positions."""


def build(folder: Path) -> Path:
    """Write the model to *folder*, and return it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HEADS * HEAD_SIZE,
        intermediate_size=192,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.05,
        rope_parameters={"rope_type": "default", "rope_theta": 1e8},
        attention_bias=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = LlamaForCausalLM(config).float().eval()
    attention, embeddings = model.model.layers[0].self_attn, model.model.embed_tokens.weight
    with torch.no_grad():
        embeddings[:, -1] = 0.0
        embeddings[MARKER] = 0.0
        embeddings[MARKER, -1] = 1.0
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight[:, -1] = 0.0
            projection.bias.zero_()
        for head in range(KV_HEADS):
            attention.k_proj.weight[head * HEAD_SIZE + _SLOW] = 0.0
            attention.k_proj.weight[head * HEAD_SIZE + _SLOW, -1] = 2.0
        for head in range(HEADS):
            attention.q_proj.bias[head * HEAD_SIZE + _SLOW] = 6.0  # logit of the marker: 6 * 2 * 11.3 / sqrt(32) = 24
    model.save_pretrained(folder)
    return folder
