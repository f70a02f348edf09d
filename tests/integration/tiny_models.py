"""Tiny random models with everything that a real one has: config, weights, tokenizer, chat template.

Weights are drawn so that attention is far from uniform (logits of a few units): on a model with the usual small
initial weights every head spreads its attention evenly, and a wrong scale or a shifted position could not be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["mha", "gqa"]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 384
CONTEXT_TOKENS = 4096
HEADS = 4
HEAD_SIZE = 32
LAYERS = {"mha": 2, "gqa": 3}
KV_HEADS = {"mha": 4, "gqa": 2}


def build(folder: Path, kind: Kind, *, seed: int = 7, kv_heads: int | None = None) -> Path:
    """Write a tiny Llama with multi-head (``mha``) or grouped-query (``gqa``) attention to *folder*, and return it.

    2 or 3 layers, 4 query heads of size 32, 4 or 2 key-value heads (or *kv_heads*), float32 safetensors.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HEADS * HEAD_SIZE,
        intermediate_size=192,
        num_hidden_layers=LAYERS[kind],
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads or KV_HEADS[kind],
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.12,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).float().eval()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Write a small byte-level tokenizer with a chat template to *folder*."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT.splitlines(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS[1:2],
        model_max_length=CONTEXT_TOKENS,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


_TEXT = """The harbour of the old town freezes for nine weeks in an ordinary winter.
The ferry to the northern island leaves at a quarter past seven, on Sundays at nine.
You are a careful assistant. Answer from the documents that you are given, and say so when they do not answer.
The museum keeps the oldest map of the coast, drawn with ink on the skin of a calf.
Which of these documents tells when the ferry leaves, and what does the lighthouse have to do with it?
system user assistant tool memory document context question answer"""
