"""The packaged model becomes a folder that every loader understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.demo import model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.model
def test_real_conversion_can_be_loaded(tmp_path: Path):
    """The packaged file becomes a folder in float32 with a tokenizer and a chat template."""
    from safetensors import safe_open
    from transformers import AutoConfig, AutoTokenizer

    folder = model.prepare_model(tmp_path)
    config = AutoConfig.from_pretrained(folder)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert not hasattr(config, "quantization_config")
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {str(weights.get_tensor(name).dtype) for name in weights.keys()} == {"torch.float32"}  # noqa: SIM118
    chat = AutoTokenizer.from_pretrained(folder).apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "<|im_start|>user\nhi" in chat
    assert model.prepare_model(tmp_path, gguf=tmp_path / "missing") == folder
