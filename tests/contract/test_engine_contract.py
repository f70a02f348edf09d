"""What capture takes from vLLM is there, in the installed release and in each that the version gate lets in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headwatch.capture.engine.contract import CONTRACT, runner_needs
from headwatch.capture.plugin import SUPPORTED_ENGINES, refused_engine

from .engine_source import RESULTS, Source, fingerprint, installed, lacking, version

MAINTAIN = "run tests/contract/engine_source.py with the source trees of the releases"


@pytest.fixture(scope="module")
def results():
    return json.loads(RESULTS.read_text())


def numbers(text):
    return tuple(int(part) for part in text.split(".")[:2])


def test_the_installed_release_has_everything():
    """A release that moves a symbol fails here, with the symbol, the part that needs it, and what is wrong with it."""
    assert lacking(Source(installed())) == []
    assert refused_engine(version(installed())) == ""


def test_the_stored_results_are_those_of_this_contract(results):
    assert results["contract"] == fingerprint(), f"the contract has changed: {MAINTAIN}"
    assert results["symbols"] == len(CONTRACT)
    assert version(installed()) in results["lacking"], f"the installed release has no result: {MAINTAIN}"


def test_the_version_gate_lets_in_what_was_checked_and_nothing_else(results):
    """At least the newest release and two older ones were checked; every release inside the gate has all symbols."""
    first, last = SUPPORTED_ENGINES
    inside = {release: missing for release, missing in results["lacking"].items() if first <= numbers(release) < last}
    assert len(inside) >= 3
    assert all(missing == [] for missing in inside.values())
    assert numbers(max(inside, key=numbers)) == (last[0], last[1] - 1), "the newest release inside the gate was checked"
    assert numbers(min(inside, key=numbers)) == first, "the oldest as well"


@pytest.mark.parametrize("release", ["0.10.2", "0.34.0", "1.0.0", "unknown", "0.32.dev"])
def test_an_unknown_release_is_refused_by_name(release):
    expected = "" if release == "0.32.dev" else f"vLLM {release} is not supported"
    assert refused_engine(release).startswith(expected)


@pytest.mark.parametrize(
    ("file", "before", "after", "named"),
    [
        ("v1/worker/gpu/model_runner.py", "def prepare_attn(", "def prepare_attention(", "GPUModelRunner.prepare_attn"),
        ("v1/worker/gpu_model_runner.py", "self.optimistic_seq_lens_cpu", "self.seq_lens_bound", "optimistic_seq_lens_cpu"),
        ("v1/cudagraph_dispatcher.py", "invalid_modes", "excluded_modes", "invalid_modes"),
        ("v1/core/sched/output.py", "num_computed_tokens: int", "computed: int", "NewRequestData.num_computed_tokens"),
        ("v1/worker/gpu/model_runner.py", "dispatch_cg_and_sync_dp", "choose_graph", "dispatch_cg_and_sync_dp"),
        ("config/parallel.py", "def use_ubatching", "def cuts_batches", "use_ubatching"),
    ],
)
def test_whatever_a_release_moves_is_named(file, before, after, named):
    """The installed release with one symbol renamed lacks that symbol."""
    text = (installed() / "vllm" / file).read_text()
    assert before in text
    missing = lacking(Source(installed(), {file: text.replace(before, after)}))
    assert missing
    assert any(named in line for line in missing), missing


def test_the_adapters_ask_the_contract_what_a_runner_must_have():
    assert "optimistic_seq_lens_cpu" in runner_needs("v1 runner")
    assert "prepare_attn" in runner_needs("v2 runner")
    assert len({need.symbol for need in CONTRACT}) == len(CONTRACT), "each symbol stands once"
    assert all(need.why for need in CONTRACT)


@pytest.fixture(scope="module")
def imported():
    """What a process that imports the installed vLLM says of its real classes."""
    script = Path(__file__).with_name("engine_classes.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.engine
def test_the_real_classes_have_the_signatures_that_the_source_shows(imported):
    assert imported["missing"] == []
    assert imported["called"] >= 9


@pytest.mark.engine
def test_the_mark_of_the_engine_core_reaches_the_workers(imported):
    assert imported["mark"] is True


@pytest.mark.engine
def test_the_modes_are_told_from_real_configurations(imported):
    """A plain engine is not refused; each mode that is, by its name, on a real ``VllmConfig``."""
    assert imported["plain"] == ""
    for mode, reason in imported["modes"].items():
        assert reason.startswith(f"{mode}: "), (mode, reason)
    assert len(imported["modes"]) >= 10


@pytest.mark.engine
@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_a_sampled_step_never_gets_a_full_graph_and_another_gets_what_it_got(imported, runner):
    """Every mode that vLLM has, with vLLM's own dispatcher: FULL falls back to PIECEWISE where there is one, else to none."""
    graphs = imported["graphs"][runner]
    assert {mode: graphs[mode]["plain"] for mode in graphs} == {mode: graphs[mode]["unsampled"] for mode in graphs}
    modes = {mode: (graphs[mode]["unsampled"]["decode"][0], graphs[mode]["sampled"]["decode"][0]) for mode in graphs}
    assert modes == {
        "FULL_AND_PIECEWISE": ("FULL", "PIECEWISE"),
        "FULL_DECODE_ONLY": ("FULL", "NONE"),
        "FULL": ("FULL", "NONE"),
        "PIECEWISE": ("PIECEWISE", "PIECEWISE"),
        "NONE": ("NONE", "NONE"),
    }
    assert all("FULL" not in [shape[0] for shape in graphs[mode]["sampled"].values()] for mode in graphs)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two data parallel ranks decide, each a process, with vLLM's own reduction between them."""
    script, store = Path(__file__).with_name("data_parallel_graphs.py"), tmp_path_factory.mktemp("ranks") / "store"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    finished = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], finished
    return [json.loads(output) for output, _ in finished]


@pytest.mark.engine
@pytest.mark.parametrize("runner", ["v1", "v2"])
@pytest.mark.parametrize("mode", ["FULL_AND_PIECEWISE", "FULL_DECODE_ONLY", "FULL"])
def test_data_parallel_ranks_agree_whichever_of_them_samples(ranks, runner, mode):
    """The same graph and the same number of tokens on both ranks, without a word of ours between them."""
    first, second = (rank[runner][mode] for rank in ranks)
    assert list(first) == ["nobody", "first", "second", "both"]
    for case, shape in first.items():
        assert shape == second[case], case
    assert first["nobody"][0] == "FULL", "an unsampled step replays its FULL graph"
    expected = "PIECEWISE" if mode == "FULL_AND_PIECEWISE" else "NONE"
    assert [first[case][0] for case in ("first", "second", "both")] == [expected] * 3


@pytest.mark.engine
def test_in_v2_leaving_full_graphs_out_on_one_rank_alone_would_part_the_ranks(ranks):
    """Why a sampled rank also has to say that its batch is no uniform decode."""
    first, second = (rank["v2 untold"]["FULL_AND_PIECEWISE"]["first"] for rank in ranks)
    assert (first[0], second[0]) == ("PIECEWISE", "FULL")
