"""The packaged model becomes a folder that every loader understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.capture.request.field import Field, FieldDocument
from headwatch.capture.request.spans import resolve
from headwatch.capture.request.template import derive
from headwatch.config import CaptureConfig
from headwatch.demo import model

from ..unit.chat_tokenizer import prompt_ids

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def folder(cache: Path) -> Path:
    """The packaged file, converted once."""
    return model.prepare_model(cache)


def test_real_conversion_can_be_loaded(cache: Path, folder: Path):
    """The packaged file becomes a folder in float32 with a tokenizer and a chat template."""
    from safetensors import safe_open
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert not hasattr(config, "quantization_config")
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {str(weights.get_tensor(name).dtype) for name in weights.keys()} == {"torch.float32"}  # noqa: SIM118
    chat = AutoTokenizer.from_pretrained(folder).apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "<|im_start|>user\nhi" in chat
    assert model.prepare_model(cache, gguf=cache / "missing") == folder


def test_a_real_models_prompt_is_resolved_to_the_word(folder: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    documents = ["The ferry to Ålesund leaves at 07:40 on weekdays.", "Tickets cost 12 euros; children travel free. 😀"]
    question = "Context:\n\n" + "\n\n".join(f"[{n}] {text}" for n, text in enumerate(documents, 1)) + "\n\nWhen does it leave?"
    ids = prompt_ids(tokenizer, ("user", "Hello"), ("assistant", "Hi!"), ("user", question))
    field = Field(documents=[FieldDocument(str(n), text) for n, text in enumerate(documents)])
    resolution = resolve(ids, tokenizer, field, roles=derive(tokenizer), config=CaptureConfig())
    edges = [0, *(span.end for span in resolution.spans)]
    assert [span.start for span in resolution.spans] == edges[:-1]
    assert edges[-1] == len(ids)
    said = [span for span in resolution.spans if span.kind != "template"]
    assert [(span.kind, tokenizer.decode(ids[span.start : span.end]).strip()) for span in said] == [
        ("system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
        ("history", "Hello"),
        ("history", "Hi!"),
        ("user", "Context:\n\n[1]"),
        ("document", documents[0]),
        ("user", "[2]"),
        ("document", documents[1]),
        ("user", "When does it leave?"),
    ]
    assert resolution.errors == []
