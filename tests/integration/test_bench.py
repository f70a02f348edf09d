"""``headwatch bench overhead`` and ``peers`` in real vLLM on a tiny model: shape, work really done, one JSON document.

Figures of a tiny model say nothing: a step of two milliseconds is mostly Python.  So the bars are not held here.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("tiny_models", HERE / "tiny_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(tmp_path_factory.mktemp("gqa"), "gqa")


@pytest.fixture(scope="module")
def overhead(model):
    return bench("overhead", model)


@pytest.fixture(scope="module")
def peers(model):
    return bench("peers", model)


def test_overhead_prints_its_bars(overhead):
    bars = {"throughput_ratio_default", "throughput_ratio_rate0", "throughput_ratio_all_b4", "worker_memory_mib",
            "p99_itl_ratio_default"}  # fmt: skip
    assert set(overhead["bars"]) == bars
    assert all(isinstance(value, float) for value in overhead["bars"].values())
    for name in bars - {"worker_memory_mib"}:
        interval = overhead["intervals"][name]
        assert interval["low"] <= interval["value"] <= interval["high"]
        assert interval["pairs"] >= 4


def test_overhead_has_every_arm_at_every_batch_size(overhead):
    arms = {(item["arm"], item["batch"]) for item in overhead["decode"]}
    names = {"plain", "plain_again", "rate0", "default", "every_request", "all"}
    assert arms == {(name, batch) for name in names for batch in (1, 4)}
    assert {item["arm"] for item in overhead["requests"]} == names - {"every_request"}
    assert all(item["ttft_p50_ms"] > 0 for item in overhead["requests"])


def test_capture_really_ran_in_the_arms_that_are_timed(overhead):
    """Every row of every timed step in the full arm, none but the warm-up's in the one with rate zero."""
    captured = overhead["captured"]
    timed = sum(item["steps"] * item["batch"] for item in overhead["decode"] if item["arm"] == "all")
    assert captured["all"]["rows"] >= timed
    assert captured["rate0"]["rows"] < timed / 10
    assert captured["all"]["rows"] > captured["every_request"]["rows"] > 0
    assert all(item["errors"] == {} and item["dropped"] == 0 for item in captured.values())


def test_overhead_says_what_it_ran_on(overhead):
    conditions = overhead["conditions"]
    assert conditions["kernel"]
    assert conditions["machine"]["versions"]["torch"]
    assert 1 <= conditions["engine_threads"] <= conditions["machine"]["cores"]
    assert 0.0 <= conditions["others_cpu_share"] <= 1.0
    assert conditions["quick"] is True
    assert overhead["servers"] is None


def test_peers_prints_a_bar_for_each_peer_and_batch_size(peers):
    rivals = [f"ahead_of_{peer}" for peer in ("copy_all", "copy_tenth", "attentions_all", "attentions_tenth")]
    assert set(peers["bars"]) == {f"{rival}_b{batch}" for rival in rivals for batch in (1, 4)}
    assert set(peers["intervals"]) == {
        f"{rival}{sense}_b{batch}" for rival in rivals for sense in ("", "_relative") for batch in (1, 4)
    }
    assert all(value > 0 for value in peers["bars"].values())
    ways = {(item["way"], item["batch"]) for item in peers["ways"]}
    assert {("plain", 1), ("all", 4), ("copy_all", 4), ("transformers", 1), ("attentions_all", 4)} <= ways


def bench(name, model):
    """Run the command as a user does; its exit code says whether the bars were kept, which a tiny model need not."""
    done = subprocess.run(
        [sys.executable, "-m", "headwatch.cli.main", "bench", name, "--quick", "--json", "--model", str(model)],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr[-3000:]
    assert done.stdout, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["passed"] is (done.returncode == 0)
    return report
