"""Attention as ``transformers`` computes it, eagerly, from the same weights.

Weights are loaded in the dtype under test and computed with in float32, so that for bfloat16 the distance to it is what
the engine's own arithmetic costs, not the sum of two roundings.  Always on the CPU: 10 requests of 400 tokens on a
135M model take about 20 s on two cores, and hold one request's weights at a time (layers x heads x n² x 4 bytes).

Weights are taken where each layer's attention returns them: what a model gathers of them for its caller differs from model
to model, above all where some layers have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.verify.media import SAMPLE_RATE, picture, sound
from headwatch.verify.rules import attention_modules, model_class

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from headwatch.verify.cases import Case

    Weights = dict[int, NDArray[np.float32]]
    """Layer number to the weights [H, n, n] of every query (second axis) on every position (third)."""


class EagerModel:
    """A language model with its weights, and what it sees with or hears with, if anything."""

    def __init__(self, model: Path, dtype: str) -> None:
        import torch  # noqa: PLC0415 - heavy, and needed by this command alone
        from transformers import AutoConfig, AutoProcessor  # noqa: PLC0415

        self._torch = torch
        self._processor: Any = None
        config = AutoConfig.from_pretrained(model, local_files_only=True)
        self._model: Any = (
            model_class(config)
            .from_pretrained(model, dtype=getattr(torch, dtype), attn_implementation="eager", local_files_only=True)
            .float()
            .eval()
        )
        if config.is_encoder_decoder or hasattr(config, "vision_config"):
            self._processor = AutoProcessor.from_pretrained(model, local_files_only=True)
        self._seen: Weights = {}
        for number, item in attention_modules(self._model).items():
            item.module.register_forward_hook(self._keeper(number))

    def attention(self, token_ids: Sequence[int], case: Case | None = None) -> Weights:
        """Return the attention weights of each layer over *token_ids*, with the pictures and sounds of *case*."""
        self._seen = {}
        ids = self._torch.tensor([list(token_ids)])
        with self._torch.inference_mode():
            self._model(**self._inputs(ids, case), output_attentions=True, use_cache=False)
        return self._seen

    def _inputs(self, ids: Any, case: Case | None) -> dict[str, Any]:
        if case is not None and case.sound is not None:
            extract = self._processor.feature_extractor
            heard = extract(sound(*case.sound), sampling_rate=SAMPLE_RATE, return_tensors="pt")
            return {"decoder_input_ids": ids, "input_features": heard["input_features"]}
        if case is not None and case.pictures:
            seen = self._processor.image_processor([picture(number) for number in case.pictures], return_tensors="pt")
            return {"input_ids": ids, "logits_to_keep": 1, **seen}
        return {"input_ids": ids, "logits_to_keep": 1}

    def _keeper(self, number: int) -> Callable[[Any, Any, Any], None]:
        def keep(_module: Any, _arguments: Any, output: Any) -> None:
            self._seen[number] = output[1][0].numpy()  # (what the layer adds, weights [1, H, n, n])

        return keep
