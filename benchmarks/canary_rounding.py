"""The smallest change of one weight that canaries find on an engine whose rounding is different in every batch.

vLLM on a CPU repeats itself bit for bit, in bfloat16 and under load too (``python -m benchmarks.canary``): there is no noise
there to find a change in.  Engines on accelerators choose kernels and split sums by the shape of a batch.  This stands in for
one: the packaged model in float32, with the output of every layer rounded to bfloat16 *at random*, up or down in proportion,
anew in every run.  That is as much noise as rounding every layer's output differently each time, more than changing kernels do.
It is a simulation on the real weights and prompts: say so where its figures are shown.

Run ``python -m benchmarks.canary_rounding [--runs N] [--json FILE]``; about six minutes on one idle core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from headwatch.bench.machine import describe
from headwatch.bench.triage.variants import WEIGHTS, middle_layer, write_variant
from headwatch.canary.compare import compare
from headwatch.canary.deviation import deviation
from headwatch.canary.fingerprint import Fingerprint, learn
from headwatch.canary.prompts import BUILT_IN, PromptSet
from headwatch.canary.signature import Run, Signature
from headwatch.capture.kernels.oracle import summarise
from headwatch.capture.layers.attention import AttentionRule, row_spans
from headwatch.demo.model import prepare_model
from headwatch.model import CANARY_ROWS, Span, WorkerIdentity

if TYPE_CHECKING:
    from torch import Tensor

ADDED = (128.0, 32.0, 16.0, 8.0)
VARIANTS = ("dead_head", "fine_tuned_layer", "int8")
TRIES = 2
LEFT_OUT = "long"
"""This prompt is half of all tokens: without it the simulation takes half the time."""
PROMPTS = PromptSet(BUILT_IN.version, tuple(item for item in BUILT_IN.prompt if item.name != LEFT_OUT))
_DROPPED_BITS = 16
"""Of the 32 of a float32, those that bfloat16 does not have."""


class RoundedModel:
    """The packaged model with outputs of layers rounded at random."""

    def __init__(self, folder: Path) -> None:
        import torch  # noqa: PLC0415 - takes seconds to load
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

        self._torch = torch
        self._generator = torch.Generator().manual_seed(1)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.layers = self._model.model.layers
        for layer in self.layers:
            layer.register_forward_hook(self._round)
        self._ids = {
            prompt.name: tokenizer.apply_chat_template(
                [{"role": item.role, "content": item.content} for item in prompt.messages], add_generation_prompt=True,
                return_tensors="pt", return_dict=True,
            )["input_ids"]
            for prompt in PROMPTS.prompt
        }  # fmt: skip
        self.worker = WorkerIdentity(
            "simulated", 0, 0, folder.name, "", "bfloat16", len(self.layers), self._model.config.num_attention_heads, ""
        )

    def load(self, folder: Path) -> None:
        """Take the weights in *folder*."""
        from safetensors.torch import load_file  # noqa: PLC0415

        self._model.load_state_dict(load_file(folder / WEIGHTS), strict=False)  # the output matrix is tied

    def weight(self) -> Tensor:
        """Return the matrix of which one weight is changed."""
        found: Tensor = self.layers[middle_layer(len(self.layers))].mlp.down_proj.weight.data
        return found

    def run(self) -> Run:
        """Return one run of all prompts."""
        return Run(0, {name: self._signature(name, ids) for name, ids in self._ids.items()})

    def _round(self, _: Any, __: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        bits = hidden.contiguous().view(self._torch.int32)
        bits = bits + self._torch.randint(0, 1 << _DROPPED_BITS, bits.shape, generator=self._generator, dtype=self._torch.int32)
        rounded = (bits >> _DROPPED_BITS << _DROPPED_BITS).view(self._torch.float32)
        return (rounded, *output[1:]) if isinstance(output, tuple) else rounded

    def _signature(self, name: str, ids: Tensor) -> Signature:
        tokens = int(ids.shape[1])
        with self._torch.no_grad():
            attentions = self._model(ids, output_attentions=True).attentions
        positions = self._torch.arange(tokens - CANARY_ROWS, tokens)
        spans, rule = row_spans([Span("user", 0, tokens)]), AttentionRule(1.0)
        layers = []
        for attention in attentions:  # [1, H, n, n]
            rows = attention[0, :, -CANARY_ROWS:].transpose(0, 1)  # [R, H, n]
            layers.append(summarise(rows, rows.new_zeros(rows.shape[:2]), positions, spans, rule)[0].numpy())
        return Signature(name, tokens, "", "", self.worker, np.stack(layers, axis=1).astype(np.float32))


def tried(pinned: Fingerprint, model: RoundedModel) -> dict[str, Any]:
    """Return what some runs of *model* show against *pinned*."""
    found = [compare(pinned, model.run()) for _ in range(TRIES)]
    return {
        "departed": sum(item.failed for item in found), "of": TRIES,
        "earliest_layers": [item.earliest_layer for item in found], "hints": [item.hint for item in found],
    }  # fmt: skip


def main() -> int:
    """Run the simulation, print one JSON document, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="added under `rounding_simulated`")
    given = parser.parse_args()
    original = prepare_model()
    model = RoundedModel(original)
    pinned = learn([model.run() for _ in range(given.runs)], PROMPTS, 0)
    unchanged = [deviation(pinned, model.run()) for _ in range(given.runs)]
    scores = [float(np.nanmax(item.scores)) for item in unchanged if item.scores is not None]
    result: dict[str, Any] = {
        "simulated": True, "pinned_runs": given.runs, "unchanged_runs": len(unchanged),
        "false_alarms": sum(item.failed for item in unchanged),
        "largest_deviation": max(item.largest for found in unchanged for item in found.prompts),
        "mean_deviation": float(np.mean([np.nanmean(item.mean) for item in unchanged])),
        "largest_score": max(scores), "score_limit": unchanged[0].limit, "one_weight": {}, "variants": {},
    }  # fmt: skip
    weight = model.weight()
    place = weight.shape[0] // 3, weight.shape[1] // 3
    for added in ADDED:
        weight[place] += added
        result["one_weight"][f"{added:g}"] = tried(pinned, model)
        weight[place] -= added
        print(f"+{added:g}: {result['one_weight'][f'{added:g}']}", file=sys.stderr, flush=True)  # noqa: T201 - progress
    with tempfile.TemporaryDirectory() as folder:
        for name in VARIANTS:
            model.load(write_variant(name, original, Path(folder) / name))
            result["variants"][name] = tried(pinned, model)
            print(f"{name}: {result['variants'][name]}", file=sys.stderr, flush=True)  # noqa: T201 - progress
    every = [float(size) for size, item in result["one_weight"].items() if item["departed"] == TRIES]
    result["smallest_found"] = min(every, default=None)
    report: dict[str, Any] = {"machine": msgspec.to_builtins(describe())}
    if given.json and given.json.exists():
        report = json.loads(given.json.read_text())
    report["rounding_simulated"] = result
    text = json.dumps(report, indent=2) + "\n"
    if given.json:
        given.json.write_text(text)
    print(text)  # noqa: T201 - the result
    return 0


if __name__ == "__main__":
    sys.exit(main())
