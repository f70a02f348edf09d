"""Altered copies of a model: what goes wrong in a release, made on purpose and always in the same way.

A variant is a folder that vLLM loads as it loads the original.  Only what changes is written anew; the other files are
linked, so that a variant costs the disk of its weights (540 MB for the packaged model) or nothing.  Every random choice
comes from a fixed seed: two machines make the same bytes.  Peak memory: the weights once more.

Quantised weights are *fake-quantised*: rounded to the values that the integer kernel would hold, and stored in the dtype of
the original.  That leaves the arithmetic of the activations alone and shows what the rounding of weights does, on a CPU that
has no integer kernels.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

WEIGHTS = "model.safetensors"
CHECKSUMS = "headwatch-checksums.json"
VARIANTS: dict[str, str] = {
    "int8": "every projection rounded to 8-bit integers, one scale for each output channel",
    "int4": "every projection rounded to 4-bit integers, one scale for each 32 inputs of a channel",
    "bf16": "every weight rounded to bfloat16",
    "altered_weight": "8 added to one weight of one MLP matrix in the middle of the model",
    "dead_head": "the query projection of one head in the middle of the model set to zero: it looks everywhere alike",
    "fine_tuned_layer": "a random change of rank 4 to every projection of one layer, 5 % of their norm",
    "adapter": "a random change of rank 8 to the query and value projections of every layer, 5 % of their norm: merged LoRA",
    "template_newline": "a chat template that puts one more line break behind every role",
    "system_prompt": "a chat template with another default system prompt",
}
"""Name to what it is."""

ALTERED_BY = 8.0
FINE_TUNED_SHARE = 0.05
"""Norm of a random low-rank change, as a share of the norm of the matrix."""
_SEED = 20_260_101
_PROJECTION = re.compile(r"\.([a-z_]+_proj)\.weight$")
_INT4_GROUP = 32
_OTHER_SYSTEM_PROMPT = "You are a careful clerk. Answer in one short sentence."


def write_variant(name: str, model: Path, target: Path) -> Path:
    """Write the variant *name* of the model in the folder *model* to the folder *target*, and return it.

    Raises:
        CommandError: There is no such variant, or the model is not one whose weights are in one file of safetensors.
    """
    if name not in VARIANTS:
        raise CommandError(f"no variant {name!r}; there are {', '.join(VARIANTS)}")
    if not (model / WEIGHTS).is_file():
        raise CommandError(f"{model}: there is no {WEIGHTS} in it")
    target.mkdir(parents=True, exist_ok=True)
    for path in model.iterdir():
        if path.is_file() and path.name != CHECKSUMS:  # a variant is not what the demo's model is checked against
            _link(path, target / path.name)
    if name in _TEMPLATES:
        _rewrite_template(target, _TEMPLATES[name])
    else:
        _rewrite_weights(target, _WEIGHT_CHANGES[name])
    return target


def middle_layer(layers: int) -> int:
    """Return the layer that variants of one layer change, of a model of so many."""
    return layers // 2


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _rewrite_weights(folder: Path, change: Callable[[dict[str, Tensor], dict[str, int]], None]) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - torch takes seconds to load

    config = json.loads((folder / "config.json").read_text())
    shape = {key: int(config[key]) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size")}
    shape["head_dim"] = int(config.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"])
    tensors = load_file(folder / WEIGHTS)
    change(tensors, shape)
    (folder / WEIGHTS).unlink()  # a link to the original, which must keep its bytes
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _projections(tensors: dict[str, Tensor], layer: int | None = None, only: tuple[str, ...] = ()) -> list[str]:
    place = "." if layer is None else f".layers.{layer}."
    return sorted(
        name for name in tensors
        if (found := _PROJECTION.search(name)) and place in name and (not only or found.group(1) in only)
    )  # fmt: skip


def _int8(tensors: dict[str, Tensor], _: dict[str, int]) -> None:
    for name in _projections(tensors):
        weight = tensors[name].float()  # [out, in]
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        tensors[name] = ((weight / scale).round() * scale).to(tensors[name].dtype)


def _int4(tensors: dict[str, Tensor], _: dict[str, int]) -> None:
    for name in _projections(tensors):
        weight = tensors[name].float()
        group = _INT4_GROUP if weight.shape[1] % _INT4_GROUP == 0 else weight.shape[1]
        parts = weight.reshape(weight.shape[0], -1, group)  # [out, groups, group]
        scale = parts.abs().amax(dim=2, keepdim=True).clamp_min(1e-12) / 7
        tensors[name] = ((parts / scale).round() * scale).reshape(weight.shape).to(tensors[name].dtype)


def _bf16(tensors: dict[str, Tensor], _: dict[str, int]) -> None:
    import torch  # noqa: PLC0415

    for name, weight in tensors.items():
        tensors[name] = weight.to(torch.bfloat16).to(weight.dtype)


def _altered_weight(tensors: dict[str, Tensor], shape: dict[str, int]) -> None:
    (name,) = _projections(tensors, middle_layer(shape["num_hidden_layers"]), ("down_proj",))
    weight = tensors[name] = tensors[name].clone()
    weight[weight.shape[0] // 3, weight.shape[1] // 3] += ALTERED_BY


def _dead_head(tensors: dict[str, Tensor], shape: dict[str, int]) -> None:
    (name,) = _projections(tensors, middle_layer(shape["num_hidden_layers"]), ("q_proj",))
    weight = tensors[name] = tensors[name].clone()
    head = shape["num_attention_heads"] // 2
    weight[head * shape["head_dim"] : (head + 1) * shape["head_dim"]] = 0.0


def _fine_tuned_layer(tensors: dict[str, Tensor], shape: dict[str, int]) -> None:
    _add_low_rank(tensors, _projections(tensors, middle_layer(shape["num_hidden_layers"])), 4)


def _adapter(tensors: dict[str, Tensor], _: dict[str, int]) -> None:
    _add_low_rank(tensors, _projections(tensors, only=("q_proj", "v_proj")), 8)


def _add_low_rank(tensors: dict[str, Tensor], names: list[str], rank: int) -> None:
    import torch  # noqa: PLC0415

    generator = torch.Generator().manual_seed(_SEED)
    for name in names:
        weight = tensors[name].float()
        change = (torch.randn(weight.shape[0], rank, generator=generator)
                  @ torch.randn(rank, weight.shape[1], generator=generator))
        change *= FINE_TUNED_SHARE * weight.norm() / change.norm()
        tensors[name] = (weight + change).to(tensors[name].dtype)


_WEIGHT_CHANGES: dict[str, Callable[[dict[str, Tensor], dict[str, int]], None]] = {
    "int8": _int8, "int4": _int4, "bf16": _bf16, "altered_weight": _altered_weight, "dead_head": _dead_head,
    "fine_tuned_layer": _fine_tuned_layer, "adapter": _adapter,
}  # fmt: skip


def _rewrite_template(folder: Path, change: Callable[[str], str]) -> None:
    """Change the chat template where the folder keeps it: in a file of its own, or in the tokenizer's configuration."""
    own, configuration = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if own.is_file():
        text = own.read_text(encoding="utf-8")
        own.unlink()
        own.write_text(_changed(text, change), encoding="utf-8")
        return
    settings = json.loads(configuration.read_text(encoding="utf-8"))
    settings["chat_template"] = _changed(settings["chat_template"], change)
    configuration.unlink()
    configuration.write_text(json.dumps(settings, ensure_ascii=False, indent=2), encoding="utf-8")


def _changed(text: str, change: Callable[[str], str]) -> str:
    result = change(text)
    if result == text:
        raise CommandError("the chat template has no place for this change")
    return result


def _one_more_newline(template: str) -> str:
    r"""Return *template* with a second ``\n`` behind each role, as a Jinja string literal spells it or as it stands."""
    return re.sub(r"(\['role'\]\s*\+\s*'|<\|im_start\|>assistant)(\\n|\n)", r"\g<1>\g<2>\g<2>", template)


def _other_system_prompt(template: str) -> str:
    """Return *template* with other words where it names a default system prompt."""
    return re.sub(r"(<\|im_start\|>system(?:\\n|\n))[^<]*", rf"\g<1>{_OTHER_SYSTEM_PROMPT}", template)


_TEMPLATES: dict[str, Callable[[str], str]] = {"template_newline": _one_more_newline, "system_prompt": _other_system_prompt}
