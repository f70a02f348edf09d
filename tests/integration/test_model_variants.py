"""Altered copies of a model: only what is meant to change does, the original keeps its bytes, and a copy is the same twice."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from headwatch.bench.triage.variants import ALTERED_BY, FINE_TUNED_SHARE, VARIANTS, WEIGHTS, middle_layer, write_variant
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, HIDDEN, HEADS, INNER = 4, 64, 4, 96
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "model"
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (32, HIDDEN), "self_attn.v_proj": (32, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER),
    }  # fmt: skip
    tensors = {f"model.layers.{layer}.{name}.weight": torch.randn(shape, generator=generator)
               for layer in range(LAYERS) for name, shape in shapes.items()}  # fmt: skip
    tensors["model.embed_tokens.weight"] = torch.randn(10, HIDDEN, generator=generator)
    tensors["model.norm.weight"] = torch.ones(HIDDEN)
    save_file(tensors, folder / WEIGHTS)
    (folder / "config.json").write_text(
        json.dumps({"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": HIDDEN})
    )
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "headwatch-checksums.json").write_text("{}")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def changed(model: Path, variant: Path) -> dict[str, object]:
    """Return the tensors that differ, as their differences."""
    from safetensors.torch import load_file

    before, after = load_file(model / WEIGHTS), load_file(variant / WEIGHTS)
    assert before.keys() == after.keys()
    return {name: after[name] - before[name] for name in before if not after[name].equal(before[name])}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_the_same_twice_and_leaves_the_original_alone(name: str, model: Path, tmp_path: Path) -> None:
    before = digests(model)
    first, second = (digests(write_variant(name, model, tmp_path / place)) for place in ("first", "second"))
    assert first == second
    assert digests(model) == before
    assert first.keys() == before.keys() - {"headwatch-checksums.json"}
    differs = {path for path in first if first[path] != before[path]}
    assert differs == ({"chat_template.jinja"} if "template" in name or "prompt" in name else {WEIGHTS})


def test_each_variant_of_the_weights_changes_what_it_says(model: Path, tmp_path: Path) -> None:
    found = {name: changed(model, write_variant(name, model, tmp_path / name)) for name in VARIANTS}
    middle = f"model.layers.{middle_layer(LAYERS)}."
    ((name, difference),) = found["altered_weight"].items()
    assert name == f"{middle}mlp.down_proj.weight"
    assert (difference.nonzero().shape[0], difference.max().item()) == (1, pytest.approx(ALTERED_BY))
    ((name, difference),) = found["dead_head"].items()
    assert name == f"{middle}self_attn.q_proj.weight"
    assert sorted(set(difference.nonzero()[:, 0].tolist())) == list(range(32, 48)), "the rows of one head"
    assert all(name.startswith(middle) for name in found["fine_tuned_layer"])
    assert len(found["fine_tuned_layer"]) == 6
    assert {name.split(".")[-2] for name in found["adapter"]} == {"q_proj", "v_proj"}
    assert len(found["adapter"]) == 2 * LAYERS
    assert "model.embed_tokens.weight" in found["bf16"]
    assert all("proj" in name for name in (*found["int8"], *found["int4"]))
    sizes = {name: max(value.abs().mean().item() for value in found[name].values()) for name in ("bf16", "int8", "int4")}
    assert sizes["bf16"] < sizes["int8"] < sizes["int4"] / 5
    assert found["template_newline"] == found["system_prompt"] == {}


def test_a_fine_tuned_layer_is_changed_by_its_share_and_in_few_directions(model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    before = load_file(model / WEIGHTS)
    for name, difference in changed(model, write_variant("fine_tuned_layer", model, tmp_path / "v")).items():
        assert difference.norm() / before[name].norm() == pytest.approx(FINE_TUNED_SHARE, rel=1e-3)
        assert torch.linalg.matrix_rank(difference, atol=1e-4) == 4


def test_the_templates_differ_by_a_line_break_behind_each_role_or_by_the_system_prompt(model: Path, tmp_path: Path) -> None:
    newline = (write_variant("template_newline", model, tmp_path / "newline") / "chat_template.jinja").read_text()
    assert newline.count("\n") == TEMPLATE.count("\n") + 2
    assert "message['role'] + '\n\n'" in newline
    assert "assistant\n\n" in newline
    prompt = (write_variant("system_prompt", model, tmp_path / "prompt") / "chat_template.jinja").read_text()
    assert "helpful AI" not in prompt
    assert prompt.count("\n") == TEMPLATE.count("\n")


def test_a_template_inside_the_tokenizers_configuration_is_changed_there(model: Path, tmp_path: Path) -> None:
    (model / "chat_template.jinja").unlink()
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "other": 1}))
    written = json.loads((write_variant("template_newline", model, tmp_path / "v") / "tokenizer_config.json").read_text())
    assert (written["other"], written["chat_template"] != TEMPLATE) == (1, True)


def test_what_cannot_be_written_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there are int8"):
        write_variant("int2", model, tmp_path / "v")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(CommandError, match="no place"):
        write_variant("template_newline", model, tmp_path / "w")
    (model / WEIGHTS).unlink()
    with pytest.raises(CommandError, match=WEIGHTS):
        write_variant("int8", model, tmp_path / "x")
