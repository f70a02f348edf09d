"""``headwatch verify`` on tiny random models in real vLLM: it passes where all is well, and it can fail."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WEIGHTS_AND_MASSES = {"entropy", "max_weight", "sink_mass", "local_mass", "distance", "span_mass"}
RATIOS = {"lookback", "document_mass"}

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def mha(tmp_path_factory):
    return build("mha", tmp_path_factory.mktemp("mha"))


@pytest.fixture(scope="module")
def gqa(tmp_path_factory):
    return build("gqa", tmp_path_factory.mktemp("gqa"))


@pytest.fixture(scope="module")
def captured(gqa):
    """The report on the grouped-query model, and the tokens that the engine generated meanwhile."""
    return script("report", gqa)


def test_multi_head_attention_through_the_command(mha):
    """The command compares 200 rows, prints one JSON document, and exits with 0."""
    done = command("--model", str(mha), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert report["rows"] >= 200
    assert (report["layers"], report["heads"], report["dtype"]) == (2, 4, "float32")
    assert report["refused_layers"] == {}
    assert set(report["max_abs_error"]) == WEIGHTS_AND_MASSES | RATIOS
    assert max(report["max_abs_error"].values()) <= 1e-4


def test_grouped_query_attention(captured):
    """Every feature of every row, layer and head agrees with transformers to 1e-4, and every one was compared."""
    report = captured["report"]
    assert report["passed"] is True
    assert (report["layers"], report["heads"]) == (3, 4)
    assert max(report["max_abs_error"].values()) <= 1e-4
    assert min(report["compared"].values()) > 100
    assert (report["missing_rows"], report["unexpected_rows"]) == (0, 0)


def test_the_prompts_exercise_what_production_does(captured):
    """Chunked prefill, prefix-cache hits, earlier turns, documents found and not found are all among the prompts."""
    coverage = captured["report"]["coverage"]
    assert coverage["batches"] == 2
    assert coverage["chunked_prefills"] >= 2
    assert coverage["prefix_cache_hits"] >= 2
    assert coverage["multi_turn"] == 2
    assert coverage["documents_found"] >= 12
    assert coverage["documents_missing"] == 1
    assert coverage["rows_decode"] >= 200
    assert coverage["rows_prefill"] >= 10
    assert {"system", "user", "history", "document", "memory", "tool"} <= set(coverage["span_kinds"])


def test_capture_does_not_change_a_token(captured, gqa, tmp_path):
    """Greedy output with capture of every row equals that of vLLM with headwatch off."""
    assert captured["tokens"] == script("plain", gqa, tmp_path)["tokens"]


def test_bfloat16_is_held_against_the_engines_own_queries_and_keys(gqa):
    """Within 2e-2 of float64 attention from the engine's Q and K; the distance to transformers stands beside it."""
    done = command("--model", str(gqa), "--dtype", "bfloat16", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert (report["dtype"], report["reference"]) == ("bfloat16", "engine_qk")
    assert max(report["max_abs_error"].values()) <= 2e-2
    assert set(report["distance_to_transformers"]) == WEIGHTS_AND_MASSES | RATIOS


def test_the_self_check_refuses_a_wrong_scale_and_a_shifted_position(gqa):
    """Two layers are refused by the worker; what it cannot see, two positions swapped whole, verify does."""
    report = script("faults", gqa)["report"]
    assert report["passed"] is False
    refused = report["refused_layers"]
    assert [name.split(".")[2] for name in refused] == ["0", "1"]
    assert all(reason.startswith("self_check:") for reason in refused.values())
    assert report["layers"] == 1
    assert report["failing_layers"] == [2]


def test_without_the_self_check_verify_finds_each_fault(gqa):
    """With a worker that trusts blindly, a wrong scale, a shifted position and swapped positions exceed the bound."""
    report = script("faults-unchecked", gqa)["report"]
    assert report["passed"] is False
    assert report["refused_layers"] == {}
    assert report["failing_layers"] == [0, 1, 2]
    assert max(report["max_abs_error"].values()) > 100 * report["bound"]


def test_a_folder_without_a_model_is_one_clear_line(tmp_path):
    """The user learns which folder, and what was expected in it."""
    done = command("--model", str(tmp_path), "--json")
    assert done.returncode != 0
    assert done.stdout == ""
    assert f"--model {tmp_path}: there is no config.json in it" in done.stderr
    assert "Traceback" not in done.stderr


def build(kind, folder):
    """Return the folder of a tiny model; the builder is a file beside this one."""
    spec = importlib.util.spec_from_file_location("tiny_models", HERE / "tiny_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(folder, kind)


def command(*arguments):
    """Run ``headwatch verify`` as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "headwatch.cli.main", "verify", *arguments],
        capture_output=True, text=True, timeout=300, check=False,
    )


def script(mode, model, *arguments):
    """Run verify_script.py, in a process of its own, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, str(HERE / "verify_script.py"), mode, str(model), *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
