"""Tiny random models that see and that listen: a LLaVA and a Whisper, with everything that a real one has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..integration.tiny_models import CONTEXT_TOKENS, VOCABULARY, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

PICTURE_PIXELS, PATCH_PIXELS = 56, 14
SOUND_SECONDS = 2
SOUND_POSITIONS = 50 * SOUND_SECONDS
"""Whisper's encoder has 50 positions a second."""
_SPOKEN = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]


def build_llava(folder: Path, *, seed: int = 7) -> Path:
    """Write a tiny LLaVA to *folder*: a CLIP of 17 patches, and a Llama with grouped-query attention; return *folder*."""
    import torch
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<image>"]})
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, image_size=PICTURE_PIXELS,
            patch_size=PATCH_PIXELS, projection_dim=64,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCABULARY + 8, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=32, max_position_embeddings=CONTEXT_TOKENS, initializer_range=0.12,
            bos_token_id=0, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        dtype="float32",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).float().eval()
    model.save_pretrained(folder)
    pixels = {"height": PICTURE_PIXELS, "width": PICTURE_PIXELS}
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": PICTURE_PIXELS}, crop_size=pixels),
        tokenizer=tokenizer,
        patch_size=PATCH_PIXELS,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
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


BUILDERS = {"image": build_llava, "speech": build_whisper}
