"""What each layer of a model does to q·k, taken from the model's definition in ``transformers``, never from the engine.

The definition is built without weights; learned sinks, which are weights, are read from the model's files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Mask = tuple[int, int]
    """Window and chunk; 0: none."""

_STATES = frozenset(("mamba", "mamba2", "conv", "linear_attention", "hybrid"))
"""What transformers calls layers that keep a state."""


@dataclass(frozen=True, slots=True)
class LayerRule:
    """What a layer does to q·k."""

    scale: float
    window: int = 0
    """Positions that a query sees, its own included; 0: all before it."""
    softcap: float = 0.0
    chunk: int = 0
    """A query sees positions of its own chunk of so many; 0: no chunks."""
    alibi: tuple[float, ...] = ()
    """What each head takes off a logit for each position of distance."""
    sinks: tuple[float, ...] = ()
    """Each head's logit of a position that is not there."""
    cross: bool = False
    """The positions are those of an encoder's input, and all are seen."""

    def first_visible(self, position: int) -> int:
        """Return the first position that a query at *position* sees."""
        first = max(0, position + 1 - self.window) if self.window else 0
        return max(first, position // self.chunk * self.chunk) if self.chunk else first


def read_config(model: Path) -> Any:
    """Return the configuration of the model in folder *model*, as transformers reads it.

    Raises:
        CommandError: The folder holds no model that transformers knows.
    """
    from transformers import AutoConfig  # noqa: PLC0415

    try:
        return AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"{model}: transformers cannot read the model: {str(error).splitlines()[0]}") from error


def model_class(config: Any) -> Any:
    """Return the class of transformers that loads a model of *config* with its head."""
    import transformers  # noqa: PLC0415

    if config.is_encoder_decoder:
        return transformers.AutoModelForSpeechSeq2Seq
    return transformers.AutoModelForImageTextToText if hasattr(config, "vision_config") else transformers.AutoModelForCausalLM


def has_states(text: Any) -> bool:
    """Return whether a model with the text configuration *text* has layers that keep a state instead of keys and values."""
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ()
    return any(kind in _STATES for kind in kinds)


def layer_rules(model: Path) -> dict[int, LayerRule]:
    """Return the rule of each attention layer of the model in folder *model*, by its number, without loading its weights.

    Layers without attention (state-space, linear) are not among them.

    Raises:
        CommandError: The folder holds no causal language model with softmax attention that transformers knows.
    """
    import torch  # noqa: PLC0415 - heavy, and needed by this command alone

    config = read_config(model)
    try:
        with torch.device("meta"):
            skeleton = model_class(config).from_config(config, attn_implementation="eager")
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"{model}: transformers cannot read the model: {str(error).splitlines()[0]}") from error
    text = config.get_text_config()
    alibi = _alibi(text)
    sinks = _sinks(model)
    softcap = float(getattr(text, "attn_logit_softcapping", None) or 0.0)
    rules = {}
    for number, module in attention_modules(skeleton).items():
        if module.cross:
            rules[number] = LayerRule(module.scale, cross=True)
            continue
        window, chunk = _mask(text, number)
        rules[number] = LayerRule(module.scale, window, softcap, chunk, alibi, sinks.get(number, ()))
    if not rules:
        raise CommandError(f"{model}: verify cannot check {type(skeleton).__name__}: no layer has softmax attention")
    return dict(sorted(rules.items()))


@dataclass(frozen=True, slots=True)
class AttentionModule:
    """An attention of a model of transformers."""

    module: Any
    scale: float
    cross: bool
    """Over an encoder's input."""


def attention_modules(model: Any) -> dict[int, AttentionModule]:
    """Return the decoder's attention modules of a model of transformers, by layer number.

    Cross-attention is numbered after all self-attention, as capture does.
    """
    found = [
        (int(module.layer_idx), AttentionModule(module, scale, name.endswith("encoder_attn")))
        for name, module in model.named_modules()
        if getattr(module, "layer_idx", None) is not None and "vision" not in name
        if (scale := _scale(module)) is not None
    ]
    after = max((number for number, item in found if not item.cross), default=-1) + 1
    return {number + after * item.cross: item for number, item in found}


def _scale(module: Any) -> float | None:
    """Return the factor of q·k; None where *module* is no attention.  Bloom calls it differently from everybody else."""
    found = getattr(module, "scaling", getattr(module, "inv_norm_factor", None))
    return float(found) if isinstance(found, float | int) else None


def _mask(text: Any, layer: int) -> Mask:
    """Return the window and chunk of *layer*; a model that names no kinds slides everywhere or nowhere."""
    kinds: Sequence[str] = getattr(text, "layer_types", None) or ()
    kind = kinds[layer] if kinds else "sliding_attention"
    window = int(getattr(text, "sliding_window", None) or 0) if kind == "sliding_attention" else 0
    chunk = int(getattr(text, "attention_chunk_size", None) or 0) if kind == "chunked_attention" else 0
    return window, chunk


def _alibi(text: Any) -> tuple[float, ...]:
    """Return the slopes of a model with ALiBi, from transformers' own code; empty for others."""
    if text.model_type != "bloom":
        return ()
    import torch  # noqa: PLC0415
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor  # noqa: PLC0415

    heads = int(text.num_attention_heads)
    bias = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32).reshape(heads, 2)
    return tuple((bias[:, 1] - bias[:, 0]).tolist())


def _sinks(model: Path) -> dict[int, tuple[float, ...]]:
    """Return the learned sinks in the model's files, by layer number."""
    from safetensors import safe_open  # noqa: PLC0415

    index = model / "model.safetensors.index.json"
    names = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    found: dict[int, tuple[float, ...]] = {}
    for path in (model / name for name in names if (model / name).exists()):
        with safe_open(str(path), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                if name.endswith(".sinks"):
                    number = next(int(part) for part in name.split(".") if part.isdigit())
                    found[number] = tuple(tensors.get_tensor(name).float().tolist())
    return found
