"""Attention as ``transformers`` computes it, eagerly, from the same weights.

Weights are loaded in the dtype under test and computed with in float32, so that for bfloat16 the distance to it is what
the engine's own arithmetic costs, not the sum of two roundings.  Always on the CPU: 10 requests of 400 tokens on a
135M model take about 20 s on two cores, and hold one request's weights at a time (layers x heads x n² x 4 bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LayerRule:
    """What a layer does to q·k, taken from the model's definition in ``transformers``, never from the engine."""

    scale: float
    window: int = 0
    """Positions that a query sees, its own included; 0: all before it."""
    softcap: float = 0.0


def layer_rules(model: Path) -> tuple[LayerRule, ...]:
    """Return the rule of each layer of the model in folder *model*, without loading its weights.

    Raises:
        CommandError: The folder holds no causal language model with softmax attention that transformers knows.
    """
    import torch  # noqa: PLC0415 - heavy, and needed by this command alone
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"{model}: transformers cannot read the model: {str(error).splitlines()[0]}") from error
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or []
    window = int(getattr(text, "sliding_window", None) or 0)
    softcap = float(getattr(text, "attn_logit_softcapping", None) or 0.0)
    rules = {
        int(module.layer_idx): LayerRule(
            scale=float(module.scaling),
            window=window if _slides(kinds, int(module.layer_idx), window) else 0,
            softcap=softcap,
        )
        for module in skeleton.modules()
        if hasattr(module, "scaling") and hasattr(module, "layer_idx")
    }
    if sorted(rules) != list(range(int(text.num_hidden_layers))):
        raise CommandError(f"{model}: verify cannot check {type(skeleton).__name__}: not every layer has softmax attention")
    return tuple(rules[number] for number in sorted(rules))


class EagerModel:
    """A causal language model with its weights."""

    def __init__(self, model: Path, dtype: str) -> None:
        import torch  # noqa: PLC0415
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        self._torch = torch
        self._model: Any = (
            AutoModelForCausalLM.from_pretrained(
                model, dtype=getattr(torch, dtype), attn_implementation="eager", local_files_only=True
            )
            .float()
            .eval()
        )

    def attention(self, token_ids: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return for each layer the weights [H, n, n] of every query (second axis) on every position (third)."""
        with self._torch.inference_mode():
            ids = self._torch.tensor([list(token_ids)])
            outputs = self._model(input_ids=ids, output_attentions=True, use_cache=False, logits_to_keep=1)
        return [layer[0].numpy() for layer in outputs.attentions]


def _slides(kinds: Sequence[str], layer: int, window: int) -> bool:
    """Return whether *layer* has a sliding window; a model that names no kinds slides everywhere or nowhere."""
    return window > 0 and (not kinds or kinds[layer] == "sliding_attention")
