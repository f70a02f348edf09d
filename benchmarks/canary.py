"""What canaries find on the real model through the real server.

In float32 every kind of change in one run; in bfloat16 under load the noise floor and the smallest change of one weight.  Run
``python -m benchmarks.canary [--json FILE] [--runs N]``.  Three servers on the packaged model, about ten minutes on two idle
cores: float32 (weights replaced while it runs), float32 with a changed chat template, and bfloat16 with six threads of ordinary
traffic and batches of at most 64 tokens, so that prompts are cut into chunks that depend on what else is there: continuous
batching at its most restless.  In bfloat16 a change counts as found where every one of three runs departs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from headwatch.bench.canary_stage import Stage, staged
from headwatch.bench.machine import describe
from headwatch.bench.triage.variants import WEIGHTS, middle_layer, write_variant
from headwatch.canary.compare import Comparison, compare
from headwatch.canary.deviation import deviation
from headwatch.canary.fingerprint import Fingerprint, learn
from headwatch.canary.prompts import BUILT_IN
from headwatch.demo.model import prepare_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.canary.signature import Run

WEIGHT_VARIANTS = ("altered_weight", "dead_head", "fine_tuned_layer", "adapter", "bf16", "int8", "int4")
ADDED = (8.0, 2.0, 0.5, 0.125, 0.03125)
"""What is added to one weight of an MLP matrix in the middle of the model."""
TRAFFIC = 6
TRIES = 3
CHUNKED = ("--max-num-batched-tokens", "64")


def add_to_one_weight(model: Path, target: Path, added: float) -> Path:
    """Write *model* with *added* to the weight that the variant ``altered_weight`` changes, and return *target*."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - torch takes seconds to load

    write_variant("altered_weight", model, target)  # links the other files
    config = json.loads((model / "config.json").read_text())
    tensors = load_file(model / WEIGHTS)
    name = f"model.layers.{middle_layer(config['num_hidden_layers'])}.mlp.down_proj.weight"
    weight = tensors[name] = tensors[name].clone()
    weight[weight.shape[0] // 3, weight.shape[1] // 3] += added
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    return target


def shown(found: Comparison) -> dict[str, Any]:
    """Return what a table shows of *found*."""
    means = [value for value in found.layers if value is not None]
    return {
        "failed": found.failed, "hint": found.hint, "earliest_layer": found.earliest_layer,
        "largest_deviation": max(item.deviation for item in found.exhibits), "mean_deviation": float(np.mean(means)),
        "prompts_departing": sum(item.failed for item in found.exhibits), "note": found.note,
    }  # fmt: skip


def largest(runs: list[Run]) -> float:
    """Return the largest difference between the first of *runs* and any other."""
    first = runs[0].signatures
    return max(
        float(np.nanmax(np.abs(run.signatures[name].values - item.values))) for run in runs[1:] for name, item in first.items()
    )


def float32(model: Path, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what is found in float32: every variant of the weights and sizes of one altered weight, in one run each."""
    report: dict[str, Any] = {"variants": {}, "one_weight": {}}
    with staged(model, work / "float32") as stage:
        idle = [stage.run() for _ in range(3)]
        with stage.traffic(TRAFFIC):
            busy = [stage.run() for _ in range(5)]
        report |= {"repeats_idle": largest(idle), "repeats_under_load": largest([idle[0], *busy])}
        report["run_seconds_idle"] = round(min(stage.served[:3]), 2)
        pinned = learn(idle, BUILT_IN, 0)
        for name in WEIGHT_VARIANTS:
            report["variants"][name] = shown(reloaded(stage, pinned, write_variant(name, model, work / "variant")))
            say(f"float32 {name}: {report['variants'][name]['hint']}")
        for added in ADDED:
            found = shown(reloaded(stage, pinned, add_to_one_weight(model, work / "variant", added)))
            report["one_weight"][f"{added:g}"] = found
            say(f"float32 +{added:g}: {found['failed']}")
        stage.reload(model)
        report["original_again"] = shown(compare(pinned, stage.run()))
    with staged(write_variant("template_newline", model, work / "variant"), work / "template") as stage:
        report["variants"]["template_newline"] = shown(compare(pinned, stage.run()))
    return report


def reloaded(stage: Stage, pinned: Fingerprint, changed: Path) -> Comparison:
    """Return one run of the weights in *changed* against *pinned*."""
    stage.reload(changed)
    found = compare(pinned, stage.run())
    shutil.rmtree(changed)
    return found


def bfloat16(model: Path, work: Path, runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the noise floor in bfloat16 under load, false alarms, and the smallest change of one weight that is found."""
    report: dict[str, Any] = {"pinned_runs": runs, "traffic_threads": TRAFFIC, "arguments": list(CHUNKED), "one_weight": {}}
    with staged(model, work / "bfloat16", "bfloat16", *CHUNKED) as stage:
        idle = [stage.run() for _ in range(2)]
        with stage.traffic(TRAFFIC):
            pinned_runs = [stage.run() for _ in range(runs)]
            pinned = learn(pinned_runs, BUILT_IN, 0)
            unchanged = [stage.run() for _ in range(runs)]
            report |= floor(pinned, idle, unchanged)
            say(f"bfloat16: {report}")
            for added in ADDED:
                stage.reload(add_to_one_weight(model, work / "variant", added))
                found = [compare(pinned, stage.run()) for _ in range(TRIES)]
                report["one_weight"][f"{added:g}"] = {
                    "departed": sum(item.failed for item in found), "of": TRIES, **shown(found[0])
                }
                say(f"bfloat16 +{added:g}: {report['one_weight'][f'{added:g}']['departed']} of {TRIES}")
    found_sizes = [float(size) for size, item in report["one_weight"].items() if item["departed"] == TRIES]
    report["smallest_found"] = min(found_sizes, default=None)
    return report


def floor(pinned: Fingerprint, idle: list[Run], unchanged: list[Run]) -> dict[str, Any]:
    """Return how far the unchanged model strays from its fingerprint."""
    away = [deviation(pinned, run) for run in unchanged]
    scores = [float(np.nanmax(item.scores)) for item in away if item.scores is not None]
    return {
        "exact": pinned.noise is None, "repeats_idle": largest(idle), "false_alarms": sum(item.failed for item in away),
        "unchanged_runs": len(away), "largest_deviation": max(item.largest for found in away for item in found.prompts),
        "mean_deviation": float(np.mean([np.nanmean(item.mean) for item in away])),
        "largest_score": max(scores, default=None), "score_limit": away[0].limit if scores else None,
    }  # fmt: skip


def main() -> int:
    """Run the benchmark, print one JSON document, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--runs", type=int, default=20, help="runs that pin in bfloat16, and runs that must not depart")
    parser.add_argument("--only", choices=("float32", "bfloat16"))
    given = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress

    model = prepare_model(on_stage=say)
    report: dict[str, Any] = {"machine": msgspec.to_builtins(describe()), "prompts": BUILT_IN.version}
    if given.json and given.json.exists():
        report = json.loads(given.json.read_text()) | report
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "float32": lambda work: float32(model, work, say),
        "bfloat16": lambda work: bfloat16(model, work, given.runs, say),
    }
    for name, part in parts.items():
        if given.only in {None, name}:
            with tempfile.TemporaryDirectory() as folder:
                report[name] = part(Path(folder))
            if given.json:
                given.json.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))  # noqa: T201 - the result
    return 0


if __name__ == "__main__":
    sys.exit(main())
