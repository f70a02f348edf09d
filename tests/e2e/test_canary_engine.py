"""Canaries through a real vLLM server on a tiny model: the same bit for bit, a change found in one run, no trace in rates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from headwatch.bench.canary_stage import Stage, staged, vllm_serving
from headwatch.bench.triage.variants import write_variant
from headwatch.canary.compare import compare
from headwatch.canary.fingerprint import learn, save
from headwatch.canary.prompts import BUILT_IN
from headwatch.demo.servers import SERVED_MODEL

from ..integration.tiny_models import build

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.canary.signature import Run

pytestmark = pytest.mark.engine

QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("canary") / "model", "gqa")


@pytest.fixture(scope="module")
def stage(model: Path) -> Iterator[Stage]:
    with staged(model, model.parent / "work") as found:
        yield found


def same(one: Run, other: Run) -> bool:
    return all(
        np.array_equal(item.values, other.signatures[name].values, equal_nan=True) for name, item in one.signatures.items()
    )


def ask(stage: Stage, text: str, salt: str) -> None:
    body = {"model": SERVED_MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 1, "cache_salt": salt}
    assert httpx.post(f"{stage.addresses.vllm}/v1/chat/completions", json=body, timeout=120, trust_env=False).status_code == 200


def test_a_float32_server_repeats_itself_bit_for_bit_idle_and_busy(stage: Stage) -> None:
    first = stage.run()
    assert same(first, stage.run())
    assert same(first, stage.run(company=4))
    with stage.traffic(3):
        assert same(first, stage.run())
    assert all(np.isfinite(item.values[..., :5]).all() for item in first.signatures.values()), "all heads are captured"


def test_canaries_and_their_companions_leave_no_trace_in_the_prefix_caches_rates(stage: Stage) -> None:
    """Both rates stand still while canaries run, and move with the first ordinary request."""
    before = stage.metrics()
    stage.run()
    stage.run(company=2)
    after = stage.metrics()
    assert (after[QUERIES], after[HITS]) == (before[QUERIES], before[HITS])
    assert after["vllm:request_success_total"] > before["vllm:request_success_total"], "they were served all the same"
    for _ in range(2):
        ask(stage, "the harbour " * 300, "shared")
    moved = stage.metrics()
    assert moved[QUERIES] > after[QUERIES]
    assert moved[HITS] > after[HITS], "an ordinary request does hit the cache"


@pytest.mark.parametrize(("variant", "hint", "layer"), [("altered_weight", "weights", 2), ("dead_head", "head", 1),
                                                        ("int8", "precision", 0)])  # fmt: skip
def test_a_changed_model_is_found_in_one_run_and_the_old_one_is_recognised(
    stage: Stage, model: Path, variant: str, hint: str, layer: int
) -> None:
    pinned = learn([stage.run() for _ in range(3)], BUILT_IN, 7)
    assert pinned.noise is None
    try:
        stage.reload(write_variant(variant, model, model.parent / variant))
        found = compare(pinned, stage.run())
        assert found.failed
        assert found.earliest_layer == layer
        if variant != "altered_weight":  # +8 is no small change in a model of three layers
            assert found.hint == hint
    finally:
        stage.reload(model)
    assert not compare(pinned, stage.run()).failed


def test_ci_pins_a_fingerprint_alone_and_holds_a_template_with_one_more_newline_against_it(
    model: Path, tmp_path: Path, stage: Stage
) -> None:
    """``headwatch canary`` as CI calls it, on servers of its own; exit code 1 where the candidate is another model."""
    save(learn([stage.run()], BUILT_IN, 7), tmp_path / "production.json")
    changed = write_variant("template_newline", model, tmp_path / "newline")
    with vllm_serving(changed, tmp_path / "work") as addresses:
        environ = {**os.environ, "HEADWATCH_CONFIG": str(tmp_path / "work" / "headwatch.toml")}
        command = [sys.executable, "-m", "headwatch.cli.main", "canary", "pin", "--stand-alone", "--json",
                   "--endpoint", addresses.vllm, "--out", str(tmp_path / "candidate.json")]  # fmt: skip
        pinned = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240, check=False)
        assert pinned.returncode == 0, pinned.stderr
        assert json.loads(pinned.stdout)["exact"] is True
    command = [sys.executable, "-m", "headwatch.cli.main", "canary", "compare", "--json",
               str(tmp_path / "production.json"), str(tmp_path / "candidate.json")]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 1, found.stderr
    assert json.loads(found.stdout)["hint"] == "template"
