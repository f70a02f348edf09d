"""Runs ``verify`` in a process of its own, as a test wants it: python verify_script.py MODE MODEL → JSON on stdout.

``report``: the report, and the tokens that were generated.  ``plain``: the tokens of the same prompts with headwatch
switched off.  ``faults``: three planted faults, one a layer.  ``faults-unchecked``: the same without the self-check.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from headwatch.capture import attach
from headwatch.capture.kernels import oracle
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.capture.layers import selfcheck
from headwatch.cli.output import stdout_to_stderr
from headwatch.verify import engine
from headwatch.verify.cases import WAVES
from headwatch.verify.rules import layer_rules
from headwatch.verify.run import DEFAULT_ROWS, PREFILL_STRIDE, generated_tokens, judge

TOKENS = generated_tokens(DEFAULT_ROWS)


class SwappedPositions:
    """A cache reader that confuses positions 0 and 1, keys and values together."""

    def __init__(self, reader):
        self.reader = reader

    def read(self, cache, blocks, tokens):
        keys, values = self.reader.read(cache, blocks, tokens)
        order = [1, 0, *range(2, tokens)][:tokens] if tokens > 1 else [0]
        return keys[order], values[order]


def plant_faults():
    """Layer 0 doubles the scale, layer 1 sees every query one position too early, layer 2 swaps two positions.

    The torch kernel runs: it alone goes through the reader and the oracle, where the faults are.
    """
    discover, weights = attach.discover, oracle.weights
    shifted = []

    def faulty_discover(context, wanted):
        layers = discover(context, wanted)
        layers[0].rule = replace(layers[0].rule, scale=2 * layers[0].rule.scale)
        layers[1].rule = replace(layers[1].rule)
        shifted.append(layers[1].rule)
        layers[2].reader = SwappedPositions(layers[2].reader)
        return layers

    def faulty_weights(query, keys, positions, rule):
        return weights(query, keys, positions - 1 if rule is shifted[0] else positions, rule)

    attach.discover, oracle.weights, attach.choose = faulty_discover, faulty_weights, lambda *_, **__: TorchRows()


def trust_blindly(self, attention, values, output, visible, latent=None):
    """Stand in for the self-check of a layer: everything passes."""
    self.passed, self.widest = selfcheck.CHECKS, selfcheck.MIN_VISIBLE


def report(model):
    """Return the report and the generated tokens."""
    started = time.monotonic()
    served = engine.run_engine(model, "float32", WAVES, generated_tokens=TOKENS, prefill_stride=PREFILL_STRIDE)
    result = judge(served, model, "float32", layer_rules(model), None, started)
    return {"report": result, "tokens": [request.generated_ids for request in served.requests]}


def plain(model, folder):
    """Return the tokens that the engine generates without headwatch."""
    with engine._environment(folder, PREFILL_STRIDE):
        os.environ["HEADWATCH_DISABLE"] = "1"
        llm = engine._start(model, "float32")
        requests = [request for wave in WAVES for request in engine._serve(llm, wave, TOKENS)]
        llm.llm_engine.engine_core.shutdown()
    return {"tokens": [request.generated_ids for request in requests]}


def main():
    mode, model = sys.argv[1], Path(sys.argv[2])
    with stdout_to_stderr():
        if mode.startswith("faults"):
            plant_faults()
        if mode == "faults-unchecked":
            selfcheck.LayerTrust.check = trust_blindly
        result = plain(model, Path(sys.argv[3])) if mode == "plain" else report(model)
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
