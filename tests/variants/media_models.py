"""Tiny random models that see and that listen: an Idefics3 and a Whisper, with everything that a real one has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..integration.tiny_models import CONTEXT_TOKENS, VOCABULARY, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

PICTURE_PIXELS, PATCH_PIXELS = 56, 7
_SHUFFLE = 2
"""So many patches in each direction become one token."""
_SEEN = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"]
SOUND_SECONDS = 2
SOUND_POSITIONS = 50 * SOUND_SECONDS
"""Whisper's encoder has 50 positions a second."""
_SPOKEN = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]


def build_idefics3(folder: Path, *, seed: int = 7) -> Path:
    """Write a tiny Idefics3 to *folder*: an eye of 64 patches that become 16 tokens, and a Llama; return *folder*.

    Of the models that see, one whose code in vLLM and in transformers does without torchvision.
    """
    import torch
    from transformers import AutoTokenizer, Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *_SEEN]})
    text = {
        "model_type": "llama", "vocab_size": VOCABULARY + 16, "hidden_size": 128, "intermediate_size": 192,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "max_position_embeddings": CONTEXT_TOKENS, "initializer_range": 0.12, "bos_token_id": 0, "eos_token_id": 2,
        "pad_token_id": 0, "tie_word_embeddings": False,
    }  # fmt: skip
    config = Idefics3Config(
        vision_config=Idefics3VisionConfig(
            hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, image_size=PICTURE_PIXELS,
            patch_size=PATCH_PIXELS,
        ),
        text_config=text,
        scale_factor=_SHUFFLE,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="float32",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Idefics3ForConditionalGeneration(config).float().eval()
    model.save_pretrained(folder)
    pixels = {"longest_edge": PICTURE_PIXELS}
    Idefics3Processor(
        Idefics3ImageProcessorPil(size=pixels, max_image_size=pixels, do_image_splitting=False),
        tokenizer,
        image_seq_len=(PICTURE_PIXELS // PATCH_PIXELS // _SHUFFLE) ** 2,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)
    return folder


def build_whisper(folder: Path, *, seed: int = 7) -> Path:
    """Write a tiny Whisper to *folder*: two layers of encoder and of decoder, sounds of up to two seconds; return it."""
    import torch
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    save_tokenizer(folder)
    words = json.loads((folder / "tokenizer.json").read_text())["model"]
    end = "<|endoftext|>"
    tokenizer = WhisperTokenizer(
        vocab=words["vocab"], merges=[tuple(pair) for pair in words["merges"]], unk_token=end, bos_token=end, eos_token=end,
        additional_special_tokens=_SPOKEN,
    )  # fmt: skip
    config = WhisperConfig(
        vocab_size=VOCABULARY + 8, d_model=128, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=192, decoder_ffn_dim=192, num_mel_bins=80,
        max_source_positions=SOUND_POSITIONS, max_target_positions=448, init_std=0.12, bos_token_id=0, eos_token_id=0,
        pad_token_id=0, decoder_start_token_id=tokenizer.convert_tokens_to_ids(_SPOKEN[0]), dtype="float32",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WhisperForConditionalGeneration(config).float().eval()
    model.save_pretrained(folder)
    WhisperProcessor(
        WhisperFeatureExtractor(feature_size=80, chunk_length=SOUND_SECONDS), tokenizer
    ).save_pretrained(folder)
    return folder


BUILDERS = {"image": build_idefics3, "speech": build_whisper}
